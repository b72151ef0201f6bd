"""The engine's side: a memory replicator that tells the ledger each effect, and calls that come to a bad end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from typing import Any

import httpx
from replicator.backends.shared.reservations import Reservations
from replicator.errors import AgentUnreachable
from replicator.model import Owner, Stream
from replicator.remote.app import build_app
from replicator.remote.client import RemoteReplicator

from tests.lifecycle.builders import Clock, Watched
from tests.ownership.ledger import Ledger


class Memory(Watched):
    """Tells the ledger what happened to which stream."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(Clock())
        self._ledger: Ledger | None = ledger

    def record(self, name: str) -> Stream | None:
        return self._records[name].stream if name in self._records else None

    @property
    def records(self) -> dict[str, Stream]:
        return {name: record.stream for name, record in self._records.items()}

    async def upsert_stream(self, stream: Stream) -> None:
        before = self.record(stream.name)
        await super().upsert_stream(stream)
        after = self.record(stream.name)
        if self._ledger and after:
            self._ledger.upserted(before, after)

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        before = self.record(name)
        removed = await super().delete_stream(name, owner=owner)
        if self._ledger and before and self.record(name) is None:
            self._ledger.removed(before)
        return removed

    def lose(self, name: str) -> None:
        """The record is gone, as after a lost disk."""
        self._reservations.drop(self._records.pop(name).stream)
        if self._ledger:
            self._ledger.lost(name)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """What happens inside has not happened."""
        records = {name: replace(record) for name, record in self._records.items()}
        delivered = {uri: set(events) for uri, events in self.delivered.items()}
        ledger, self._ledger = self._ledger, None
        try:
            yield
        finally:
            self._records, self.delivered, self._ledger = records, delivered, ledger
            self._reservations = Reservations()
            for record in records.values():
                self._reservations.keep(record.stream)


class Fault(Enum):
    """How a call ends badly.

    :param before: nothing happened, and the caller knows.
    :param cut: nothing happened, and the caller does not know.
    :param lost: it happened, and the caller does not know.
    :param killed: it happened, and the caller is killed before it can write that down.
    """

    BEFORE = "before"
    CUT = "cut"
    LOST = "lost"
    KILLED = "killed"


class Unreliable:
    """Passes calls on. The next effect but `after` ends as `fault` says, and no other one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.fault: Fault | None = None
        self.after = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def upsert_stream(self, stream: Stream) -> None:
        await self._end(self._inner.upsert_stream, stream)

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        return bool(await self._end(self._inner.delete_stream, name, owner=owner))

    async def _end(self, call: Any, *arguments: Any, **named: Any) -> Any:
        fault, self.after = self.fault, self.after - 1
        if fault is None or self.after >= 0:
            return await call(*arguments, **named)
        self.fault = None
        if fault in (Fault.LOST, Fault.KILLED):
            await call(*arguments, **named)
        error = AgentUnreachable("the connection broke")
        error.unfinished = fault in (Fault.CUT, Fault.LOST)
        raise error


def through_remote(memory: Memory) -> RemoteReplicator:
    """Return a client of an agent in this process."""
    transport = httpx.ASGITransport(build_app({"memory": memory}))
    return RemoteReplicator("memory", "unix:///mem", start_hint="start it", transport=transport)
