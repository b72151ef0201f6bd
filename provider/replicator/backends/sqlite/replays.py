"""Replay of a SQLite replica: a copy of the database at an earlier point, or a re-seed of the destination.

litestream ships pages, so there are no events to emit again. A copy is exact at every retained transaction; a re-seed
ignores the position and writes the current database.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from replicator.backends.shared.replay_keys import refuse_reuse, unknown_key
from replicator.backends.sqlite import copies, litestream_errors
from replicator.backends.sqlite.grants import Gate
from replicator.backends.sqlite.history import History
from replicator.backends.sqlite.litestream import CommandLine, LtxFile
from replicator.backends.sqlite.locations import parse_location, source_path
from replicator.backends.sqlite.positions import Position, batch_time
from replicator.backends.sqlite.record import StreamRecord
from replicator.capabilities import LITESTREAM as CAPABILITIES
from replicator.capabilities import No
from replicator.errors import (
    InvalidStream,
    ReplayRefused,
    Unsupported,
)
from replicator.model import Checkpoint, Mode
from replicator.replicator import ReplayMethod, ReplayPlan, ReplayProgress, ReplayState


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of a replay.

    :param check_target: returns the path of a copy for a stream and a target; raises where it may not be written.
    :param gate: the check of the policy.
    """

    history: History
    check_target: Callable[[str, str | None], Path]
    gate: Gate


def history_of(record: StreamRecord, command: CommandLine) -> History:
    """Return what the destination of a stream retains. Times are exact while their files are kept at the database."""

    async def time_of(generation: int, file: LtxFile) -> datetime | None:
        return batch_time(source_path(record.stream), file.max_txid) if generation == record.generation else None

    return History(
        command,
        parse_location(record.stream),
        range(1, record.generation + 1),
        time_of=time_of,
        meaning=partial(litestream_errors.meaning, stream=record.name),
        stream=record.name,
    )


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
                fix="give a path on the agent's host, or the method reseed to fill the destination again",
            )
        method = ReplayMethod.COPY
    cell = CAPABILITIES.route(record.stream).replay[method]
    if isinstance(cell, No):
        raise Unsupported(cell.reason, stream=record.name, property="method")
    if method is ReplayMethod.RESEED:
        refuse_paused(record)
        return _plan_reseed(record, start, target)
    path = await asyncio.to_thread(sources.check_target, record.name, target)
    found = await sources.history.resolve(start)
    points = await sources.history.points(found.position.generation)
    return ReplayPlan(
        stream=record.name,
        method=method,
        start=start,
        resolved=await sources.history.checkpoint(found.position),
        target=str(path),
        bytes=found.size,
        earliest=await sources.history.checkpoint(points[0]),
        latest=await sources.history.checkpoint(points[-1]),
        effects=(
            f"the database as of transaction {found.position} is written to {path} on its host",
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
            await sources.history.write(position, work)
            await asyncio.to_thread(work.publish, source_path(record.stream))
    return {"state": "done", "message": f"the database as of {position} is at {target}"}


async def tidy(replay: ReplayProgress) -> None:
    """Remove the folder in which a copy was written. The replay's end must be on record."""
    if replay.target is not None:
        await asyncio.to_thread(copies.tidy, Path(replay.target), replay.key)
