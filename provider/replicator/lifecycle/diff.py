"""The differences between the declared stream and the one in the state. Status is not part of either."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from replicator.backends.shared.declarations import canonical, is_same_place
from replicator.capabilities import route_of
from replicator.model import End, Stream

_ENDS: Mapping[str, End] = {"source.uri": "source", "destination.uri": "destination"}
_SETS = frozenset({"include", "exclude"})


def replacing(stream: Stream) -> frozenset[str]:
    """Return the paths whose change requires a replacement: name, backend, the agent or cluster, and kinds of ends.

    Other changes apply in place, and so do kinds that the route says something of.
    """
    route = route_of(stream)
    kinds = {path for path in ("source.kind", "destination.kind") if route is not None and path not in route.changes}
    return frozenset({"name", "backend", f"{route.managed_at if route else 'source'}.region", *kinds})


class Kind(Enum):
    """The kind of a difference."""

    ADD = "add"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs.

    :param path: `source.uri`, `include[0]` (the index in the new list; in the old one for a deletion).
    :param replaces: the change requires a replacement.
    :param output: the path is that of an output.
    :param access: the path is that of a URI that names the same place as before, with another way of access.
    """

    path: str
    kind: Kind
    replaces: bool = False
    output: bool = False
    access: bool = False

    @property
    def root(self) -> str:
        """Return the resource's property that contains the path."""
        return _root(self.path)

    @property
    def property(self) -> str:
        """Return the path without an index or a quoted key."""
        return self.path.partition("[")[0]


def diff(old: Stream, new: Mapping[str, Any] | Stream, unknown: Iterable[str] = ()) -> list[Change]:
    """Return every change from `old` to `new`, in the order of the properties.

    Both sides are in canonical form with their defaults filled in. So an explicit default, or another spelling of the
    same place, is not a change. Unknown paths are changes.
    """
    before = _comparable(old)
    holes, replaced = frozenset(unknown), replacing(old)
    after = _comparable(new if isinstance(new, Stream) else _normal(new, old, holes))
    found = walk(before, after, replaced=replaced)
    changes = [change for change in found if not {change.path, change.property} & holes]
    if isinstance(new, Stream):
        changes = [_with_access(change, old, new) for change in changes]
    changes += [Change(hole, Kind.UPDATE, hole in replaced) for hole in sorted(holes)]
    return changes


def _with_access(change: Change, old: Stream, new: Stream) -> Change:
    end = _ENDS.get(change.path)
    return replace(change, access=end is not None and is_same_place(old, new, end))


def _root(path: str) -> str:
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _comparable(stream: Stream | Mapping[str, Any]) -> dict[str, Any]:
    wire = canonical(stream).wire() if isinstance(stream, Stream) else dict(stream)
    wire.pop("owner", None)
    return wire


def _normal(known: Mapping[str, Any], old: Stream, unknown: frozenset[str]) -> dict[str, Any]:
    """Return inputs, some of them unknown, in the form of a stream: with defaults, and canonical values.

    The known part of a property is unchanged if it cannot be read without the rest.
    """
    partial = {root for root in map(_root, unknown) if not _is_readable(root, known)}
    whole = {key: value for key, value in known.items() if key not in partial}
    stand_in = {"name": old.name, "source": old.source, "destination": old.destination}
    form = canonical(Stream.model_validate({**stand_in, **whole})).wire()
    return {**form, **{key: known[key] for key in partial if key in known}}


def _is_readable(root: str, known: Mapping[str, Any]) -> bool:
    """Tell whether the known part of a property can be read without the unknown part."""
    value = known.get(root)
    if not isinstance(value, Mapping):
        return False
    return root == "options" or (root in ("source", "destination") and {"kind", "uri"} <= value.keys())


def walk(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "", *, replaced: frozenset[str] = frozenset()
) -> Iterable[Change]:
    """Yield every path that differs between two declarations.

    :param replaced: paths whose change requires a replacement.
    """
    for key in dict.fromkeys([*before, *after]):
        path = f"{prefix}{key}" if not set(key) & set('."[]') else f"{prefix.removesuffix('.')}{_quoted(key)}"
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        replaces = path in replaced
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from walk(old, new, f"{path}.", replaced=replaced)
        elif path in _SETS:
            yield from _set_changes(path, old or [], new or [])
        elif old is None:
            yield Change(path, Kind.ADD, replaces)
        elif new is None:
            yield Change(path, Kind.DELETE, replaces)
        else:
            yield Change(path, Kind.UPDATE, replaces)


def _quoted(key: str) -> str:
    """Return a key with a dot in Pulumi's notation of paths: `options["max.batch"]`."""
    escaped = key.replace('"', '\\"')
    return f'["{escaped}"]'


def _set_changes(path: str, old: list[Any], new: list[Any]) -> Iterable[Change]:
    yield from (Change(f"{path}[{i}]", Kind.DELETE) for i, item in enumerate(old) if item not in new)
    yield from (Change(f"{path}[{i}]", Kind.ADD) for i, item in enumerate(new) if item not in old)
