"""Refusals by the capability table and the rules of every backend. The plugin checks them in a preview, an agent again.

Other processes than the plugin may write to an agent's socket, so both sides enforce the rules that guard the host.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from replicator import authref
from replicator.backends.shared.declarations import refusals, with_canonical_options
from replicator.capabilities import TABLE, Capabilities, Cell, Feature, No, Route, StartKind
from replicator.errors import InvalidStream, ReplicatorError, Unsupported
from replicator.model import Drain, EndpointKind, OnDelete, Stream

_MODELLED_OPTIONS = {
    "path": "source.uri and destination.uri",
    "url": "destination.uri",
    "uri": "destination.uri",
    "type": "destination.kind",
    "replica": "destination",
    "replicas": "destination",
    "name": "name",
    "sync-interval": "checkpointInterval",
}
_KINDS = frozenset(EndpointKind)
_SECRET_OPTION = re.compile(
    r"(?i)(pass(word|wd|phrase)|pwd|secret|token|(access|api|private)[-_.]?key|credential|\bage\b)"
)


def unsupported(inputs: Mapping[str, Any], unknown: Collection[str] = ()) -> Iterator[ReplicatorError]:
    """Yield refusals of what the stream's engine cannot do, and of what would leave a secret in a record.

    :param inputs: a full or partial declaration as plain values; values that do not fit the model are skipped.
    :param unknown: paths (`source.uri`) of values that are not known yet.
    """
    for error in (*_refused_references(inputs), *_refused_cells(inputs, unknown)):
        error.stream = inputs.get("name")
        yield error


def refused(stream: Stream) -> list[ReplicatorError]:
    """Return the refusals of a full declaration that need no engine."""
    return list(unsupported(stream.wire())) or refusals(stream)


def checked(stream: Stream) -> Stream:
    """Return a full declaration in the form to record; raise the first refusal."""
    for error in refused(stream):
        raise error
    return with_canonical_options(stream).recorded()


def refused_options(options: Mapping[str, Any], row: Capabilities) -> Iterable[ReplicatorError]:
    """Yield refusals of options that a backend does not accept, or not with their value."""
    for key, value in options.items():
        path = f"options.{key}"
        if key in _MODELLED_OPTIONS:
            yield InvalidStream(f"is no option: write {_MODELLED_OPTIONS[key]} of the stream", property=path)
        elif _SECRET_OPTION.search(key):
            yield InvalidStream("looks like a secret, which would stand in the state; use authRef", property=path)
        elif row.options is not None and key not in row.options:
            known = ", ".join(sorted(row.options))
            yield Unsupported(f"is not an option of {row.backend}; it takes {known}", property=path)
        elif row.options is not None and value is not None:
            try:
                row.options[key].read(value)
            except ValueError as error:
                yield InvalidStream(str(error), property=path)


def kind_of(inputs: Mapping[str, Any], end: str) -> str | None:
    """Return the kind of an endpoint; `None` if it has no known kind."""
    endpoint = inputs.get(end)
    kind = endpoint.get("kind") if isinstance(endpoint, Mapping) else None
    return kind if isinstance(kind, str) and kind in _KINDS else None


def _refused_references(inputs: Mapping[str, Any]) -> Iterable[ReplicatorError]:
    for end in ("source", "destination"):
        endpoint = inputs.get(end)
        for key in ("authRef", "adminAuthRef"):
            text = endpoint.get(key) if isinstance(endpoint, Mapping) else None
            if isinstance(text, str):
                try:
                    authref.parse(text)
                except ReplicatorError as error:
                    error.property = f"{end}.{key}"
                    yield error


def _refused_cells(inputs: Mapping[str, Any], unknown: Collection[str]) -> Iterable[ReplicatorError]:
    """Yield everything that the backend's row of the capability table refuses."""
    backend = inputs.get("backend")
    if not isinstance(backend, str):
        return
    row = TABLE.get(backend)
    if row is None:
        yield Unsupported(f"{backend!r} is not in this release; it has {', '.join(TABLE)}", property="backend")
        return
    source, destination = kind_of(inputs, "source"), kind_of(inputs, "destination")
    route = row.find(source, destination) if source and destination else None
    if source and destination and route is None:
        pairs = ", ".join(sorted(f"{a} → {b}" for a, b in row.pairs))
        yield Unsupported(f"{backend} does not move {source} to {destination}; it moves {pairs}", property="backend")
    if route is None and len(row.routes) == 1:
        (route,) = row.routes
    for path, cell in _asked(inputs, route) if route else ():
        if isinstance(cell, No):
            yield Unsupported(cell.reason, property=path)
    options = inputs.get("options")
    if isinstance(options, Mapping) and "options" not in unknown:
        yield from refused_options(options, row)


def _asked(inputs: Mapping[str, Any], route: Route) -> Iterable[tuple[str, Cell]]:
    """Yield the cells of the table that these inputs use, with the property that uses each."""
    modes = {str(mode): cell for mode, cell in route.modes.items()}
    conflicts = {str(conflict): cell for conflict, cell in route.conflicts.items()}
    for path, cells in (("mode", modes), ("conflict", conflicts)):
        if isinstance(word := inputs.get(path), str) and word in cells:
            yield path, cells[word]
    if (start := _start_kind(inputs.get("startFrom"))) is not None:
        yield "startFrom", route.start_from[start]
    for path, feature in (
        ("include", Feature.INCLUDE_EXCLUDE),
        ("exclude", Feature.INCLUDE_EXCLUDE),
        ("filter", Feature.FILTER),
        ("checkpointInterval", Feature.CHECKPOINT_INTERVAL),
        ("purgeDestination", Feature.PURGE_DESTINATION),
        ("bookmarks", Feature.BOOKMARKS),
        ("options", Feature.OPTIONS),
    ):
        if inputs.get(path):
            yield path, route.features[feature]
    if inputs.get("waitFor") == "caught_up":
        yield "waitFor", route.features[Feature.WAIT_CAUGHT_UP]
    if (drain := inputs.get("drainBeforeDelete")) in tuple(Drain):
        yield "drainBeforeDelete", route.features[Feature(f"drainBeforeDelete: {drain}")]
    if inputs.get("onDelete") == OnDelete.KEEP_BOOKMARK:
        yield "onDelete", route.features[Feature.KEEP_BOOKMARK]


def _start_kind(value: Any) -> StartKind | None:
    if isinstance(value, Mapping):
        return StartKind.LSN if value.get("lsn") else StartKind.WALL
    return StartKind(value) if value in ("earliest", "latest") else None
