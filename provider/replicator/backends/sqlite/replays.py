"""Replay of a SQLite replica: a copy of the database at an earlier point, or a re-seed of the destination.

litestream ships pages, so there are no events to emit again. A copy is exact at every retained transaction; a re-seed
ignores the position and writes the current database.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from replicator.backends.shared.replay_keys import refuse_reuse, unknown_key
from replicator.backends.sqlite import copies, litestream_errors
from replicator.backends.sqlite.grants import Gate
from replicator.backends.sqlite.litestream import CommandLine, EngineError, LtxFile
from replicator.backends.sqlite.locations import source_path
from replicator.backends.sqlite.positions import Position, batch_time
from replicator.backends.sqlite.record import StreamRecord
from replicator.backends.sqlite.replica import ReplicaLocation
from replicator.capabilities import LITESTREAM as CAPABILITIES
from replicator.capabilities import No
from replicator.errors import (
    InvalidStream,
    ReplayNotRetained,
    ReplayRefused,
    Unsupported,
)
from replicator.model import Checkpoint, Mode, format_time
from replicator.replicator import ReplayMethod, ReplayPlan, ReplayProgress, ReplayState

_CLOCKS_DIFFER = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a replay.

    :param base: the location of the first generation.
    :param check_target: returns the path of a copy for a stream and a target; raises where it may not be written.
    :param gate: the check of the policy.
    """

    command: CommandLine
    base: ReplicaLocation
    check_target: Callable[[str, str | None], Path]
    gate: Gate

    def url(self, generation: int) -> str:
        """Return the engine's URL of one generation."""
        place = self.base if generation == 1 else self.base.child(f"r{generation}")
        return place.url_for_engine()


@dataclass(frozen=True, slots=True)
class _Kept:
    """The restorable points of one generation.

    :param database: the database that has the newest files beside it, for the current generation.
    """

    generation: int
    files: list[LtxFile]
    database: Path | None = None

    @property
    def points(self) -> list[LtxFile]:
        """Return one file for each restorable point, oldest first."""
        first = min((file.max_txid for file in self.files if file.min_txid == 1), default=None)
        ends = {file.max_txid: file for file in self.files if first is not None and file.max_txid >= first}
        return [ends[txid] for txid in sorted(ends)]

    def checkpoint(self, file: LtxFile) -> Checkpoint:
        """Return a point with its time: in milliseconds if known here, else in seconds."""
        here = batch_time(self.database, file.max_txid) if self.database else None
        return Checkpoint(lsn=str(Position(self.generation, file.max_txid)), wall=here or file.created)


# --- Plans -----------------------------------------------------------------------------------------------------------


async def plan(
    record: StreamRecord, sources: Sources, start: Checkpoint, *, method: ReplayMethod, target: str | None
) -> ReplayPlan:
    """Resolve a replay against what is retained."""
    if method is ReplayMethod.AUTO:
        if target is None:
            raise InvalidStream(
                "says where the copy goes; litestream cannot emit events again",
                stream=record.name,
                property="target",
                fix="give a path on the agent's host, or the method reseed to fill the destination anew",
            )
        method = ReplayMethod.COPY
    cell = CAPABILITIES.route(record.stream).replay[method]
    if isinstance(cell, No):
        raise Unsupported(cell.reason, stream=record.name, property="method")
    if method is ReplayMethod.RESEED:
        refuse_paused(record)
        return _plan_reseed(record, start, target)
    path = await asyncio.to_thread(sources.check_target, record.name, target)
    kept, txid, size = await _resolve(record, sources, start)
    points = kept.points
    at = next(file for file in points if file.max_txid == txid)
    return ReplayPlan(
        stream=record.name,
        method=method,
        start=start,
        resolved=kept.checkpoint(at),
        target=str(path),
        bytes=size,
        earliest=kept.checkpoint(points[0]),
        latest=kept.checkpoint(points[-1]),
        effects=(
            f"the database as of transaction {Position(kept.generation, txid)} is written to {path} on its host",
            "the stream and its destination stay as they are",
        ),
    )


def _plan_reseed(record: StreamRecord, start: Checkpoint, target: str | None) -> ReplayPlan:
    if target is not None:
        raise InvalidStream("a reseed writes to the stream's destination", stream=record.name, property="target")
    return ReplayPlan(
        stream=record.name,
        method=ReplayMethod.RESEED,
        start=start,
        resolved=Checkpoint(lsn=_next_mark(record)),
        duplicates=True,
        effects=(
            f"the whole database is written again under the new prefix r{record.generation + 1}",
            "the position is ignored: the copy is the database as it is then",
            "the old prefix stays, grows no more, and can be restored by its own positions",
        ),
    )


def refuse_paused(record: StreamRecord) -> None:
    """Refuse a re-seed of a paused stream: it is the first upload under a new prefix, and a pause stops uploads."""
    if record.paused and record.stream.mode is not Mode.SNAPSHOT:
        raise ReplayRefused("it is paused", stream=record.name, fix="resume it first")


async def _resolve(record: StreamRecord, sources: Sources, start: Checkpoint) -> tuple[_Kept, int, int]:
    """Return the generation, the last transaction, and the bytes to read of a restore to `start`."""
    if start.lsn is not None:
        position = Position.parse(start.lsn, record.name)
        if position.generation > record.generation:
            raise _not_retained(record, start, _Kept(position.generation, []))
        kept = await _kept(record, sources, position.generation)
        return await _ask(record, sources, start, kept, txid=position.txid)
    assert start.wall is not None
    if start.wall > datetime.now(UTC) + _CLOCKS_DIFFER:
        raise ReplayRefused("the time is in the future", stream=record.name, property="start.wall")
    kept = await _kept(record, sources, record.generation)
    while True:
        try:
            # The engine restores what is older than a time; a checkpoint's own time has to include it.
            return await _ask(record, sources, start, kept, timestamp=start.wall + timedelta(milliseconds=1))
        except ReplayNotRetained:
            # The engine refuses a time after the last change, though the database has not changed since.
            if kept.points and start.wall >= kept.points[-1].created:
                return await _ask(record, sources, start, kept, txid=kept.points[-1].max_txid)
            if kept.generation == 1:
                raise
        kept = await _kept(record, sources, kept.generation - 1)


async def _kept(record: StreamRecord, sources: Sources, generation: int) -> _Kept:
    try:
        files = await sources.command.ltx(sources.url(generation))
    except EngineError as error:
        raise litestream_errors.meaning(error.text, record.name) from error
    return _Kept(generation, files, source_path(record.stream) if generation == record.generation else None)


async def _ask(
    record: StreamRecord, sources: Sources, start: Checkpoint, kept: _Kept, **point: Any
) -> tuple[_Kept, int, int]:
    try:
        found = await sources.command.plan_restore(sources.url(kept.generation), **point)
    except EngineError as error:
        refused = "no matching backup" in error.text or "timestamp does not exist" in error.text
        raise (
            _not_retained(record, start, kept) if refused else litestream_errors.meaning(error.text, record.name)
        ) from error
    if not any(file.max_txid == found.max_txid for file in kept.points):
        raise _not_retained(record, start, kept)
    return kept, found.max_txid, sum(file.size for file in found.files)


def _not_retained(record: StreamRecord, start: Checkpoint, kept: _Kept) -> ReplayNotRetained:
    points = kept.points
    wanted = start.lsn or (start.wall and f"{start.wall:%Y-%m-%dT%H:%M:%SZ}")
    if not points:
        return ReplayNotRetained(f"{wanted} is not retained, and neither is anything else there", stream=record.name)
    if start.lsn is not None:
        txid = Position.parse(start.lsn, record.name).txid
        before = [file for file in points if file.max_txid < txid][-1:]
        after = [file for file in points if file.max_txid > txid][:1]
    else:
        before, after = [], points[:1]
    near = " and ".join(f"{at.lsn} ({at.wall and format_time(at.wall)})" for at in map(kept.checkpoint, before + after))
    return ReplayNotRetained(
        f"{wanted} is not retained; the nearest points are {near}",
        stream=record.name,
        property="start",
        fix="start at one of them; agent run --replay-window says how long each transaction is kept",
    )


# --- Records ---------------------------------------------------------------------------------------------------------


def find(record: StreamRecord, key: str) -> ReplayProgress:
    """Return the replay with this key; raise `ReplayNotFound` if it does not exist."""
    try:
        return record.replays[key]
    except KeyError:
        raise unknown_key(key, record.name) from None


async def as_found(replay: ReplayProgress) -> ReplayProgress:
    """Return a recorded replay; if its copy was removed since, the message says so."""
    if replay.state is not ReplayState.DONE or replay.target is None:
        return replay
    if await asyncio.to_thread(os.path.lexists, replay.target):
        return replay
    gone = f"the copy was written to {replay.target}, and was removed since; a replay with another key writes it again"
    return replay.model_copy(update={"message": gone})


def known(
    record: StreamRecord, start: Checkpoint, key: str, method: ReplayMethod, target: str | None
) -> ReplayProgress | None:
    """Return the existing replay under this key, or `None`; raise `ReplayKeyReused` if it is a different one.

    :param target: as `targets.target_path` gives it.
    """
    replay = record.replays.get(key)
    if replay is not None:
        refuse_reuse(replay, start, method, target)
    return replay


def begun(record: StreamRecord, plan: ReplayPlan, key: str) -> StreamRecord:
    """Return the record with a replay that is about to run."""
    replay = ReplayProgress(
        key=key,
        stream=record.name,
        state=ReplayState.RUNNING,
        method=plan.method,
        start=plan.start,
        # A re-seed's position is set together with the new generation, which shows after a crash that it has begun.
        resolved=None if plan.method is ReplayMethod.RESEED else plan.resolved,
        target=plan.target,
        bytes=plan.bytes,
        started_at=datetime.now(UTC),
    )
    return record.model_copy(update={"replays": {**record.replays, key: replay}})


def finished(record: StreamRecord, key: str, changes: dict[str, Any]) -> StreamRecord:
    """Return the record with a replay that has ended."""
    ended = ReplayProgress.model_validate({**record.replays[key].wire(), "finishedAt": datetime.now(UTC), **changes})
    return record.model_copy(update={"replays": {**record.replays, key: ended}})


def _next_mark(record: StreamRecord) -> str:
    return str(Position(record.generation + 1, 1))


def reseed_begun(record: StreamRecord, key: str) -> bool:
    """Tell whether the new generation of this re-seed is recorded."""
    resolved = record.replays[key].resolved
    return resolved is not None and resolved.lsn == str(Position(record.generation, 1))


def new_generation(record: StreamRecord) -> StreamRecord:
    """Return the record with a new prefix. Local state is reset, so that the first upload is a snapshot."""
    return record.model_copy(
        update={"generation": record.generation + 1, "reset_due": True, "reseed_due": False, "reached": None}
    )


def next_generation(record: StreamRecord, key: str) -> StreamRecord:
    """Return the record with the new generation of a re-seed, and its first position."""
    resolved = Checkpoint(lsn=_next_mark(record))
    replay = record.replays[key].model_copy(update={"resolved": resolved})
    return new_generation(record).model_copy(update={"replays": {**record.replays, key: replay}})


# --- Copies ----------------------------------------------------------------------------------------------------------


async def copy(record: StreamRecord, sources: Sources, replay: ReplayProgress) -> dict[str, Any]:
    """Write the copy atomically. A run after a crash finds the work of the earlier one."""
    assert replay.resolved is not None and replay.resolved.lsn is not None and replay.target is not None
    position = Position.parse(replay.resolved.lsn, record.name)
    target, admit = Path(replay.target), partial(sources.gate.check_copy, record.name)
    with copies.work_folder(target, replay.key, record.name, admit) as work:
        if not await asyncio.to_thread(work.is_published):
            try:
                await sources.command.restore(
                    sources.url(position.generation), Path(copies.NAME), txid=position.txid, folder=work.path
                )
            except EngineError as error:
                raise litestream_errors.meaning(error.text, record.name) from error
            await asyncio.to_thread(work.publish, source_path(record.stream))
    return {"state": "done", "message": f"the database as of {position} is at {target}"}


async def tidy(replay: ReplayProgress) -> None:
    """Remove the folder in which a copy was written. The replay's end must be on record."""
    if replay.target is not None:
        await asyncio.to_thread(copies.tidy, Path(replay.target), replay.key)
