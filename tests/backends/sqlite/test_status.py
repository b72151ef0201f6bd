"""Status from what is known: null where nothing is, and the state of the worst part."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from replicator.backends.sqlite.health import Health
from replicator.backends.sqlite.litestream import ListedDatabase, Synced
from replicator.backends.sqlite.positions import transaction_file
from replicator.backends.sqlite.record import Phase, StreamRecord
from replicator.backends.sqlite.status import Answer, stale_after, status_of
from replicator.backends.sqlite.uploads import Upload
from replicator.model import Checkpoint, StreamState, StreamStatus

from tests.backends.sqlite.agents import declare

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DATABASE = Path("/srv/nowhere/orders.db")


def record(*, phase: Phase = Phase.ACTIVE, interval: str | None = None, **changes: object) -> StreamRecord:
    given = {"checkpointInterval": interval} if interval else {}
    stream = declare("orders", DATABASE, "s3://bucket/orders", **given)
    return StreamRecord(stream=stream, phase=phase).model_copy(update=changes)


def answer(age: float | None, txid: int | None = 7, replicated: int | None = 7) -> Answer:
    last = None if age is None else NOW - timedelta(seconds=age)
    return Answer(ListedDatabase(DATABASE, "replicating", last), Synced(False, txid, replicated), None)


async def status(
    given: StreamRecord, heard: Answer | None, health: Health | None = None, *, moving: bool = False
) -> StreamStatus:
    return await status_of(given, health or Health("orders"), DATABASE, heard, NOW, moving=moving)


async def test_what_is_unknown_is_null() -> None:
    for heard in (None, Answer(None, None, "no answer"), answer(1, None, None)):
        found = await status(record(), heard)
        assert (found.lag_events, found.lag_seconds, found.events_replicated) == (None, None, None)
        assert (found.last_checkpoint, found.last_event, found.bytes_replicated) == (None, None, None)
    before_the_first_upload = await status(record(), answer(None, 3, None))
    assert (before_the_first_upload.lag_events, before_the_first_upload.lag_seconds) == (None, None)


async def test_numbers_where_they_are_known() -> None:
    level = await status(record(), answer(1))
    assert (level.state, level.lag_events, level.lag_seconds, level.events_replicated) == ("running", 0, 0.0, 7)
    assert level.last_checkpoint == Checkpoint(lsn=f"{7:016x}")
    behind = await status(record(generation=3), answer(1, 9, 7))
    assert (behind.state, behind.lag_events, behind.lag_seconds) == ("catching_up", 2, None)
    assert behind.last_checkpoint == Checkpoint(lsn=f"r3/{7:016x}")
    assert (await status(record(), answer(4, 9, 7))).state is StreamState.CATCHING_UP


@pytest.mark.parametrize(
    ("looked", "lag"),
    [(-2.5, 2.0), (-3.0, 2.0), (-3.1, 2.1), (-60.0, 59.0), (-120.0, 90.0), (None, 90.0)],
    ids=["a look each second", "just so", "a late look", "no look for a while", "not since the file before", "unseen"],
)
async def test_a_file_may_hold_all_that_was_written_since_the_look_before(
    tmp_path: Path, looked: float | None, lag: float
) -> None:
    database = tmp_path / "orders.db"
    until = None if looked is None else NOW + timedelta(seconds=looked)
    heard = replace(answer(1, 9, 7), taken_until=until)
    make_transaction(database, 8, age=2)
    unknown = await status_of(record(), Health("orders"), database, heard, NOW, moving=False)
    if looked is None:
        assert (unknown.state, unknown.lag_events, unknown.lag_seconds) == ("catching_up", 2, None)
    make_transaction(database, 7, age=90)
    found = await status_of(record(), Health("orders"), database, heard, NOW, moving=False)
    assert (found.state, found.lag_events, found.lag_seconds) == ("running", 2, lag)


def make_transaction(database: Path, txid: int, *, age: float) -> None:
    """The part of a transaction file's header that holds its time."""
    file = transaction_file(database, txid)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(32) + int((NOW.timestamp() - age) * 1000).to_bytes(8, "big"))


@pytest.mark.parametrize(("interval", "limit"), [(None, 8.0), ("10s", 35.0), ("250ms", 5.75)])
async def test_silence_is_a_failure(interval: str | None, limit: float) -> None:
    given = record(interval=interval)
    assert stale_after(given.stream.checkpoint_interval) == timedelta(seconds=limit)
    assert (await status(given, answer(limit - 0.1))).state is StreamState.RUNNING
    stale = await status(given, answer(limit + 0.1))
    assert stale.state is StreamState.FAILED
    assert "litestream does not say why" in str(stale.last_error)
    health = Health("orders")
    health.stalls("the store does not answer")
    assert (await status(given, answer(limit + 0.1), health)).last_error == "the store does not answer"


LATE = answer(60, 7, 6).listed
FIRST = answer(None, 1, None).listed
LARGE = Upload(10_000_000, 60_000_000)


@pytest.mark.parametrize(
    ("heard", "state", "upload"),
    [
        (
            Answer(LATE, Synced(False, 7, 6), None, LARGE, gets_on=True),
            StreamState.CATCHING_UP,
            (10_000_000, 60_000_000),
        ),
        (Answer(LATE, Synced(False, 7, 6), None, LARGE), StreamState.FAILED, (10_000_000, 60_000_000)),
        (Answer(LATE, Synced(False, 7, 6), None, Upload(0, 900), gets_on=True), StreamState.CATCHING_UP, (None, None)),
        (
            Answer(FIRST, Synced(False, 1, None), None, LARGE, gets_on=True),
            StreamState.SNAPSHOT,
            (10_000_000, 60_000_000),
        ),
        (Answer(None, None, None, LARGE, gets_on=True), StreamState.SNAPSHOT, (10_000_000, 60_000_000)),
        # it takes a large transaction from the WAL, and does not answer
        (Answer(answer(1).listed, None, None), StreamState.CATCHING_UP, (None, None)),
        (Answer(answer(5).listed, None, None), StreamState.CATCHING_UP, (None, None)),
        (Answer(LATE, None, None, gets_on=True), StreamState.CATCHING_UP, (None, None)),
        (Answer(LATE, None, None), StreamState.FAILED, (None, None)),
    ],
)
async def test_an_upload_that_moves_is_no_failure(
    heard: Answer, state: StreamState, upload: tuple[int | None, int | None]
) -> None:
    found = await status(record(), heard)
    assert found.state is state
    assert (found.uploaded_bytes, found.upload_total_bytes) == upload


async def test_a_store_that_is_away_fails_what_seems_to_run() -> None:
    away = {"moving": False, "store_away_since": NOW - timedelta(minutes=2)}
    found = await status_of(record(), Health("orders"), DATABASE, answer(1), NOW, **away)  # type: ignore[arg-type]
    assert (found.state, found.last_error) == (
        StreamState.FAILED,
        "its store has not answered since 2026-01-31T11:58:00.000Z",
    )
    paused = await status_of(record(paused=True), Health("orders"), DATABASE, None, NOW, **away)  # type: ignore[arg-type]
    assert paused.state is StreamState.PAUSED


async def test_the_worst_part_decides() -> None:
    failed = Health("orders")
    failed.failed("it was swapped", by_person=True)
    assert (await status(record(), answer(1), failed)).state is StreamState.FAILED
    assert (await status(record(), Answer(answer(1).listed, None, "locked"))).last_error == "locked"
    assert (await status(record(), Answer(None, None, None))).state is StreamState.FAILED
    assert (await status(record(), None)).state is StreamState.SNAPSHOT
    assert (await status(record(), answer(1), moving=True)).state is StreamState.SNAPSHOT
    assert (await status(record(copy_due=True, paused=True), None)).last_error == "its snapshot is not made yet"
    unfinished = await status(record(phase=Phase.CREATING), None)
    assert (unfinished.state, unfinished.last_error) == (StreamState.FAILED, "it is partially created")
    assert (await status(record(phase=Phase.CREATING), None, moving=True)).state is StreamState.SNAPSHOT
    assert (await status(record(phase=Phase.DELETING), None, moving=True)).last_error == "it is partially removed"


async def test_a_pause_keeps_the_checkpoint_that_was_reached() -> None:
    reached = Checkpoint(lsn=f"r2/{5:016x}", wall=NOW)
    paused = await status(record(paused=True, generation=2, reached=reached), None)
    assert (paused.state, paused.last_checkpoint, paused.events_replicated) == (StreamState.PAUSED, reached, 5)
    assert (paused.lag_events, paused.lag_seconds) == (None, None)
    unknown = await status(record(paused=True), None)
    assert (unknown.last_checkpoint, unknown.events_replicated) == (None, None)


def test_failures_are_counted_and_tried_again_later_and_later() -> None:
    health = Health("orders")
    waits = []
    for _ in range(8):
        health.failed("no")
        waits.append(round(health.retry_at - time.monotonic()))
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert health.errors_last_hour == 8
    health.attached()
    assert (health.error, health.last_error, health.errors_last_hour) == (None, "no", 8)
    for _ in range(3):
        health.failed("its process died", passing=True)
        assert round(health.retry_at - time.monotonic()) == 1
    health.attached()
    health.stalls("away")
    assert health.errors_last_hour == 12
    for _ in range(3):
        health.answers()
    assert (health.stalled, health.error, health.errors_last_hour) == (None, None, 13)
    assert "the store answers, and litestream does not say why" in str(health.last_error)
    health.flows()
    assert health.answered_for() == 0.0
