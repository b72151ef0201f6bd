"""Replays on the real engine: what they write, what they refuse, and that a key runs once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.errors import (
    InvalidStream,
    ReplayKeyReused,
    ReplayNotRetained,
    ReplayRefused,
    SourceMissing,
)
from replicator.model import Checkpoint
from replicator.replicator import ReplayMethod, ReplayState

from tests.backends.sqlite.agents import Agent, caught_up, declare, finished, replica_url, restored_hash
from tests.engines import add_rows, make_database

pytestmark = pytest.mark.engine


@pytest.fixture
async def history(agent: Agent, tmp_path: Path, place: str) -> list[tuple[Checkpoint, str]]:
    """Three checkpoints of the stream `orders`, each with the hash of its content. `shop.db` is the database."""
    database = make_database(tmp_path / "shop.db", rows=20)
    await agent.driver.upsert_stream(declare("orders", database, place))
    points = []
    for _ in range(3):
        add_rows(database, 10)
        status = await caught_up(agent.driver, "orders")
        assert status.last_checkpoint is not None
        points.append((status.last_checkpoint, await content_hash(database)))
        await asyncio.sleep(0.05)
    return points


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if ".shop.db-litestream" not in str(path)}


async def test_a_copy_is_exact_at_a_checkpoint_and_at_a_time(
    agent: Agent, history: list[tuple[Checkpoint, str]], tmp_path: Path
) -> None:
    for number, (point, content) in enumerate(history):
        for kind, start in (("lsn", Checkpoint(lsn=point.lsn)), ("wall", Checkpoint(wall=point.wall))):
            target = tmp_path / f"{kind}-{number}.db"
            await agent.driver.replay("orders", start, key=target.name, target=str(target))
            done = await finished(agent.driver, "orders", target.name)
            assert (done.state, done.error) == (ReplayState.DONE, None)
            assert await content_hash(target) == content
    now = Checkpoint(wall=datetime.now(UTC))
    await agent.driver.replay("orders", now, key="now", target=f"sqlite://{tmp_path}/now.db")
    await finished(agent.driver, "orders", "now")
    assert await content_hash(tmp_path / "now.db") == history[-1][1]
    assert not [name for name in files(tmp_path) if "part" in name or "tmp" in name]


async def test_a_plan_changes_nothing(agent: Agent, history: list[tuple[Checkpoint, str]], tmp_path: Path) -> None:
    before, record = files(tmp_path), agent.store.get("orders")
    for method in (ReplayMethod.AUTO, ReplayMethod.COPY):
        plan = await agent.driver.plan_replay("orders", history[0][0], method=method, target=str(tmp_path / "copy.db"))
        assert (plan.method, plan.resolved.lsn) == (ReplayMethod.COPY, history[0][0].lsn)
        assert plan.bytes
        assert plan.events is None
        assert plan.latest is not None
        assert (plan.resolved, plan.latest) == (history[0][0], history[-1][0])
    await agent.driver.plan_replay("orders", history[0][0], method=ReplayMethod.RESEED)
    assert files(tmp_path) == before
    assert agent.store.get("orders") == record


async def test_targets_that_are_refused(agent: Agent, history: list[tuple[Checkpoint, str]], tmp_path: Path) -> None:
    (tmp_path / "taken.db").write_text("somebody's")
    (tmp_path / "link").symlink_to(tmp_path)
    make_database(tmp_path / "other.db")
    refused = {
        "shop.db": ReplayRefused,
        "shop.db-wal": ReplayRefused,
        "shop.db-journal": ReplayRefused,
        "link/shop.db-journal": ReplayRefused,
        "other.db-wal": ReplayRefused,
        "other.db-journal": ReplayRefused,
        "to-come.db-shm": ReplayRefused,
        "..": InvalidStream,
        "link/shop.db": ReplayRefused,
        ".shop.db-litestream/copy.db": ReplayRefused,
        "taken.db": ReplayRefused,
        "nowhere/copy.db": SourceMissing,
    }
    for name, error in refused.items():
        with pytest.raises(error):
            await agent.driver.replay("orders", history[0][0], key=name, target=f"{tmp_path}/{name}")
    for own in ("copy.db", "registry/streams/copy.json"):
        with pytest.raises(ReplayRefused, match="is in the agent's state folder"):
            await agent.driver.replay("orders", history[0][0], key="k", target=f"{agent.folder}/{own}")
    for target in (None, "copy.db"):
        with pytest.raises(InvalidStream):
            await agent.driver.replay("orders", history[0][0], key="k", target=target)
    record = agent.store.get("orders")
    assert record is not None
    assert record.replays == {}
    assert (tmp_path / "taken.db").read_text() == "somebody's"


async def test_a_key_belongs_to_one_replay(agent: Agent, history: list[tuple[Checkpoint, str]], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    target = str(tmp_path / "copy.db")
    calls = (agent.driver.replay("orders", history[0][0], key="k", target=target) for _ in range(5))
    assert len({begun.started_at for begun in await asyncio.gather(*calls)}) == 1
    done = await finished(agent.driver, "orders", "k")
    (tmp_path / "copy.db").unlink()
    again = await agent.driver.replay("orders", history[0][0], key="k", target=target)
    assert "was removed since" in str(again.message)
    assert again.model_copy(update={"message": done.message}) == done
    assert not (tmp_path / "copy.db").exists(), "it ran again"
    for start, place in ((history[1][0], target), (history[0][0], str(tmp_path / "other" / "copy.db"))):
        with pytest.raises(ReplayKeyReused):
            await agent.driver.replay("orders", start, key="k", target=place)


async def test_what_is_not_retained_is_refused_with_the_nearest_points(
    agent: Agent, history: list[tuple[Checkpoint, str]], tmp_path: Path
) -> None:
    target = str(tmp_path / "copy.db")
    with pytest.raises(ReplayNotRetained, match=str(history[-1][0].lsn)):
        await agent.driver.plan_replay("orders", Checkpoint(lsn=f"{2**40:016x}"), target=target)
    with pytest.raises(ReplayNotRetained, match=f"{1:016x}"):
        long_ago = Checkpoint(wall=datetime.now(UTC) - timedelta(days=1))
        await agent.driver.plan_replay("orders", long_ago, target=target)
    with pytest.raises(ReplayNotRetained):
        await agent.driver.plan_replay("orders", Checkpoint(lsn=f"r7/{1:016x}"), target=target)
    with pytest.raises(InvalidStream, match="is not a position"):
        await agent.driver.plan_replay("orders", Checkpoint(lsn="7"), target=target)
    with pytest.raises(ReplayRefused, match="in the future"):
        later = Checkpoint(wall=datetime.now(UTC) + timedelta(hours=1))
        await agent.driver.plan_replay("orders", later, target=target)


async def test_a_reseed_begins_a_prefix_and_keeps_the_old_one(
    agent: Agent, history: list[tuple[Checkpoint, str]], tmp_path: Path, command_line: CommandLine
) -> None:
    old = await replica_url(agent.driver, "orders")
    await agent.driver.replay("orders", history[0][0], key="k", method=ReplayMethod.RESEED)
    done = await finished(agent.driver, "orders", "k")
    assert (done.state, done.resolved) == (ReplayState.DONE, Checkpoint(lsn=f"r2/{1:016x}"))
    add_rows(tmp_path / "shop.db", 5)
    status = await caught_up(agent.driver, "orders")
    assert status.last_checkpoint is not None
    assert str(status.last_checkpoint.lsn).startswith("r2/")
    new = await replica_url(agent.driver, "orders")
    assert await restored_hash(command_line, new, tmp_path / "new.db") == await content_hash(tmp_path / "shop.db")
    assert await restored_hash(command_line, old, tmp_path / "old.db") == history[-1][1]
    await agent.driver.replay("orders", history[0][0], key="old", target=str(tmp_path / "first.db"))
    await finished(agent.driver, "orders", "old")
    assert await content_hash(tmp_path / "first.db") == history[0][1]
    before = Checkpoint(wall=history[1][0].wall)
    await agent.driver.replay("orders", before, key="time", target=str(tmp_path / "second.db"))
    await finished(agent.driver, "orders", "time")
    assert await content_hash(tmp_path / "second.db") == history[1][1]


async def test_a_paused_stream_is_not_reseeded(agent: Agent, history: list[tuple[Checkpoint, str]]) -> None:
    await agent.driver.pause("orders")
    with pytest.raises(ReplayRefused, match="it is paused"):
        await agent.driver.plan_replay("orders", history[0][0], method=ReplayMethod.RESEED)


async def test_two_reseeds_at_once_are_two(
    agent: Agent, history: list[tuple[Checkpoint, str]], tmp_path: Path, command_line: CommandLine
) -> None:
    keys = ("one", "two")
    calls = (agent.driver.replay("orders", history[0][0], key=key, method=ReplayMethod.RESEED) for key in keys)
    await asyncio.gather(*calls)
    done = [await finished(agent.driver, "orders", key) for key in keys]
    assert sorted(str(item.resolved and item.resolved.lsn) for item in done) == [f"r2/{1:016x}", f"r3/{1:016x}"]
    await caught_up(agent.driver, "orders")
    url = await replica_url(agent.driver, "orders")
    assert url.partition("?")[0].endswith("/r3")
    assert await restored_hash(command_line, url, tmp_path / "new.db") == history[-1][1]


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.4])
async def test_an_agent_that_ends_in_a_replay_finishes_it_once(
    agent: Agent, history: list[tuple[Checkpoint, str]], tmp_path: Path, command_line: CommandLine, after: float
) -> None:
    target = tmp_path / "copy.db"
    await agent.driver.replay("orders", history[0][0], key="copy", target=str(target))
    await agent.driver.replay("orders", history[0][0], key="reseed", method=ReplayMethod.RESEED)
    await asyncio.sleep(after)
    await agent.stop()
    await agent.start()
    for key in ("copy", "reseed"):
        done = await finished(agent.driver, "orders", key)
        assert (done.state, done.error) == (ReplayState.DONE, None)
    assert await content_hash(target) == history[0][1]
    assert not [name for name in files(tmp_path) if "part" in name]
    await caught_up(agent.driver, "orders")
    url = await replica_url(agent.driver, "orders")
    assert url.partition("?")[0].endswith("/r2"), "it was seeded once"
    assert await restored_hash(command_line, url, tmp_path / "new.db") == history[-1][1]
