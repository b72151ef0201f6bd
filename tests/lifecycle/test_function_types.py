"""Answers of the function `replay`: one shape for the plan in a preview and for the record of a run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from replicator.lifecycle.function_types import ReplayArgs, ReplayResult
from replicator.model import Checkpoint
from replicator.replicator import ReplayMethod, ReplayPlan, ReplayProgress, ReplayState

WALL = datetime(2026, 1, 31, 12, tzinfo=UTC)
PLAN = ReplayPlan(
    stream="orders",
    method=ReplayMethod.COPY,
    start=Checkpoint(wall=WALL),
    resolved=Checkpoint(lsn="0000000000000007"),
    target="/var/lib/shop/copy.db",
    bytes=3_000_000_000,
    duplicates=True,
    earliest=Checkpoint(lsn="0000000000000001"),
    effects=("writes /var/lib/shop/copy.db",),
)


def test_a_plan_is_answered_with_its_key_and_without_what_is_unknown() -> None:
    assert ReplayResult.from_plan(PLAN, "k1").wire() == {
        "stream": "orders",
        "key": "k1",
        "state": "planned",
        "method": "copy",
        "start": {"wall": "2026-01-31T12:00:00.000Z"},
        "resolved": {"lsn": "0000000000000007"},
        "target": "/var/lib/shop/copy.db",
        "bytes": 3_000_000_000,
        "effects": ["writes /var/lib/shop/copy.db"],
    }


@pytest.mark.parametrize("state", ReplayState)
def test_a_record_is_answered_as_it_is(state: ReplayState) -> None:
    record = ReplayProgress(
        key="k1",
        stream="orders",
        state=state,
        method=ReplayMethod.LOG_REWIND,
        start=Checkpoint(lsn="3"),
        resolved=Checkpoint(lsn="4"),
        events=0,
        started_at=WALL,
        finished_at=WALL,
        message="7 of 9",
        error="the broker said no",
    )
    assert ReplayResult.from_progress(record).wire() == {
        "stream": "orders",
        "key": "k1",
        "state": state.value,
        "method": "log_rewind",
        "start": {"lsn": "3"},
        "resolved": {"lsn": "4"},
        "events": 0,
        "message": "7 of 9",
        "error": "the broker said no",
    }


def test_arguments_take_their_names_on_the_wire() -> None:
    args = ReplayArgs.model_validate({"stream": "memory/default/a", "start": {"lsn": "3"}, "idempotencyKey": "k1"})
    assert (args.method, args.target, args.idempotency_key) == (ReplayMethod.AUTO, None, "k1")
