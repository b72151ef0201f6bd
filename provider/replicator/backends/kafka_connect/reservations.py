"""Streams that this process changes or previews: no listing has them yet, and each must see the others.

A program may have them on several Connect clusters, each with a driver of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from replicator.backends.kafka_connect.record import StreamRecord
from replicator.model import Owner


class PendingChanges:
    """What streams are about to write, so that of two that write the same the later one is refused.

    :param keep: seconds for which a listing of the same Connect cluster may be older than the end of a change.
    :param keep_elsewhere: the same for that of another one.
    """

    def __init__(self, keep: float, keep_elsewhere: float) -> None:
        self._keep = keep
        self._keep_elsewhere = keep_elsewhere
        self._held: dict[tuple[str, str], tuple[StreamRecord, float | None]] = {}
        self._removed: set[str] = set()

    def of_others(self, at: str, name: str) -> list[StreamRecord]:
        """Return what all but one stream claim now.

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
        """Hold a claim inside the block, and for a while after it unless it fails; gives the other ones of before."""
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
        """The stream is removed.

        :param token: its owner's, by which older listings are known to be of this one.
        """
        self._held.pop((at, name), None)
        if token is not None:
            self._removed.add(token)

    def is_removed(self, owner: Owner | None) -> bool:
        """Tell whether a stream that a listing has was removed since.

        :param owner: as its record has it.
        """
        return owner is not None and owner.token in self._removed
