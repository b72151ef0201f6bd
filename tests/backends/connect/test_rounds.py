"""Rounds: changes of one kind share a round, and another kind waits for its end, but for no change that hangs."""

from __future__ import annotations

import asyncio

import pytest
from replicator.backends.connect import rounds
from replicator.backends.connect.rounds import Rounds


class Log:
    """What begins and ends, in order, of changes that the test lets end."""

    def __init__(self) -> None:
        self.rounds = Rounds()
        self.said: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    def begin(self, kind: str, name: str) -> asyncio.Task[None]:
        async def change() -> None:
            async with self.rounds.only(kind):
                self.said.append(f"{kind} {name}")
                await self.ends[name].wait()

        self.ends[name] = asyncio.Event()
        return asyncio.create_task(change())

    async def settled(self) -> list[str]:
        for _ in range(10):
            await asyncio.sleep(0)
        return self.said


async def test_a_round_ends_with_its_last_change_and_then_those_that_wait_begin_together() -> None:
    log = Log()
    tasks = [log.begin("stop", "a"), log.begin("stop", "b"), log.begin("reset", "c"), log.begin("reset", "d")]
    assert await log.settled() == ["stop a", "stop b"]
    log.ends["a"].set()
    assert await log.settled() == ["stop a", "stop b"]
    log.ends["b"].set()
    assert await log.settled() == ["stop a", "stop b", "reset c", "reset d"]
    for end in log.ends.values():
        end.set()
    await asyncio.gather(*tasks)


async def test_a_change_that_fails_or_is_cancelled_ends() -> None:
    log = Log()
    first, second = log.begin("stop", "a"), log.begin("reset", "b")
    await log.settled()
    first.cancel()
    assert await log.settled() == ["stop a", "reset b"]
    log.ends["b"].set()
    await second


async def test_a_change_that_hangs_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "WAITS", 0.05)
    log = Log()
    first, second = log.begin("stop", "a"), log.begin("reset", "b")
    log.ends["b"].set()
    await asyncio.wait_for(second, 5)
    assert log.said == ["stop a", "reset b"]
    log.ends["a"].set()
    await first
