"""The operations of the matrix: what was there before, what is asked for, and what must be true at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass

from replicator.backends.sqlite.database import content_hash
from replicator.errors import AgentUnreachable, ReplicatorError
from replicator.model import Checkpoint, StreamState
from replicator.replicator import ReplayMethod

from tests.faults.cell import NAME, Cell, count_rows
from tests.waiting import until

Step = Callable[[Cell], Awaitable[None]]
KEY = "once"


@dataclass(frozen=True)
class Subject:
    """One operation.

    :param operate: what Pulumi asks for; asked for again, in the same words, after the agent was killed.
    :param effects: what the operation does at least, so that a matrix without them does not pass.
    :param writes: whether the application writes between the kill and the next start.
    """

    before: Step
    operate: Step
    after: Step
    effects: Set[str]
    writes: bool = True


# --- before ----------------------------------------------------------------------------------------------------------


async def nothing(cell: Cell) -> None:
    """No stream."""


async def running(cell: Cell) -> None:
    """A stream that has uploaded all."""
    await cell.create()
    await cell.write()
    await cell.caught_up()
    cell.notes["rows"] = count_rows(cell.database)


async def paused(cell: Cell) -> None:
    """A paused stream; the application has restarted the WAL since."""
    await running(cell)
    await cell.update(desiredState="paused")
    assert await cell.write_and_restart_wal()


async def removed(cell: Cell) -> None:
    """A stream that was removed, and left its replica; the database has gone on."""
    await running(cell)
    await cell.delete()
    assert await cell.write_and_restart_wal()


async def two_points(cell: Cell) -> None:
    """A stream with a point to go back to."""
    await cell.create()
    cell.notes["lsn"] = await cell.caught_up()
    cell.notes["then"] = await cell.content()
    await cell.write()
    await cell.caught_up()


async def to_purge(cell: Cell) -> None:
    """A stream that takes its replica with it."""
    await running(cell)
    await cell.update(purgeDestination=True)


# --- operations ------------------------------------------------------------------------------------------------------


async def create(cell: Cell) -> None:
    await cell.create()


async def create_copy(cell: Cell) -> None:
    await cell.create(mode="snapshot")


async def create_alone(cell: Cell) -> None:
    await cell.create(checkpointInterval="1s")


async def move(cell: Cell) -> None:
    await cell.update(destination={"kind": "s3", "uri": cell.place("moved")})


async def change_interval(cell: Cell) -> None:
    await cell.update(checkpointInterval="1s")


async def pause(cell: Cell) -> None:
    await cell.update(desiredState="paused")


async def resume(cell: Cell) -> None:
    await cell.update()


async def delete(cell: Cell) -> None:
    await cell.delete()


async def copy(cell: Cell) -> None:
    start, target = Checkpoint(lsn=cell.notes["lsn"]), cell.folder / "copy.db"
    if target.exists():  # made before the kill
        cell.notes["inode"] = target.stat().st_ino
    await cell.client.replay(NAME, start, key=KEY, method=ReplayMethod.COPY, target=str(target))
    progress = await cell.finished(KEY)
    assert progress.state == "done", progress.error


async def reseed(cell: Cell) -> None:
    await cell.client.replay(NAME, Checkpoint(lsn=cell.notes["lsn"]), key=KEY, method=ReplayMethod.RESEED)
    progress = await cell.finished(KEY)
    assert progress.state == "done", progress.error


# --- after -----------------------------------------------------------------------------------------------------------


async def replicates(cell: Cell, place: str | None = None) -> None:
    """One record, one process, and all that was ever written arrives."""
    await cell.write()
    await cell.caught_up()
    assert await cell.restored(place) == await cell.content(), "the replica differs"
    (record,) = cell.records()
    assert (record["phase"], record["paused"], record["resetDue"]) == ("active", False, False)
    assert record["stream"]["owner"] == {"urn": cell.owner.urn, "token": cell.owner.token}
    assert len(cell.litestreams()) == 1
    assert side_folders(cell) == [cell.side_folder.name]


async def replicates_unmoved(cell: Cell) -> None:
    await replicates(cell)
    assert cell.tombstones() == []


async def copied(cell: Cell) -> None:
    """The one copy is there, and nothing goes on."""
    rows = await cell.restored(rows=True)
    assert 20 <= rows <= count_rows(cell.database)
    (record,) = cell.records()
    assert (record["phase"], record["paused"], record["copyDue"]) == ("active", True, False)
    assert cell.litestreams() == []
    assert cell.tombstones() == []


async def moved(cell: Cell) -> None:
    """All is at the new place; the old one can be restored, and is remembered as this owner's."""
    await replicates(cell, cell.place("moved"))
    assert cell.notes["rows"] <= await cell.restored(cell.place(), rows=True) <= count_rows(cell.database)
    (tombstone,) = cell.tombstones()
    assert tombstone["destination"] == cell.place()
    assert tombstone["owner"]["token"] == cell.owner.token


async def stands_still(cell: Cell) -> None:
    """Nothing runs; a resume brings what was written meanwhile."""
    status = await cell.client.get_status(NAME)
    assert status.state is StreamState.PAUSED
    assert cell.litestreams() == []
    (record,) = cell.records()
    assert (record["phase"], record["paused"]) == ("active", True)
    assert side_folders(cell) == [cell.side_folder.name]
    before = await cell.restored(rows=True)
    await cell.write_and_restart_wal()
    assert await cell.restored(rows=True) == before >= cell.notes["rows"]
    await cell.update()
    await replicates_unmoved(cell)


async def gone(cell: Cell) -> None:
    """The replica is whole, and nothing else is left; the owner may come back."""
    assert cell.records() == []
    assert cell.litestreams() == []
    assert side_folders(cell) == []
    assert await cell.restored() == await cell.content()
    (tombstone,) = cell.tombstones()
    assert tombstone["destination"] == cell.place()
    assert tombstone["owner"]["token"] == cell.owner.token
    await cell.write_and_restart_wal()
    await cell.create()
    await replicates_unmoved(cell)


async def gone_with_replica(cell: Cell) -> None:
    """Nothing at all is left."""
    assert (cell.records(), cell.tombstones(), cell.litestreams(), side_folders(cell)) == ([], [], [], [])
    left = [path for path in (cell.folder / "replica").rglob("*") if path.is_file()]
    assert left == []


async def no_work_folder(cell: Cell) -> bool:
    return not list(cell.folder.glob(".replay-*"))


async def copy_made_once(cell: Cell) -> None:
    """The copy is the database as it was then, and it was not made again."""
    target = cell.folder / "copy.db"
    assert await content_hash(target) == cell.notes["then"]
    inode = target.stat().st_ino
    assert cell.notes.get("inode", inode) == inode
    first = await cell.finished(KEY)
    await copy(cell)
    assert await cell.finished(KEY) == first
    assert target.stat().st_ino == inode
    # The end of a replay is recorded before its work folder is removed.
    await until(lambda: no_work_folder(cell), what="no work folder is left", timeout=20)
    (record,) = cell.records()
    assert list(record["replays"]) == [KEY]
    await replicates_unmoved(cell)


async def reseeded_once(cell: Cell) -> None:
    """One new generation, which holds all; the old one can still be restored."""
    await replicates(cell, cell.place("replica/r2"))
    (record,) = cell.records()
    assert record["generation"] == 2
    assert list(record["replays"]) == [KEY]
    first = await cell.finished(KEY)
    await reseed(cell)
    assert await cell.finished(KEY) == first
    assert not (cell.folder / "replica" / "r3").exists()
    assert await cell.restored(rows=True) >= 20
    assert cell.tombstones() == []


def side_folders(cell: Cell) -> list[str]:
    """What litestream has beside databases."""
    return sorted(path.name for path in cell.folder.glob(".*litestream"))


SUBJECTS = {
    "create": Subject(nothing, create, replicates_unmoved, {"put", "start", "register"}),
    "create-alone": Subject(nothing, create_alone, replicates_unmoved, {"put", "start", "replicate_once"}),
    "create-copy": Subject(nothing, create_copy, copied, {"put", "replicate_once"}),
    "create-again": Subject(removed, create, replicates_unmoved, {"put", "register", "delete_tombstone"}),
    "move": Subject(running, move, moved, {"save_tombstone", "put", "unregister", "reset", "register", "stop"}),
    "interval": Subject(running, change_interval, replicates_unmoved, {"put", "unregister", "stop", "replicate_once"}),
    "pause": Subject(running, pause, stands_still, {"put", "unregister", "stop"}),
    "resume": Subject(paused, resume, replicates_unmoved, {"put", "start", "checkpoint_truncate", "register"}),
    "replay-copy": Subject(two_points, copy, copy_made_once, {"put", "restore", "publish", "tidy"}),
    "replay-reseed": Subject(two_points, reseed, reseeded_once, {"put", "unregister", "reset", "register"}),
    "delete": Subject(running, delete, gone, {"put", "unregister", "save_tombstone", "rmtree", "remove"}, writes=False),
    "delete-purge": Subject(to_purge, delete, gone_with_replica, {"put", "purge_prefix", "rmtree", "remove"}),
}


async def run_whole(cell: Cell, subject: Subject) -> list[tuple[str, int]]:
    """Run an operation that nothing cuts off; its effects, in order, each with the number of engines that ran then."""
    await subject.before(cell)
    cell.arm()
    await subject.operate(cell)
    await asyncio.sleep(0.2)  # a replay tidies up after it has told its end
    effects = cell.effects()
    cell.disarm()
    await subject.after(cell)
    return effects


async def run_cut_off(cell: Cell, subject: Subject, at: int, when: str) -> None:
    """Kill the agent at one effect; run it anew and ask again, and all must be well."""
    await subject.before(cell)
    cell.arm(at=at, when=when, victim="agent")
    with contextlib.suppress(AgentUnreachable):
        await subject.operate(cell)
    await cell.killed()
    cell.disarm()
    assert not subject.writes or await cell.write_and_restart_wal()
    await cell.start()
    await subject.operate(cell)
    await subject.after(cell)


async def run_without_engine(cell: Cell, subject: Subject, at: int, when: str) -> None:
    """Kill litestream at one effect, under a living agent; ask again, and all must be well."""
    await subject.before(cell)
    cell.arm(at=at, when=when, victim="engine")
    with contextlib.suppress(ReplicatorError):
        await subject.operate(cell)
    assert cell.was_killed()
    cell.disarm()
    if subject.writes:
        await cell.write_and_restart_wal()
    await subject.operate(cell)
    await subject.after(cell)


Effects = list[tuple[str, int]]
Places = list[tuple[int, str]]


def before_and_after(effects: Effects) -> Places:
    """Before and after each effect."""
    return [(at, when) for at in range(1, len(effects) + 1) for when in ("before", "after")]


def where_an_engine_runs(effects: Effects) -> Places:
    """Before each effect at whose beginning an engine runs; what is after one is before the next."""
    return [(at, "before") for at, (_, engines) in enumerate(effects, 1) if engines]


@dataclass(frozen=True)
class Victim:
    """Which process is killed, at which places, and what happens then."""

    places: Callable[[Effects], Places]
    run: Callable[[Cell, Subject, int, str], Awaitable[None]]


VICTIMS = {
    "agent": Victim(before_and_after, run_cut_off),
    "litestream": Victim(where_an_engine_runs, run_without_engine),
}
