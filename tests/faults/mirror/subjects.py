"""The operations of the matrix: what was there before, what is asked for, and what must be true at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Set
from dataclasses import dataclass
from typing import Any

from tests.faults.mirror.breaking_proxy import after
from tests.faults.mirror.cell import Cell, MirrorEnv, cell
from tests.waiting import until

Step = Callable[[Cell], Coroutine[Any, Any, None]]
KEY = "once"
PARTS: dict[str, Any] = {"emit.heartbeats.enabled": True, "heartbeats.topic.replication.factor": 1}


@dataclass(frozen=True)
class Subject:
    """One operation.

    :param operate: what Pulumi asks for.
    :param after: what must be true once `again` was asked for.
    :param effects: what the operation does at least, so that a matrix without them does not pass.
    :param again: what is asked for after the operation was cut off; left out, the same in the same words.
    :param at: the only effect at which it is cut off; left out, each.
    """

    before: Step
    operate: Step
    after: Step
    effects: Set[str]
    again: Step | None = None
    at: str | None = None


# --- before ----------------------------------------------------------------------------------------------------------


async def nothing(cell: Cell) -> None:
    """No stream."""


async def running(cell: Cell) -> None:
    """A stream that has copied all."""
    await cell.upsert()
    await cell.learn()
    await cell.caught_up()


async def running_parts(cell: Cell) -> None:
    """A stream of two connectors that has copied all."""
    await make(cell)
    await cell.learn()
    await cell.caught_up()


async def running_late(cell: Cell) -> None:
    """A stream that began at the end."""
    await create_late(cell)
    await cell.learn()
    await cell.caught_up()


async def paused(cell: Cell) -> None:
    """A paused stream, for which records wait."""
    await running(cell)
    await cell.upsert(desiredState="paused")
    await cell.write(4)


# --- operations ------------------------------------------------------------------------------------------------------


async def create(cell: Cell) -> None:
    await cell.upsert()


async def create_parts(cell: Cell) -> None:
    await cell.upsert(startFrom={"lsn": f"{cell.name}=2,1"}, options=PARTS)


async def create_late(cell: Cell) -> None:
    await cell.upsert(mode="cdc")


async def change(cell: Cell) -> None:
    await cell.upsert(options={"refresh.topics.interval.seconds": 5, **PARTS})


async def make(cell: Cell) -> None:
    await cell.upsert(options=PARTS)


async def move(cell: Cell) -> None:
    source = {"kind": "kafka", "uri": f"kafka://{cell.bed.source}", "region": "us-east"}
    await cell.upsert(options=PARTS, source=source)


async def pause(cell: Cell) -> None:
    await cell.upsert(desiredState="paused")


async def resume(cell: Cell) -> None:
    await cell.upsert()


async def replay(cell: Cell) -> None:
    await cell.replay("2,1", KEY)


async def delete(cell: Cell) -> None:
    await cell.delete()


# --- after -----------------------------------------------------------------------------------------------------------


async def copies_once(cell: Cell) -> None:
    """One connector, which has copied each record once."""
    await runs(cell, [""])
    await cell.holds(cell.written)


async def copies_from_start(cell: Cell) -> None:
    """Two connectors, and the records before the start are not at the destination."""
    await runs(cell, ["", ".heartbeat"])
    await cell.holds(cell.written[3:])  # in turn in both partitions: their offsets 2 and 1 are the records 4 and 3


async def copies_new_ones(cell: Cell) -> None:
    """What was there before the stream is not at the destination."""
    await runs(cell, [""])
    await cell.holds([])


async def copies_changed(cell: Cell) -> None:
    """Two connectors, which have the new settings, and each record is there once."""
    found = await runs(cell, ["", ".heartbeat"])
    assert {item["info"]["config"]["refresh.topics.interval.seconds"] for item in found.values()} == {"5"}
    await cell.holds(cell.written)


async def copies_to_both(cell: Cell) -> None:
    """All records are under the new name, and under the old one there are those of before."""
    before = list(cell.written)
    await runs(cell, ["", ".heartbeat"])
    await cell.holds(before, "us-east")
    assert sorted(await cell.copied()) == sorted(before)
    assert set((await cell.copied()).values()) == {1}


async def stays_whole(cell: Cell) -> None:
    """Whatever was begun, the stream copies to the old name as before, and lacks nothing."""
    await runs(cell, ["", ".heartbeat"])
    await cell.misses_nothing()


async def stands_still(cell: Cell) -> None:
    """It is paused; a resume brings what was written meanwhile."""
    found = await cell.connectors()
    assert found[""]["status"]["connector"]["state"] in ("PAUSED", "STOPPED")
    before = await cell.copied()
    await cell.write(4)
    await asyncio.sleep(0.5)
    assert await cell.copied() == before
    await cell.upsert()
    await copies_once(cell)


async def replayed_once(cell: Cell) -> None:
    """What the replay names is there twice, and the key does nothing more."""
    progress = await cell.replay("2,1", KEY)
    assert progress.events == 7
    assert progress.error is None
    await runs(cell, [""])
    await cell.holds([*cell.written, *cell.written[3:10]])
    await cell.caught_up()
    assert (await cell.driver.get_replay(cell.name, KEY)).finished_at is not None


async def gone(cell: Cell) -> None:
    """Nothing is left but the records; a stream of the same name begins anew."""
    assert await cell.connectors() == {}
    await cell.delete()
    cell.token = None
    before = list(cell.written)
    await cell.upsert()
    await runs(cell, [""])
    await cell.holds([*before, *before])


async def begins_anew(cell: Cell) -> None:
    """A delete that was cut off, and then the same stream again: nothing is missing."""
    await runs(cell, ["", ".heartbeat"])
    await cell.misses_nothing()


async def runs(cell: Cell, endings: list[str]) -> dict[str, dict[str, Any]]:
    """The connectors are these, all run, and nothing is half made."""
    found: dict[str, dict[str, Any]] = {}

    async def all_run() -> bool:
        found.clear()
        found.update(await cell.connectors())
        return {item["status"]["connector"]["state"] for item in found.values()} == {"RUNNING"}

    # A rebalance that another stream has caused shows connectors that ran as UNASSIGNED for a moment.
    await until(all_run, f"{cell.name}: all connectors run", told=lambda: found)
    assert sorted(found) == endings
    assert '"making":false' in found[""]["info"]["config"]["replicator.stream"]
    return found


SUBJECTS = {
    "create": Subject(nothing, create, copies_once, {"POST connectors"}),
    "create-parts": Subject(
        nothing, create_parts, copies_from_start, {"POST connectors", "PATCH offsets", "PUT config", "PUT resume"}
    ),
    "create-late": Subject(nothing, create_late, copies_new_ones, {"PATCH offsets"}, at="PATCH offsets"),
    "change": Subject(running, change, copies_changed, {"PUT config", "POST connectors"}),
    "move": Subject(running_parts, move, copies_to_both, {"PUT stop", "DELETE offsets", "PUT config", "PUT resume"}),
    "move-not": Subject(running_parts, move, stays_whole, {"DELETE offsets"}, again=make, at="DELETE offsets"),
    "pause": Subject(running, pause, stands_still, {"PUT config", "PUT pause"}),
    "resume": Subject(paused, resume, copies_once, {"PUT config", "PUT resume"}),
    "replay": Subject(running, replay, replayed_once, {"PUT stop", "PUT config", "PATCH offsets", "PUT resume"}),
    "replay-up": Subject(running, replay, replayed_once, {"PATCH offsets"}, again=create),
    "delete": Subject(running_parts, delete, gone, {"PUT stop", "DELETE offsets", "DELETE connector"}),
    "delete-not": Subject(running_parts, delete, begins_anew, {"DELETE offsets"}, again=make, at="DELETE offsets"),
    "delete-late-not": Subject(
        running_late, delete, copies_new_ones, {"DELETE offsets"}, again=create_late, at="DELETE offsets"
    ),
}


async def run_whole(bed: MirrorEnv, subject: Subject) -> list[str]:
    """Run an operation that nothing cuts off; its effects, in order."""
    async with cell(bed) as made:
        await subject.before(made)
        made.line.disarm()
        await subject.operate(made)
        effects = list(made.line.effects)
        if subject.again is None:
            await subject.after(made)
    assert subject.effects <= set(effects), effects
    return effects


async def run_cut_off(bed: MirrorEnv, subject: Subject, at: int) -> None:
    """End the caller after one effect; another one asks again, and all must be well."""
    async with cell(bed) as made:
        await subject.before(made)
        await cut_off(made, subject.operate(made), at)
        await (subject.again or subject.operate)(made)
        await subject.after(made)


async def run_unheard(bed: MirrorEnv, subject: Subject) -> None:
    """Lose what is answered to each call once; the caller bears it."""
    async with cell(bed) as made:
        await subject.before(made)
        made.line.arm(lambda _: True)
        await subject.operate(made)
        assert made.line.broken == len(made.line.effects) > 0
        made.line.disarm()
        await subject.after(made)


async def cut_off(made: Cell, operation: Coroutine[Any, Any, None], at: int) -> None:
    """End the caller of an operation after one effect; another one is there then."""
    task = asyncio.create_task(operation)

    async def kill() -> None:
        task.cancel()

    made.line.arm(after(at), kill)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert made.line.broken == 1, made.line.effects
    await made.crash()
    made.line.disarm()


def places(subject: Subject, effects: list[str]) -> list[int]:
    """After which effects to cut. That is before the next one, too; and before the first one nothing is done."""
    return [at for at, effect in enumerate(effects, 1) if subject.at in (None, effect)]
