"""Where a replay from offsets starts, what it says before, and what is refused. Times need brokers: test_replaying."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from replicator.backends.kafka.admin import KafkaAdmin
from replicator.backends.kafka.endpoint import kafka_endpoint
from replicator.backends.kafka.positions import write
from replicator.backends.kafka_connect.mirror.replay_planner import Start, resolve
from replicator.backends.kafka_connect.mirror.source_view import SourceView
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.capabilities import KAFKA_MIRROR, No
from replicator.errors import InvalidStream, ReplayNotRetained, ReplayRefused, ReplicatorError, Unsupported
from replicator.model import Checkpoint
from replicator.replicator import ReplayMethod

from tests.backends.kafka_connect.mirror.builders import at, declare, seen

MARKER = StreamRecord(stream=declare(), topics={"orders": "orders", "users": "users"})
NOBODY = KafkaAdmin(kafka_endpoint(MARKER.stream.source, "source"), {})
"""Never asked: offsets say all."""
SOURCE = seen("orders=10,10;users=6", "orders=2,0;users=0")
STORED = "orders=8,5;users=6"


async def resolved(
    start: str,
    stored: str = STORED,
    source: SourceView = SOURCE,
    *,
    method: ReplayMethod = ReplayMethod.AUTO,
    target: str | None = None,
) -> Start:
    return await resolve(NOBODY, MARKER, source, at(stored), Checkpoint(lsn=start), method=method, target=target)


@pytest.mark.parametrize(
    ("start", "moved", "resolved_at", "events"),
    [
        ("orders=3,5", "orders=3", "orders=3,5;users=6", 5),
        ("orders=3,1", "orders=3,1", "orders=3,1;users=6", 9),
        ("orders=-,1", "orders=-,1", "orders=8,1;users=6", 4),
        ("orders=2,0;users=0", "orders=2,0;users=0", "orders=2,0;users=0", 17),
        ("orders=8,5;users=6", "", "orders=8,5;users=6", 0),
    ],
)
async def test_a_start_is_resolved_with_what_it_appends_again(
    start: str, moved: str, resolved_at: str, events: int
) -> None:
    found = await resolved(start)
    assert found.offsets == at(moved)
    assert found.plan.method is ReplayMethod.LOG_REWIND
    assert found.plan.resolved == Checkpoint(lsn=resolved_at)
    assert (found.plan.events, found.plan.duplicates) == (events, events > 0)
    assert found.plan.earliest == Checkpoint(lsn="orders=2,0;users=0")
    assert found.plan.latest == Checkpoint(lsn=STORED)
    assert found.plan.effects[0].startswith(f"{events} records" if events else "nothing was copied")
    assert write({part: at(STORED)[part] for part in found.offsets}) == write(found.until)


@pytest.mark.parametrize(
    ("start", "stored", "kind", "told", "fix"),
    [
        ("orders=1,5", STORED, ReplayNotRetained, "offset 1 of orders/0 is no longer retained", '"orders=2,5"'),
        ("orders=1,5", STORED, ReplayNotRetained, "the earliest is orders=2,0;users=0", "or later"),
        ("orders=11,5", STORED, ReplayNotRetained, "offset 11 of orders/0 is past the end of the source", "source has"),
        ("users=7", STORED, ReplayNotRetained, "the end is orders=10,10;users=6", "source has"),
        ("orders=9", STORED, ReplayRefused, "offset 9 of orders/0 is not copied yet", f'"{STORED}"'),
        ("orders=9,6", STORED, ReplayRefused, "(and 1 more)", f'"{STORED}"'),
        ("orders=3", "users=6", ReplayRefused, "not copied yet", '"users=6"'),
        (
            "orders=3,3,3",
            STORED,
            ReplayRefused,
            "offset 3 of orders/2: the mirror takes no such partition",
            "orders=10",
        ),
        ("bills=0", STORED, ReplayRefused, "the mirror takes no such partition", "orders=10"),
        ("0/16B3748", STORED, InvalidStream, "is no position of a mirror", "orders=42,8"),
    ],
)
async def test_another_one_is_refused_with_what_would_do(
    start: str, stored: str, kind: type[ReplicatorError], told: str, fix: str
) -> None:
    with pytest.raises(kind) as refused:
        await resolved(start, stored)
    assert told in refused.value.message
    assert fix in str(refused.value.fix)


async def test_methods_and_targets_that_a_mirror_has_not_are_refused() -> None:
    cells = {method: cell for method, cell in KAFKA_MIRROR.routes[0].replay.items() if isinstance(cell, No)}
    assert cells
    for method, cell in cells.items():
        with pytest.raises(Unsupported) as refused:
            await resolved(STORED, method=method)
        assert refused.value.message == cell.reason
    with pytest.raises(Unsupported) as refused:
        await resolved(STORED, target="kafka://x:9092")
    assert refused.value.property == "target"


async def test_a_start_behind_a_gap_says_what_is_lost() -> None:
    found = await resolved("orders=2,5", "orders=0,5;users=6")
    assert found.offsets == at("orders=2")
    assert found.plan.events == 0
    assert found.plan.effects[0] == ("offsets 0 to 1 of orders/0 are lost: the source retains them no longer")
    assert found.until == at("orders=0")


async def test_a_replay_elsewhere_does_not_go_on_behind_a_gap() -> None:
    with pytest.raises(ReplayNotRetained, match=r"without a gap: orders/0: offsets 0 to 1 ") as refused:
        await resolved("users=3", "orders=0,5;users=6")
    assert '--lsn "orders=2;users=3"' in str(refused.value.fix)


MADE_AGAIN = seen("orders=3,4;users=6", ids={"orders": "other"})


@pytest.mark.parametrize(
    ("start", "stored", "moved", "events", "until"),
    [
        ("orders=0,0", "orders=8,5", "orders=0,0", 7, "orders=3,4"),
        ("orders=3,1", "orders=8,5", "orders=3,1", 3, "orders=3,4"),
        ("orders=3,4", "orders=3,4", "", 0, ""),
        ("orders=0", "orders=8", "orders=0", 3, "orders=3"),
    ],
)
async def test_a_topic_that_was_made_again_goes_on_where_one_says(
    start: str, stored: str, moved: str, events: int, until: str
) -> None:
    found = await resolved(start, f"{stored};users=6", MADE_AGAIN)
    assert (found.offsets, found.until) == (at(moved), at(until))
    assert found.plan.events == events
    assert found.topics["orders"] == "other"
    assert found.plan.effects[0].startswith("orders was deleted and made again")


@pytest.mark.parametrize(("start", "fix"), [("users=3", "orders=0,0;users=3"), ("orders=0", "orders=0,0")])
async def test_and_not_before_one_has_said_so_of_each_partition(start: str, fix: str) -> None:
    with pytest.raises(ReplayNotRetained, match="orders was deleted and made again") as refused:
        await resolved(start, "orders=8,5;users=6", MADE_AGAIN)
    assert f'--lsn "{fix}"' in str(refused.value.fix)


async def test_ids_are_recorded_of_topics_that_are_named_whole() -> None:
    recorded: Mapping[str, str] = (await resolved("orders=3;users=3")).topics
    assert recorded == {"users": "users"}
