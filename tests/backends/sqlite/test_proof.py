"""No row is lost: random writers, pauses, kills and removals, and then what is at the destination, compared whole.

What is at the destination is read by the engine's own `restore`, never by our replay. The seed is printed; the variable
REPLICATOR_PROOF_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import uuid
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine, ControlClient, EngineError
from replicator.backends.sqlite.positions import Position
from replicator.errors import EngineUnavailable, ReplicatorError
from replicator.model import Stream

from tests.backends.sqlite.agents import Agent, caught_up, declare, replica_url, restored_hash
from tests.backends.sqlite.conftest import BUCKET, StartDaemon
from tests.backends.sqlite.syncing import sync
from tests.backends.sqlite.writer import Writer
from tests.engines import S3Server, make_database
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

DATABASES = 8
_AWAY = ("pause", "pause", "pause", "remove", "remove", "kill", "interval")  # a kill is one for every database
_WAL_ACTIONS = ("nothing", "passive", "restart", "restart", "truncate", "close", "close")


def _seed() -> str:
    return os.environ.get("REPLICATOR_PROOF_SEED") or uuid.uuid4().hex[:8]


async def _spoil(writer: Writer, chance: random.Random) -> str:
    """What applications do to a WAL while nobody replicates it."""
    action = chance.choice(_WAL_ACTIONS)
    if action == "close":
        await writer("close")
    elif action != "nothing":
        with suppress(sqlite3.OperationalError):  # another connection is in its way; that is life
            await writer("checkpoint", action)
    return action


class _Subject:
    """One database, its writer, its stream, and the story of its rounds."""

    def __init__(self, agent: Agent, command: CommandLine, writer: Writer, stream: Stream, seed: str) -> None:
        self.agent = agent
        self.command = command
        self.writer = writer
        self.stream = stream
        self.database = Path(stream.source.uri.removeprefix("sqlite://"))
        self.chance = random.Random(seed)
        self.story: list[str] = []
        self.refusal: ReplicatorError | None = None
        self.points: list[tuple[Position, str]] = []

    async def round(self) -> None:
        driver, chance, name = self.agent.driver, self.chance, self.stream.name
        await self.writer("burst", chance.randrange(12))
        if chance.random() < 0.5:
            await caught_up(driver, name)
        away = chance.choice(_AWAY)
        live = chance.random() < 0.5
        reader = chance.random() < 0.15
        if away == "pause":
            await driver.pause(name)
        elif away == "interval":
            await self.made(within=40, checkpoint_interval=timedelta(milliseconds=chance.choice((300, 700))))
        elif away == "kill":
            for pid in self.agent.pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            await until(self._removed, timeout=60, what=f"{name} is removed")
        actions = []
        for _ in range(chance.randrange(1, 4)):
            await self.writer("burst", chance.choice((1, 2, 10, 40)))
            actions.append(await _spoil(self.writer, chance))
        await self.writer("burst", chance.choice((0, 1, 5)))
        self.story.append(f"{away} {'+'.join(actions)}{' live' if live else ''}{' reader' if reader else ''}")
        reading = asyncio.create_task(self._read_for(chance.random() * 2)) if reader else None
        if live:
            await self.writer("live", True)
        await self.made(within=40)
        if live:
            await asyncio.sleep(chance.random() * 0.2)
            await self.writer("live", False)
        await self.writer("burst", chance.randrange(3))
        await self._compare()
        if reading is not None:
            await reading

    async def _read_for(self, seconds: float) -> None:
        """Keep the WAL from being emptied for a while."""
        await self.writer("read", True)
        await asyncio.sleep(seconds)
        await self.writer("read", False)

    async def made(self, *, within: float, **changes: Any) -> None:
        stream = self.stream.model_copy(update=changes)
        try:
            await until(lambda: self._made(stream), timeout=within, what=f"{self.stream.name} is made")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.refusal}, {self.story}") from self.refusal

    async def _made(self, stream: Stream) -> bool:
        """A daemon that is killed meanwhile makes any call fail; the next one has to do."""
        try:
            await self.agent.driver.upsert_stream(stream)
        except ReplicatorError as error:
            self.refusal = error
            return False
        return True

    async def _removed(self) -> bool:
        """A delete that cannot upload what is left is refused; the daemon that was killed for all is back soon."""
        try:
            return await self.agent.driver.delete_stream(self.stream.name, owner=self.stream.owner)
        except EngineUnavailable as error:
            self.refusal = error
            return False

    async def _compare(self) -> None:
        driver, name = self.agent.driver, self.stream.name
        status = await caught_up(driver, name, timeout=60)
        copy = self.agent.folder / f"{name}.copy"
        here, url = await content_hash(self.database), await replica_url(driver, name)
        assert await _equal(self.command, url, copy, self.database), f"{name} after {len(self.story)}: {self.story}"
        assert status.last_checkpoint is not None and status.last_checkpoint.lsn is not None
        self.points.append((Position.parse(status.last_checkpoint.lsn, name), here))

    async def compare_history(self) -> None:
        """Some of the positions of before, by now from compacted files."""
        url = await replica_url(self.agent.driver, self.stream.name)
        copy = self.agent.folder / f"{self.stream.name}.copy"
        for position, was in self.chance.sample(self.points, 4):
            there = await restored_hash(self.command, url, copy, txid=position.txid)
            assert there == was, f"{self.stream.name} differs at {position}: {self.story}"


@pytest.mark.parametrize("rounds", [5, pytest.param(26, marks=pytest.mark.proof)])
async def test_no_round_loses_a_row(
    agent: Agent, s3: S3Server, command_line: CommandLine, tmp_path: Path, place: str, rounds: int
) -> None:
    """Pauses, kill -9, removal and return, other intervals; the WAL restarted, emptied or removed; steady writers."""
    seed = _seed()
    print(f"REPLICATOR_PROOF_SEED={seed}")

    async def subject(number: int) -> int:
        name = f"db{number}"
        database = make_database(tmp_path / f"{name}.db", rows=20)
        uri = place.replace("?", f"/{name}?")
        async with Writer(database, seed=f"{seed}/{number}") as writer:
            one = _Subject(agent, command_line, writer, declare(name, database, uri), f"{seed}/{number}")
            await one.made(within=120)
            for _ in range(rounds):
                await one.round()
            await one.compare_history()
            return len(one.story)

    made = await asyncio.gather(*(subject(number) for number in range(DATABASES)))
    assert made == [rounds] * DATABASES


async def test_the_naive_way_loses_rows(
    start_daemon: StartDaemon, s3: S3Server, command_line: CommandLine, tmp_path: Path
) -> None:
    """The control: the same writers around the engine's own /stop and /start. The proof could see a loss."""
    seed = _seed()
    print(f"REPLICATOR_PROOF_SEED={seed}")
    async with start_daemon() as daemon:
        transport = httpx.AsyncHTTPTransport(uds=str(daemon.settings.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", trust_env=False) as engine:

            async def rounds(number: int) -> int:
                chance = random.Random(f"{seed}/{number}")
                database = make_database(tmp_path / f"db{number}.db", rows=20)
                url = s3.url(BUCKET, f"naive/{uuid.uuid4().hex}")
                async with Writer(database, seed=f"{seed}/{number}") as writer:
                    await daemon.control.register(database, url)
                    for _ in range(4):
                        await writer("burst", chance.randrange(12))
                        await _sync(daemon.control, database)
                        (await engine.post("/stop", json={"path": str(database)})).raise_for_status()
                        for _ in range(chance.randrange(1, 4)):
                            await writer("burst", chance.choice((1, 2, 10, 40)))
                            await _spoil(writer, chance)
                        await writer("burst", chance.choice((0, 1, 5)))
                        (await engine.post("/start", json={"path": str(database)})).raise_for_status()
                        await _sync(daemon.control, database)
                        if not await _equal(command_line, url, tmp_path / f"{number}.copy", database):
                            return 1
                return 0

            lost = await asyncio.gather(*(rounds(number) for number in range(DATABASES)))
    print(f"databases with lost rows: {sum(lost)} of {DATABASES}")
    assert sum(lost) > 0


async def _equal(command: CommandLine, url: str, copy: Path, database: Path) -> bool:
    try:
        return await restored_hash(command, url, copy) == await content_hash(database)
    except EngineError:  # what was lost can leave a copy that is no database
        return False


async def _sync(control: ControlClient, database: Path) -> None:
    async def reached() -> bool:
        try:
            return (await sync(control, database, wait=True, timeout=10)).replicated_txid is not None
        except EngineError:
            return False

    await until(reached, timeout=30, what=f"{database} is at the destination")
