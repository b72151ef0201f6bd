"""Check: turns a program's inputs into a Stream with name and backend, and refuses whatever can be refused offline."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import ValidationError

from replicator.backends import REGISTRY
from replicator.backends.shared.declarations import refusals, with_canonical_options
from replicator.backends.shared.supported import kind_of, unsupported
from replicator.capabilities import TABLE
from replicator.errors import InvalidConfig, InvalidStream, Unsupported
from replicator.lifecycle.config import ProviderConfig
from replicator.lifecycle.connections import StreamId
from replicator.lifecycle.failure import Failure, failures_of
from replicator.model import NAME_LIMIT, STREAM_NAME, EndpointKind, Stream, slug
from replicator.property_values import Secret, strip

FOLDER_KIND = "file"
"""Another word for the kind `s3`, for an endpoint that is a folder. No record, state or engine has it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of Check.

    :param inputs: the program's own inputs, with `name` and `backend` filled in.
    :param stream: the declared stream; `None` while something is unknown or wrong.
    """

    inputs: dict[str, Any]
    stream: Stream | None
    failures: list[Failure]


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of the resource, from which names are derived."""

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


class NameMode(Enum):
    """The kind of a proposed name: it may be changed, it is final, or none is given and the program has to set one."""

    PROPOSE = "propose"
    ENFORCE = "enforce"
    DISABLE = "disable"


@dataclass(frozen=True, slots=True)
class NameRule:
    """The name that the stack's configuration gives to a resource without one."""

    mode: NameMode
    proposed: str = ""

    def name(self, identity: Identity) -> str:
        """Return the name; raise `InvalidStream` if the rule gives no valid one."""
        if self.mode is NameMode.DISABLE:
            raise InvalidStream("is required, because pulumi:autonaming is disabled", fix="write name in the program")
        if not self.proposed:
            return stream_name(identity)
        if re.fullmatch(STREAM_NAME, self.proposed):
            return self.proposed
        if self.mode is NameMode.ENFORCE:
            raise InvalidStream(
                f"pulumi:autonaming enforces {self.proposed!r}, and a stream's name must match {STREAM_NAME}",
                fix="write name in the program, or change pulumi:autonaming",
            )
        words = slug(self.proposed, "s")
        return words if len(words) <= NAME_LIMIT else _with_digest(words, identity)


def stream_name(identity: Identity) -> str:
    """Return a name for a stream without one, the same for the same URN: a retry after a lost reply finds it."""
    return _with_digest(slug("-".join((identity.project, identity.stack, identity.name)), "s"), identity)


def _with_digest(words: str, identity: Identity) -> str:
    digest = hashlib.sha256(identity.urn.encode()).hexdigest()[:7]
    return f"{words[: NAME_LIMIT - 8].rstrip('-')}-{digest}"


def check(
    inputs: Mapping[str, Any],
    unknown: Iterable[str],
    old_inputs: Mapping[str, Any],
    identity: Identity,
    config: ProviderConfig,
    naming: NameRule | None = None,
) -> Checked:
    """Normalize and validate inputs.

    :param inputs: plain values, without the unknown ones.
    :param unknown: paths (`source.uri`) of values that are known only after other resources exist.
    :param old_inputs: the inputs in the state; empty for a new resource.
    :param naming: the configured name of a new resource without one.
    """
    unknown = frozenset(unknown)
    filled = dict(inputs)
    failures: list[Failure] = []
    if "name" not in filled and "name" not in unknown:
        try:
            filled["name"] = old_inputs.get("name") or (naming or _DEFAULT_NAMING).name(identity)
        except InvalidStream as error:
            failures.append(Failure("name", error.message, error.code, error.fix))
            unknown |= {"name"}
    if "backend" not in filled and "backend" not in unknown:
        backend, failure = _choose_backend(filled, unknown, old_inputs, config)
        if backend:
            filled["backend"] = backend
        if failure:
            failures.append(failure)
    failures += _wrong_folders(filled)
    stream = None
    try:
        stream = with_canonical_options(Stream.model_validate(filled, by_alias=True, by_name=False))
    except ValidationError as error:
        found = failures_of(error, Stream, InvalidStream.code)
        failures += [f for f in found if not _explained(f.path, unknown) and f.path not in _paths(failures)]
    if "owner" in filled:
        failures.append(Failure("owner", "is not known here", InvalidStream.code))
    failures += [f for f in _unsupported(filled, unknown) if f.path not in _paths(failures)]
    if stream is not None and not failures:
        failures += _address_failures(stream, config)
        failures += () if unknown else _declaration_failures(stream, config)
    if unknown or failures:
        stream = None
    return Checked(filled, stream, failures)


def with_known_kinds(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs in which a folder's kind `file` is `s3`. Secrets stay secrets, and unknown values unknown."""
    return {**inputs, **{end: _with_known_kind(inputs[end]) for end in ("source", "destination") if end in inputs}}


def _with_known_kind(endpoint: object) -> object:
    if isinstance(endpoint, Secret):
        return Secret(_with_known_kind(endpoint.value))
    if not isinstance(endpoint, Mapping) or strip(endpoint.get("kind")) != FOLDER_KIND:
        return endpoint
    uri = strip(endpoint.get("uri"))
    return endpoint if isinstance(uri, str) and uri.startswith("s3:") else {**endpoint, "kind": EndpointKind.S3.value}


def _wrong_folders(inputs: Mapping[str, Any]) -> Iterator[Failure]:
    for end in ("source", "destination"):
        endpoint = inputs.get(end)
        if isinstance(endpoint, Mapping) and endpoint.get("kind") == FOLDER_KIND:
            reason = "is a folder, and the uri is in a bucket; write s3"
            yield Failure(f"{end}.kind", reason, InvalidStream.code)


def _paths(failures: Iterable[Failure]) -> set[str]:
    return {failure.path for failure in failures}


_DEFAULT_NAMING = NameRule(NameMode.PROPOSE)


def _explained(path: str, unknown: frozenset[str]) -> bool:
    """Tell whether a failure at `path` is only due to a value that is not known yet."""
    return any(
        path == hole or path.startswith((f"{hole}.", f"{hole}[")) or hole.startswith(f"{path}.") for hole in unknown
    )


def _choose_backend(
    inputs: Mapping[str, Any], unknown: frozenset[str], old_inputs: Mapping[str, Any], config: ProviderConfig
) -> tuple[str | None, Failure | None]:
    if known := old_inputs.get("backend"):
        return known, None
    source, destination = kind_of(inputs, "source"), kind_of(inputs, "destination")
    if source is None or destination is None:
        return None, None
    candidates = [
        row for row in TABLE.values() if row.automatic and (not config.backends or row.backend in config.backends)
    ]
    fitting = [row.backend for row in candidates if row.find(source, destination)]
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


def _address_failures(stream: Stream, config: ProviderConfig) -> Iterable[Failure]:
    """Yield a failure for a place without an address, before any engine is asked."""
    at = StreamId.of(stream)
    backend = REGISTRY[at.backend]
    try:
        config.address(backend, at.region)
    except InvalidConfig as error:
        path = "backend" if at.region == "default" else f"{TABLE[at.backend].route(stream).managed_at}.region"
        yield Failure(path, error.message, error.code, error.fix)


def _declaration_failures(stream: Stream, config: ProviderConfig) -> Iterable[Failure]:
    """Yield refusals by the stream's backend that need no engine, and by its configuration."""
    block = config.block(REGISTRY[StreamId.of(stream).backend])
    for error in (*refusals(stream), *block.refusals(stream)):
        yield Failure(error.property or "", error.message, error.code, error.fix)


def _unsupported(inputs: Mapping[str, Any], unknown: frozenset[str]) -> Iterable[Failure]:
    """Yield failures for what the backend's engine cannot do, and for invalid references."""
    for error in unsupported(inputs, unknown):
        yield Failure(error.property or "", error.message, error.code, error.fix)
