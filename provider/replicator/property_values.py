"""Values of a declaration: plain Python data with secrets and unknown values.

A path is a tuple of keys and list positions: `("tables", 0, "filter")`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]


class Unknown:
    """The type of `UNKNOWN`: a value that Pulumi knows only after it has created another resource."""

    __slots__ = ()
    _only: Unknown | None = None

    def __new__(cls) -> Unknown:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        raise TypeError("an unknown value is neither true nor false; compare with `is UNKNOWN`")

    def __reduce__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A value that Pulumi keeps encrypted in state and hides in displays."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(***)"


class PropertyError(ValueError):
    """A property cannot be sent over the wire. `path` says which one, `reason` why; no value is quoted."""

    code = "RPL-PLUGIN-VALUE"

    def __init__(self, reason: str, path: Path = ()) -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def under(self, key: str | int) -> PropertyError:
        """Return the same error for the map or list that holds the value at `key`."""
        return PropertyError(self.reason, (key, *self.path))

    def __str__(self) -> str:
        place = f"{path_text(self.path)}: " if self.path else ""
        return f"{place}{self.reason} [{self.code}]"


def path_text(path: Path) -> str:
    """Return a path in Pulumi's notation: `tables[0].filter`, `labels["a.b"]`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif key and not set(key) & set('."[]'):
            text += f".{key}" if text else key
        else:
            quoted = key.replace('"', '\\"')
            text += f'["{quoted}"]'
    return text


def strip(value: Any) -> Any:
    """Return a copy without any Secret wrapper, for comparison or use."""
    while isinstance(value, Secret):
        value = value.value
    if isinstance(value, dict):
        return {key: strip(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strip(item) for item in value]
    return value


def contains_unknown(value: Any) -> bool:
    """Tell whether any part of the value is not known yet."""
    if isinstance(value, Secret):
        return contains_unknown(value.value)
    if isinstance(value, dict):
        return any(contains_unknown(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(contains_unknown(item) for item in value)
    return value is UNKNOWN


def drop_unknown(value: Any) -> tuple[Any, tuple[Path, ...]]:
    """Return the value without its unknown parts, and their paths in order.

    An unknown value is removed from its map. A list with an unknown element is unknown as a whole, since its positions
    are unknown; an unknown value inside a map in a list is removed only from that map. If nothing is left, the result
    is UNKNOWN, with the empty path.
    """
    paths: list[Path] = []
    return _known(value, (), paths), tuple(paths)


def _known(value: Any, path: Path, paths: list[Path]) -> Any:
    if isinstance(value, Secret):
        inner = _known(value.value, path, paths)
        return inner if inner is UNKNOWN else Secret(inner)
    if isinstance(value, dict):
        parts = {key: _known(item, (*path, key), paths) for key, item in value.items()}
        return {key: part for key, part in parts.items() if part is not UNKNOWN}
    if isinstance(value, list | tuple):
        below: list[Path] = []
        items = [_known(item, (*path, position), below) for position, item in enumerate(value)]
        if all(item is not UNKNOWN for item in items):
            paths.extend(below)
            return items
        value = UNKNOWN
    if value is UNKNOWN:
        paths.append(path)
    return value


def secret_paths(value: Any) -> frozenset[Path]:
    """Return the paths of the outermost secrets; the empty path if the value itself is one."""
    return frozenset(_secret_paths(value, ()))


def _secret_paths(value: Any, path: Path) -> Iterable[Path]:
    if isinstance(value, Secret):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _secret_paths(item, (*path, key))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _secret_paths(item, (*path, position))


def wrap_secrets(value: Any, paths: Iterable[Path]) -> Any:
    """Return a copy with the value at each path as a Secret. Missing paths, and those into a secret, have no effect."""
    below: dict[str | int, list[Path]] = {}
    for path in paths:
        if not path:
            return value if isinstance(value, Secret) else Secret(value)
        below.setdefault(path[0], []).append(path[1:])
    if isinstance(value, dict):
        return {key: wrap_secrets(item, below.get(key, ())) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [wrap_secrets(item, below.get(position, ())) for position, item in enumerate(value)]
    return value
