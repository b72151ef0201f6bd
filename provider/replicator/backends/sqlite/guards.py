"""The invariants of a running stream: one writer per database and destination, and a restorable replica.

Each is checked before a process takes the database over, and again while it runs. A check that the store does not
answer stops nothing; a claim is checked again as soon as the store answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from replicator.backends.sqlite.claims import Claims
from replicator.backends.sqlite.layout import CLAIM
from replicator.backends.sqlite.locations import location_of, source_path
from replicator.backends.sqlite.lock_owners import Holders, still_running
from replicator.backends.sqlite.record import Phase, Store, StreamRecord
from replicator.backends.sqlite.replays import new_generation
from replicator.backends.sqlite.replica import ReplicaError, ReplicaUnreachable, S3Credentials
from replicator.errors import Category, DestinationMissing, ReplicatorError
from replicator.model import Stream

CLAIM_EVERY = 300.0
"""Seconds between two checks of a claim."""

START_EVERY = 60.0
"""Seconds between two checks that a replica can be restored."""

OTHERS_EVERY = 60.0
"""Seconds between two checks of this host's processes."""

STORE_EVERY = 30.0
"""Seconds between two requests to a store, per identity: litestream sends none while there is nothing to upload."""

_STORE_AGAIN = 5.0  # seconds until a request without an answer is repeated; an outage is two in a row
_JUST_NOW = 1.0  # seconds; streams that begin together share one check of the processes
_WITHIN = 5.0  # seconds that a store has to answer before a stream continues without it

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Guards:
    """The guards of one agent's streams. Callers hold the stream's lock.

    :param ours: the folder of the agent's own litestream processes.
    """

    def __init__(
        self, store: Store, identify: Callable[[Stream], Awaitable[S3Credentials | None]], *, ours: Path
    ) -> None:
        self.claims = Claims(store.agent_id, identify)
        self._store = store
        self._identify = identify
        self._holders = Holders(but=ours)
        self._looked: dict[tuple[str, str], float] = {}
        self._unanswered: dict[str, tuple[datetime, int]] = {}

    def store_away_since(self, record: StreamRecord) -> datetime | None:
        """Return since when the stream's store has not answered; `None` if it answers or was not asked."""
        since, times = self._unanswered.get(_store_of(record), (None, 0))
        return since if times > 1 else None

    async def admit(self, record: StreamRecord) -> StreamRecord:
        """Return the record for a takeover of the database, with a new generation if one is due.

        Raise where another process replicates the database, or another agent has claimed the destination.
        """
        try:
            await self.refuse_others(record.stream)
            if record.phase is not Phase.ACTIVE:
                await self._claim(record)
                return record
            starts = await self._seen(self._claimed_and_whole(record), otherwise=None)
        except ReplicatorError as error:
            if record.phase is Phase.ACTIVE and error.category is Category.CONFLICT and not record.reseed_due:
                await self._store.put(record.model_copy(update={"reseed_due": True}))
            raise
        if starts:
            record = record.model_copy(update={"arrived": record.generation})
        if record.reseed_due or _is_lost(record, starts):
            record = new_generation(record)
            await self._store.put(record)
            _log.warning("stream %s: copies the whole database to %s", record.name, location_of(record))
        return record

    async def _claimed_and_whole(self, record: StreamRecord) -> bool | None:
        await self._claim(record)
        return await self._starts(record)

    async def _claim(self, record: StreamRecord) -> None:
        """Take or check the claim. Without an answer, it is due again as soon as the store answers."""
        self._looked["claim", record.name] = time.monotonic() - CLAIM_EVERY + _STORE_AGAIN
        await self.claims.take(record.stream)
        self._looked["claim", record.name] = time.monotonic()

    async def _seen(self, look: Awaitable[T], *, otherwise: T) -> T:
        """Return the result of a request to the store, or `otherwise` if the store does not answer in time."""
        try:
            async with asyncio.timeout(_WITHIN):
                return await look
        except TimeoutError:
            return otherwise
        except ReplicatorError as error:
            if error.category is not Category.UNAVAILABLE:
                raise
            return otherwise

    async def refuse_others(self, stream: Stream, *, max_age: float = _JUST_NOW) -> None:
        """Raise `DestinationInUse` where another litestream than this agent's replicates the database.

        :param max_age: seconds; how old a check of the processes may be.
        """
        if running := await self._holders.of(source_path(stream), max_age=max_age):
            raise still_running(running, stream.name)

    async def look(self, record: StreamRecord) -> None:
        """Check processes, claim and replica where that is due. Raise where the stream must stop."""
        await self.refuse_others(record.stream, max_age=OTHERS_EVERY)
        await self._ask_store(record)
        lost = False
        try:
            if _store_of(record) not in self._unanswered and self._due("claim", record.name, CLAIM_EVERY):
                await self._seen(self._claim(record), otherwise=None)
            if self._due("start", record.name, START_EVERY):
                starts = await self._seen(self._starts(record), otherwise=None)
                lost = _is_lost(record, starts)
                if starts and record.arrived != record.generation:
                    await self._store.put(record.model_copy(update={"arrived": record.generation}))
        except ReplicatorError as error:
            if error.category is not Category.DENIED:  # uploads report that
                raise
        if lost:
            raise DestinationMissing(
                f"its replica at {location_of(record)} was deleted, or the files are with which a restore begins",
                stream=record.name,
                property="destination.uri",
                fix="run pulumi up --refresh: the whole database is copied once more, under a new prefix",
            )

    async def _ask_store(self, record: StreamRecord) -> None:
        store = _store_of(record)
        if not self._due("store", store, _STORE_AGAIN if store in self._unanswered else STORE_EVERY):
            return
        asked_at = datetime.now(UTC)
        try:
            async with asyncio.timeout(_WITHIN):
                await location_of(record).read_object(CLAIM, await self._identify(record.stream))
        except (TimeoutError, ReplicaUnreachable):
            since, times = self._unanswered.get(store, (asked_at, 0))
            self._unanswered[store] = since, times + 1
            return
        except (ReplicaError, ReplicatorError):  # an answer too, or a fault on this side
            pass
        self._unanswered.pop(store, None)

    async def _starts(self, record: StreamRecord) -> bool | None:
        """Tell whether a restore finds a file to begin with; `None` if unknown, or if another replica is due."""
        if record.reset_due:
            return None
        try:
            return await location_of(record).has_start(await self._identify(record.stream))
        except ReplicaError:
            return None

    def _due(self, what: str, name: str, every: float) -> bool:
        now = time.monotonic()
        if now - self._looked.get((what, name), -every) < every:
            return False
        self._looked[what, name] = now
        return True


def _store_of(record: StreamRecord) -> str:
    return f"{location_of(record).store} {record.stream.destination.auth_ref}"


def _is_lost(record: StreamRecord, starts: bool | None) -> bool:
    """Tell whether a restore once found a file to begin with, and no longer does."""
    return starts is False and record.arrived == record.generation
