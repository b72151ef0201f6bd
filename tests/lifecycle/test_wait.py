"""Waits: what ends each one, and that cancel and time-out do so at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from replicator.errors import AgentUnreachable, StreamNotFound, WaitCancelled, WaitTimeout
from replicator.lifecycle import wait
from replicator.lifecycle.wait import DEFAULT_TIMEOUT, Limits, wait_for_replay, wait_for_stream
from replicator.model import Checkpoint, StreamState, StreamStatus
from replicator.progress import tell, told_to
from replicator.replicator import Description, ReplayMethod, ReplayProgress, ReplayState

from tests.lifecycle.builders import Watched, stream

START = Checkpoint(lsn="1")


class Scripted(Watched):
    """Answers with the given statuses one after the other; the last one stays."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.answers = list(answers)

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        assert names is not None
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Parts):
            return [answer.description(names[0])]
        state, done, behind = answer
        status = StreamStatus(name=names[0], state=StreamState(state), events_replicated=done, lag_events=behind)
        return [Description(stream=stream(), status=status)]

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        return progress(self.answers.pop(0))


@dataclass(frozen=True)
class Parts:
    """An answer that tells the source's end and what is reached by partition; empty where the source is not seen."""

    end: Mapping[str, int]
    reached: Mapping[str, int]

    def description(self, name: str) -> Description:
        behind = sum(self.end.values()) - sum(self.reached.values()) if self.end else None
        status = StreamStatus(name=name, state=StreamState.CATCHING_UP, lag_events=behind)
        return Description(stream=stream(), status=status, source_end=dict(self.end), reached=dict(self.reached))


def progress(state: str) -> ReplayProgress:
    return ReplayProgress(
        key="k",
        stream="orders",
        state=ReplayState(state),
        method=ReplayMethod.COPY,
        start=START,
        started_at="2026-01-31T12:00:00Z",  # type: ignore[arg-type]
        message=f"is {state}",
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_POLL", 0.001)


SNAPSHOT, BEHIND, RUNNING = ("snapshot", None, None), ("catching_up", 5, 3), ("running", 8, 0)


@pytest.mark.parametrize(
    ("wait_for", "answers", "looks"),
    [
        ("none", [SNAPSHOT], 1),
        ("running", [SNAPSHOT, RUNNING], 2),
        ("running", [RUNNING], 1),
        ("running", [SNAPSHOT, ("failed", None, None)], 2),
        ("running", [("paused", 1, 5)], 1),
        ("caught_up", [BEHIND, ("catching_up", 7, 30), ("catching_up", 8, 40)], 3),  # the goal was set at 8
        ("caught_up", [("snapshot", 0, 8), ("snapshot", 8, 0), RUNNING], 3),
        ("caught_up", [("running", None, 2), ("running", None, 0)], 2),
        ("caught_up", [("running", 4, None), ("running", 9, None), ("running", 9, 0)], 3),
        ("caught_up", [BEHIND, ("failed", 6, 2)], 2),
        ("caught_up", [BEHIND, ("paused", 6, 2)], 2),
        ("caught_up", [("running", 7, 1), ("running", 7, 1), ("running", 8, 5)], 3),
    ],
)
async def test_what_ends_a_wait(wait_for: str, answers: list[Any], looks: int) -> None:
    replicator = Scripted(*answers)
    shown: list[str] = []
    with told_to(shown.append):
        last = await wait_for_stream(replicator, stream(waitFor=wait_for), Limits(5))
    assert (last.state.value, last.events_replicated, last.lag_events) == answers[looks - 1]
    assert len(shown) == looks - 1


A_GOAL = Parts({"a": 5, "b": 5}, {"a": 3, "b": 0})


@pytest.mark.parametrize(
    ("answers", "looks"),
    [
        # The source goes on, so that nothing is ever caught up; the goal is where it ended at first.
        ([A_GOAL, Parts({"a": 9, "b": 9}, {"a": 4, "b": 5}), Parts({"a": 19, "b": 9}, {"a": 5, "b": 5})], 3),
        # One partition far ahead does not stand in for another.
        ([A_GOAL, Parts({"a": 90, "b": 9}, {"a": 80, "b": 4}), Parts({"a": 90, "b": 9}, {"a": 80, "b": 5})], 3),
        # A topic that was deleted meanwhile has nothing left to wait for; one that came is of later.
        ([A_GOAL, Parts({"a": 5, "c": 7}, {"a": 5, "c": 0})], 2),
        # A source that cannot be seen for a moment is not caught up.
        ([A_GOAL, Parts({}, {}), Parts({"a": 5, "b": 5}, {"a": 5, "b": 5})], 3),
    ],
)
async def test_catching_up_is_by_partition(answers: list[Parts], looks: int) -> None:
    replicator = Scripted(*answers)
    shown: list[str] = []
    with told_to(shown.append):
        await wait_for_stream(replicator, stream(waitFor="caught_up"), Limits(5))
    assert len(shown) == looks - 1


async def test_a_stream_that_is_removed_meanwhile_ends_the_wait() -> None:
    with pytest.raises(StreamNotFound, match="removed by another process"):
        await wait_for_stream(Watched(), stream(waitFor="caught_up"), Limits(5))


async def test_progress_says_how_far_behind_it_is() -> None:
    shown: list[str] = []
    copying = ("snapshot", 0, 8)
    with told_to(shown.append):
        await wait_for_stream(Scripted(copying, BEHIND, RUNNING), stream(waitFor="caught_up"), Limits(5))
    assert shown == ["snapshot, 8 behind", "catching up, 3 behind"]


async def test_a_stream_that_catches_up_is_running() -> None:
    last = await wait_for_stream(Scripted(SNAPSHOT, BEHIND, RUNNING), stream(waitFor="running"), Limits(5))
    assert last.state.value == "catching_up"


async def test_an_engine_that_does_not_answer_ends_the_wait() -> None:
    with pytest.raises(AgentUnreachable):
        await wait_for_stream(Scripted(SNAPSHOT, AgentUnreachable("gone")), stream(waitFor="running"), Limits(5))


async def test_cancel_ends_a_wait_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_POLL", 60.0)
    cancelled = asyncio.Event()
    began = time.monotonic()
    asyncio.get_running_loop().call_later(0.05, cancelled.set)
    with pytest.raises(WaitCancelled, match="cancelled while waiting for caught_up") as caught:
        await wait_for_stream(Scripted(BEHIND), stream(waitFor="caught_up"), Limits(600, cancelled))
    assert time.monotonic() - began < 1
    assert caught.value.stream == "orders"


async def test_a_wait_that_is_cancelled_before_it_begins() -> None:
    cancelled = asyncio.Event()
    cancelled.set()
    with pytest.raises(WaitCancelled):
        await wait_for_stream(Scripted(BEHIND), stream(waitFor="caught_up"), Limits(600, cancelled))


async def test_time_runs_out() -> None:
    limits = Limits(0.05)
    with pytest.raises(WaitTimeout, match=r"the change took longer than 0\.05 s; nothing was undone"):
        async with limits.within("the change", "orders"):
            await wait_for_stream(Scripted(BEHIND), stream(waitFor="caught_up"), limits)


async def test_a_call_that_hangs_has_a_moment_after_a_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "_LAST_CALL", 0.05)
    cancelled = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, cancelled.set)
    with pytest.raises(WaitCancelled, match="cancelled during the change; the engine continues"):
        async with Limits(600, cancelled).within("the change", "orders"):
            await asyncio.Event().wait()


async def test_a_call_that_ends_shortly_after_a_cancel_ends_well() -> None:
    cancelled = asyncio.Event()
    cancelled.set()
    async with Limits(600, cancelled).within("the change", "orders"):
        await asyncio.sleep(0.05)


async def test_a_cancel_gives_no_more_time_than_there_was() -> None:
    cancelled = asyncio.Event()
    cancelled.set()
    began = time.monotonic()
    with pytest.raises(WaitCancelled):
        async with Limits(0.05, cancelled).within("the change", "orders"):
            await asyncio.Event().wait()
    assert time.monotonic() - began < 0.4


async def test_a_time_out_of_something_else_is_not_ours() -> None:
    with pytest.raises(TimeoutError, match="the disk"):
        async with Limits(5).within("the change", "orders"):
            raise TimeoutError("the disk")


async def test_what_is_told_inside_reaches_the_person_and_the_error_also_from_a_task() -> None:
    shown: list[str] = []

    async def show(text: str) -> None:
        shown.append(text)

    async def work() -> None:
        tell("waiting for a rebalance to end")
        await asyncio.sleep(5)

    with pytest.raises(WaitTimeout, match=r"nothing was undone; last progress: waiting for a rebalance to end \["):
        async with Limits(0.05).within("the change", "orders", show):
            tell("before")
            await asyncio.shield(asyncio.create_task(work()))
    assert shown[-1:] == ["waiting for a rebalance to end"]
    tell("nobody listens any more")
    assert shown[-1] == "waiting for a rebalance to end"


@pytest.mark.parametrize(("seconds", "expected"), [(0, DEFAULT_TIMEOUT), (3, 3), (0.5, 0.5)])
def test_seconds(seconds: float, expected: float) -> None:
    assert Limits(seconds).seconds == expected


@pytest.mark.parametrize(
    ("states", "last"),
    [(["done"], "done"), (["running", "failed"], "failed"), (["running", "running", "done"], "done")],
)
async def test_a_replay_is_seen_to_its_end(states: list[str], last: str) -> None:
    shown: list[str] = []
    with told_to(shown.append):
        found = await wait_for_replay(Scripted(*states[1:]), progress(states[0]), Limits(5))
    assert found.state.value == last
    assert shown == ["is running"] * (len(states) - 1)


async def test_cancel_leaves_a_replay_to_the_engine() -> None:
    cancelled = asyncio.Event()
    cancelled.set()
    with pytest.raises(WaitCancelled, match="cancelled while waiting for the replay; the engine continues"):
        await wait_for_replay(Scripted("running"), progress("running"), Limits(5, cancelled))


async def test_a_replay_that_does_not_go_on_ends_the_wait_with_the_reason() -> None:
    standing = progress("running").model_copy(update={"error": "the stream is paused"})
    with pytest.raises(WaitTimeout, match="does not continue: the stream is paused"):
        await wait_for_replay(Scripted("running"), standing, Limits(5))
