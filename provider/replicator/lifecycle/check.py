"""From what a person wrote to a Stream: names, the choice of a backend, and everything that can be refused offline."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from replicator import authref
from replicator.backends import REGISTRY
from replicator.backends.declarations import refusals, with_canonical_options
from replicator.capabilities import TABLE, Capabilities, Cell, Feature, No, StartKind
from replicator.errors import InvalidConfig, InvalidStream, ReplicatorError, Unsupported
from replicator.lifecycle.config import ProviderConfig
from replicator.lifecycle.connect import StreamId
from replicator.lifecycle.failure import Failure, failures_of
from replicator.model import Drain, EndpointKind, Stream

_MODELLED_OPTIONS = frozenset({"path", "url", "uri", "type", "replica", "replicas", "name", "sync-interval"})
_KINDS = frozenset(EndpointKind)
_SECRET_OPTION = re.compile(
    r"(?i)(pass(word|wd|phrase)|pwd|secret|token|(access|api|private)[-_.]?key|credential|\bage\b)"
)


@dataclass(frozen=True, slots=True)
class Checked:
    """What Check found.

    :param inputs: the person's own inputs, with `name` and `backend` filled in.
    :param stream: the declared stream; `None` while something is unknown or wrong.
    """

    inputs: dict[str, Any]
    stream: Stream | None
    failures: list[Failure]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which resource asks: the names are made from it."""

    urn: str
    project: str
    stack: str
    name: str

    @classmethod
    def of_urn(cls, urn: str) -> Identity:
        """Read `urn:pulumi:<stack>::<project>::<type>::<name>`."""
        parts = urn.split("::", 3)
        stack = parts[0].removeprefix("urn:pulumi:")
        project, name = (parts[1], parts[3]) if len(parts) == 4 else ("", parts[-1])
        return cls(urn, project, stack, name)


def stream_name(identity: Identity) -> str:
    """A name for a stream that has none: the same for the same URN, so that a lost reply finds its stream again."""
    words = "-".join((identity.project, identity.stack, identity.name)).lower()
    slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    if not slug[:1].isalpha():
        slug = f"s-{slug}"
    digest = hashlib.sha256(identity.urn.encode()).hexdigest()[:7]
    return f"{slug[:40].rstrip('-')}-{digest}"


def check(
    inputs: Mapping[str, Any],
    unknown: Iterable[str],
    old_inputs: Mapping[str, Any],
    identity: Identity,
    config: ProviderConfig,
) -> Checked:
    """Normalise and validate.

    :param inputs: plain values; what is not known yet is left out and its path is in `unknown`.
    :param unknown: paths (`source.uri`) of values that are known only after other resources exist.
    :param old_inputs: the inputs in the state; empty for a new resource.
    """
    unknown = frozenset(unknown)
    filled = dict(inputs)
    if "name" not in filled and "name" not in unknown:
        filled["name"] = old_inputs.get("name") or stream_name(identity)
    failures: list[Failure] = []
    if "backend" not in filled and "backend" not in unknown:
        backend, failure = _choose_backend(filled, unknown, old_inputs, config)
        if backend:
            filled["backend"] = backend
        if failure:
            failures.append(failure)
    stream = None
    try:
        stream = with_canonical_options(Stream.model_validate(filled, by_alias=True, by_name=False))
    except ValidationError as error:
        failures += [f for f in failures_of(error, Stream, InvalidStream.code) if not _explained(f.path, unknown)]
    if "owner" in filled:
        failures.append(Failure("owner", "is not known here", InvalidStream.code))
    failures += _auth_failures(filled)
    failures += _capability_failures(filled, unknown)
    if stream is not None and not failures:
        failures += _address_failures(stream, config)
        failures += () if unknown else _declaration_failures(stream)
    if unknown or failures:
        stream = None
    return Checked(filled, stream, failures)


def _explained(path: str, unknown: frozenset[str]) -> bool:
    """Whether a failure at `path` only comes from a value that is not known yet."""
    return any(
        path == hole or path.startswith((f"{hole}.", f"{hole}[")) or hole.startswith(f"{path}.") for hole in unknown
    )


def _choose_backend(
    inputs: Mapping[str, Any], unknown: frozenset[str], old_inputs: Mapping[str, Any], config: ProviderConfig
) -> tuple[str | None, Failure | None]:
    if known := old_inputs.get("backend"):
        return known, None
    source, destination = _kind(inputs, "source"), _kind(inputs, "destination")
    if source is None or destination is None:
        return None, None
    candidates = [
        row for row in TABLE.values() if row.automatic and (not config.backends or row.backend in config.backends)
    ]
    fitting = [row.backend for row in candidates if _serves(row, source, destination)]
    if len(fitting) == 1:
        return fitting[0], None
    if fitting:
        reason = f"{' and '.join(fitting)} can each move {source} to {destination}; choose one"
    elif not candidates:
        configured = " and ".join(sorted(config.backends))
        reason = f"the configuration names {configured}, which a stream has to ask for by name; set backend"
    else:
        pairs = sorted({f"{a} → {b} ({row.backend})" for row in candidates for a, b in row.pairs})
        whose = "those configured move" if config.backends else "this release moves"
        reason = f"no backend moves {source} to {destination}; {whose} {', '.join(pairs)}"
    return None, Failure("backend", reason, Unsupported.code)


def _kind(inputs: Mapping[str, Any], end: str) -> str | None:
    endpoint = inputs.get(end)
    kind = endpoint.get("kind") if isinstance(endpoint, Mapping) else None
    return kind if isinstance(kind, str) and kind in _KINDS else None


def _serves(row: Capabilities, source: str, destination: str) -> bool:
    return any((a, b) == (source, destination) for a, b in row.pairs)


def _address_failures(stream: Stream, config: ProviderConfig) -> Iterable[Failure]:
    """A place that nobody manages, told before an engine is asked."""
    at = StreamId.of(stream)
    backend = REGISTRY[at.backend]
    try:
        config.address(backend, at.region)
    except InvalidConfig as error:
        path = "backend" if at.region == "default" else f"{backend.managed_at}.region"
        yield Failure(path, error.message, error.code, error.fix)


def _declaration_failures(stream: Stream) -> Iterable[Failure]:
    """What the stream's backend refuses without its engine."""
    for error in refusals(stream):
        yield Failure(error.property or "", error.message, error.code, error.fix)


def _auth_failures(inputs: Mapping[str, Any]) -> Iterable[Failure]:
    for end in ("source", "destination"):
        endpoint = inputs.get(end)
        for key in ("authRef", "adminAuthRef"):
            text = endpoint.get(key) if isinstance(endpoint, Mapping) else None
            if isinstance(text, str):
                try:
                    authref.parse(text)
                except ReplicatorError as error:
                    yield Failure(f"{end}.{key}", f"{error.message}; {error.fix}", error.code)


def _capability_failures(inputs: Mapping[str, Any], unknown: frozenset[str]) -> Iterable[Failure]:
    """Everything that the backend's row of the capability table refuses."""
    backend = inputs.get("backend")
    if not isinstance(backend, str):
        return
    row = TABLE.get(backend)
    if row is None:
        yield Failure("backend", f"{backend!r} is not in this release; it has {', '.join(TABLE)}", Unsupported.code)
        return
    source, destination = _kind(inputs, "source"), _kind(inputs, "destination")
    if source and destination and not _serves(row, source, destination):
        pairs = ", ".join(sorted(f"{a} → {b}" for a, b in row.pairs))
        yield Failure(
            "backend", f"{backend} does not move {source} to {destination}; it moves {pairs}", Unsupported.code
        )
    for path, cell in _asked(inputs, row):
        if isinstance(cell, No):
            yield Failure(path, cell.reason, Unsupported.code)
    options = inputs.get("options")
    if isinstance(options, Mapping) and "options" not in unknown:
        yield from _option_failures(options, row)


def _asked(inputs: Mapping[str, Any], row: Capabilities) -> Iterable[tuple[str, Cell]]:
    """The cells of the table that these inputs make use of, with the property that does."""
    modes = {str(mode): cell for mode, cell in row.modes.items()}
    conflicts = {str(conflict): cell for conflict, cell in row.conflicts.items()}
    for path, cells in (("mode", modes), ("conflict", conflicts)):
        if isinstance(word := inputs.get(path), str) and word in cells:
            yield path, cells[word]
    if (start := _start_kind(inputs.get("startFrom"))) is not None:
        yield "startFrom", row.start_from[start]
    for path, feature in (
        ("include", Feature.INCLUDE_EXCLUDE),
        ("exclude", Feature.INCLUDE_EXCLUDE),
        ("filter", Feature.FILTER),
        ("checkpointInterval", Feature.CHECKPOINT_INTERVAL),
        ("purgeDestination", Feature.PURGE_DESTINATION),
        ("options", Feature.OPTIONS),
    ):
        if inputs.get(path):
            yield path, row.features[feature]
    if inputs.get("waitFor") == "caught_up":
        yield "waitFor", row.features[Feature.WAIT_CAUGHT_UP]
    if (drain := inputs.get("drainBeforeDelete")) in tuple(Drain):
        yield "drainBeforeDelete", row.features[Feature(f"drainBeforeDelete: {drain}")]


def _start_kind(value: Any) -> StartKind | None:
    if isinstance(value, Mapping):
        return StartKind.LSN if value.get("lsn") else StartKind.WALL
    return StartKind(value) if value in ("earliest", "latest") else None


def _option_failures(options: Mapping[str, Any], row: Capabilities) -> Iterable[Failure]:
    for key, value in options.items():
        path = f"options.{key}"
        if key in _MODELLED_OPTIONS:
            yield Failure(path, "is set through the stream's own properties", InvalidStream.code)
        elif _SECRET_OPTION.search(key):
            yield Failure(path, "looks like a secret, which would stand in the state; use authRef", InvalidStream.code)
        elif row.options is not None and key not in row.options:
            known = ", ".join(sorted(row.options))
            yield Failure(path, f"is not an option of {row.backend}; it takes {known}", Unsupported.code)
        elif row.options is not None and value is not None:
            try:
                row.options[key].read(value)
            except ValueError as error:
                yield Failure(path, str(error), InvalidStream.code)
