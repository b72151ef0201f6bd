"""Streams that this process changes at the same time: no listing has them yet, and each must see the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from replicator.backends.connect.marker import Marker


class Claims:
    """What streams are about to write, so that of two that write the same the later one is refused.

    :param keep: seconds for which a listing may be older than the end of a change.
    """

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._held: dict[str, tuple[Marker, float | None]] = {}

    def of_others(self, name: str) -> list[Marker]:
        """What all but one stream claim now."""
        now = time.monotonic()
        self._held = {key: held for key, held in self._held.items() if held[1] is None or held[1] > now}
        return [marker for key, (marker, _) in self._held.items() if key != name]

    @contextmanager
    def claim(self, marker: Marker) -> Iterator[list[Marker]]:
        """Hold a claim inside the block, and for a while after it unless it fails; gives the other ones of before."""
        name = marker.stream.name
        before = self.of_others(name)
        self._held[name] = (marker, None)
        try:
            yield before
        except BaseException:
            del self._held[name]
            raise
        self._held[name] = (marker, time.monotonic() + self._keep)

    def drop(self, name: str) -> None:
        """The stream is removed."""
        self._held.pop(name, None)
