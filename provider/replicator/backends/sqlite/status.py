"""The status of a stream, from litestream's present answer and the agent's observations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from replicator.backends.sqlite.daemon_pool import DaemonProcess, ReplicationJob
from replicator.backends.sqlite.health import Health
from replicator.backends.sqlite.litestream import EngineError, EngineTimeout, ListedDatabase, Synced
from replicator.backends.sqlite.positions import Position, batch_time
from replicator.backends.sqlite.record import Phase, StreamRecord
from replicator.backends.sqlite.uploads import Upload
from replicator.model import Checkpoint, StreamState, StreamStatus, format_time

_DEFAULT_INTERVAL = timedelta(seconds=1)
_RESOLUTION = timedelta(seconds=1)
"""The largest error by which a lag may be too low, as in the capability table: the engine checks each second."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The engine's answer about one database; `None` if it did not answer or does not know the database.

    :param upload: the file that is being uploaded, if the last upload is stale.
    :param gets_on: whether that upload makes progress.
    :param taken_until: the time until which all commits are in files that have arrived, according to the engine's
        checks; `None` if no check was seen.
    """

    listed: ListedDatabase | None = None
    synced: Synced | None = None
    error: str | None = None
    upload: Upload | None = None
    gets_on: bool = False
    taken_until: datetime | None = None


async def ask(daemon: DaemonProcess, job: ReplicationJob, listed: ListedDatabase | None, now: datetime) -> Answer:
    """Ask for transactions. This reads the WAL, so that the lag counts everything that is committed."""
    if daemon.copy is not None:
        return Answer(upload=await daemon.upload(job, None), gets_on=True)
    try:
        synced = await daemon.progress(job)
    except EngineTimeout:  # it reads a large transaction from the WAL
        return Answer(listed, gets_on=daemon.moves())
    except EngineError as error:
        return Answer(listed, error=error.text)
    looks, replicated = daemon.looks.get(job.name), synced.replicated_txid
    taken_until = looks.until(replicated) if looks and replicated is not None else None
    age = age_of(listed, now)
    if listed is None or (age is not None and age <= stale_after(job.interval)):
        return Answer(listed, synced, taken_until=taken_until)
    upload = await daemon.upload(job, replicated)
    gets_on = await daemon.gets_on(job, quiet_for=age.total_seconds() if age else 0.0)
    return Answer(listed, synced, upload=upload, gets_on=gets_on, taken_until=taken_until)


def age_of(listed: ListedDatabase | None, now: datetime) -> timedelta | None:
    """Return how long ago the last upload ended; `None` before the first."""
    last = listed.last_sync_at if listed else None
    return None if last is None else now - last.astimezone(UTC)


def stale_after(interval: timedelta | None) -> timedelta:
    """Return the maximum age of a healthy stream's last upload: litestream notes one each interval, even when idle."""
    return 3 * (interval or _DEFAULT_INTERVAL) + timedelta(seconds=5)


async def status_of(
    record: StreamRecord,
    health: Health,
    database: Path,
    answer: Answer | None,
    now: datetime,
    *,
    moving: bool,
    store_away_since: datetime | None = None,
) -> StreamStatus:
    """Combine the sources of a status.

    :param answer: `None` if no process replicates the stream.
    :param store_away_since: since when its store does not answer.
    :param moving: the stream is being created, copied, or attached now.
    """
    txid = answer.synced.txid if answer and answer.synced else None
    replicated = answer.synced.replicated_txid if answer and answer.synced else None
    made, seen, waiting = await asyncio.to_thread(_times, database, replicated, txid)
    state, error = _state(record, health, answer, now, moving)
    if store_away_since is not None and state in (StreamState.RUNNING, StreamState.CATCHING_UP):
        state = StreamState.FAILED
        error = health.stalled or f"its store has not answered since {format_time(store_away_since)}"
    lag_events = txid - replicated if txid is not None and replicated is not None else None
    lag_seconds = None
    if answer and answer.synced and lag_events is not None:
        oldest = now if lag_events == 0 and answer.synced.looked else _oldest(made, waiting, answer.taken_until)
        lag_seconds = round(max((now - oldest).total_seconds(), 0.0), 3) if oldest else None
    if state is StreamState.RUNNING and lag_seconds is None:
        state = StreamState.CATCHING_UP
    reached = record.reached if record.paused else None
    if replicated is not None:
        reached = Checkpoint(lsn=str(Position(record.generation, replicated)), wall=made)
    upload = answer.upload if answer else None
    return StreamStatus(
        name=record.name,
        state=state,
        last_event=seen,
        last_checkpoint=reached,
        lag_seconds=lag_seconds,
        lag_events=lag_events,
        events_replicated=_count(reached, record.name),
        errors_last_hour=health.errors_last_hour,
        last_error=error or health.last_error,
        uploaded_bytes=upload.arrived if upload and upload.in_parts else None,
        upload_total_bytes=upload.total if upload and upload.in_parts else None,
    )


def _count(reached: Checkpoint | None, name: str) -> int | None:
    """Return the number of transactions at the destination, in the current generation."""
    return Position.parse(reached.lsn, name).txid if reached is not None and reached.lsn is not None else None


def _times(
    database: Path, replicated: int | None, txid: int | None
) -> tuple[datetime | None, datetime | None, datetime | None]:
    """Return the times of the replicated, the newest, and the oldest waiting transaction."""
    made = batch_time(database, replicated) if replicated else None
    seen = batch_time(database, txid) if txid else None
    behind = replicated is not None and txid is not None and txid > replicated
    return made, seen, batch_time(database, replicated + 1) if behind and replicated is not None else None


def _oldest(made: datetime | None, waiting: datetime | None, taken_until: datetime | None) -> datetime | None:
    """Return a lower bound, within the resolution, for the time of the oldest waiting change; `None` if unknown.

    A file holds what was written since the check before it. If that check was not seen, it was the one that wrote the
    last file at the destination, or a later one.

    :param made: when the last file at the destination was written.
    :param waiting: when the first file after it was written.
    """
    known = [time for time in (taken_until and taken_until + _RESOLUTION, made) if time is not None]
    return min(filter(None, [max(known), waiting])) if known else None


def _state(
    record: StreamRecord, health: Health, answer: Answer | None, now: datetime, moving: bool
) -> tuple[StreamState, str | None]:
    if record.phase is not Phase.ACTIVE:
        return _half_way(record, health, moving)
    if record.copy_due and moving and not health.error:
        return StreamState.SNAPSHOT, None
    if record.copy_due:
        return StreamState.FAILED, health.error or "its snapshot is not made yet"
    if record.paused:
        return StreamState.PAUSED, None
    if health.error:
        return StreamState.FAILED, health.error
    if answer is None or moving:
        return StreamState.SNAPSHOT, None  # a takeover may begin with a full copy
    if answer.listed is None and answer.gets_on:
        return StreamState.SNAPSHOT, None
    if answer.listed is None:
        return StreamState.FAILED, "its litestream process does not answer, or has lost it"
    if answer.error:
        return StreamState.FAILED, answer.error
    age = age_of(answer.listed, now)
    if age is None:
        return (StreamState.FAILED, health.stalled) if health.stalled else (StreamState.SNAPSHOT, None)
    if age > stale_after(record.stream.checkpoint_interval):
        if answer.gets_on and not health.stalled:
            return StreamState.CATCHING_UP, None
        silent = f"nothing was uploaded for {age.total_seconds():.0f} s, and litestream does not say why"
        return StreamState.FAILED, health.stalled or silent
    late = 3 * (record.stream.checkpoint_interval or _DEFAULT_INTERVAL)
    behind = answer.synced is None or answer.synced.txid != answer.synced.replicated_txid
    return (StreamState.CATCHING_UP if behind and age > late else StreamState.RUNNING), None


def _half_way(record: StreamRecord, health: Health, moving: bool) -> tuple[StreamState, str | None]:
    if record.phase is Phase.CREATING and moving and not health.error:
        return StreamState.SNAPSHOT, None
    return (
        StreamState.FAILED,
        health.error or f"it is partially {'created' if record.phase is Phase.CREATING else 'removed'}",
    )
