"""The check of a request's texts for control characters, which can end a path or a line unseen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from replicator.errors import InvalidStream

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_IN_PROSE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PROSE = ("stream", "filter")
"""The property whose text may have several lines."""


def refuse_controls(values: Mapping[str, Any], stream: str | None = None) -> None:
    """Raise `InvalidStream` if a text contains a control character; the error does not repeat it.

    :param values: arguments of a call as plain JSON values.
    """
    for path in _held(values, ()):
        raise InvalidStream(
            "holds a control character, such as a zero byte or a line break",
            stream=stream,
            property=".".join(path[1:] if path[0] == "stream" and path[1:] else path),
            fix="remove it",
        )


def _held(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, str):
        if (_IN_PROSE if path == _PROSE else _CONTROL).search(value):
            yield path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if _CONTROL.search(key):
                yield path
            else:
                yield from _held(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from _held(item, path)
