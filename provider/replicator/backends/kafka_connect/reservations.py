"""Streams that this process changes or previews: no listing has them yet, and each one must know the others.

A program may have them on several Connect clusters, each with its own driver.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from replicator.backends.kafka_connect.record import StreamRecord
from replicator.model import Owner


class PendingChanges:
    """Claims of streams on what they are about to write: of two that write the same topic, the later one is refused.

    :param keep: seconds for which a listing of the same Connect cluster may be older than the end of a change.
    :param keep_elsewhere: the same for a listing of another cluster.
    """

    def __init__(self, keep: float, keep_elsewhere: float) -> None:
        self._keep = keep
        self._keep_elsewhere = keep_elsewhere
        self._held: dict[tuple[str, str], tuple[StreamRecord, float | None]] = {}
        self._removed: set[str] = set()

    def of_others(self, at: str, name: str) -> list[StreamRecord]:
        """Return the current claims of all streams but one.

        :param at: the address of its Connect cluster.
        """
        now = time.monotonic()
        return [
            record
            for key, (record, ended) in self._held.items()
            if key != (at, name)
            and (ended is None or now - ended < (self._keep if key[0] == at else self._keep_elsewhere))
        ]

    @contextmanager
    def claim(self, at: str, record: StreamRecord) -> Iterator[list[StreamRecord]]:
        """Hold a claim inside the block, and for a while after it unless it fails; yield the other claims before it."""
        key = (at, record.stream.name)
        before = self.of_others(*key)
        if record.stream.owner and record.stream.owner.token:
            self._removed.discard(record.stream.owner.token)
        self._held[key] = (record, None)
        try:
            yield before
        except BaseException:
            self._held.pop(key, None)
            raise
        self._held[key] = (record, time.monotonic())

    def drop(self, at: str, name: str, token: str | None) -> None:
        """Note that a stream was removed.

        :param token: its owner's token, which identifies the stream in older listings.
        """
        self._held.pop((at, name), None)
        if token is not None:
            self._removed.add(token)

    def is_removed(self, owner: Owner | None) -> bool:
        """Tell whether a listed stream was removed after the listing.

        :param owner: the owner in its record.
        """
        return owner is not None and owner.token in self._removed
