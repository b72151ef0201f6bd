"""Waits for a stream to run or catch up, or for a replay to end. Each ends on success, failure, cancel or timeout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from replicator.errors import StreamNotFound, WaitCancelled, WaitTimeout
from replicator.model import Stream, StreamState, StreamStatus, WaitFor
from replicator.progress import tell, told_to
from replicator.replicator import Description, ReplayProgress, ReplayState, Replicator

Progress = Callable[[str], Awaitable[None]]

DEFAULT_TIMEOUT = 600.0
"""Default timeout in seconds of a create, update or replay, without customTimeouts of the resource."""

_POLL = 0.25
_LAST_CALL = 0.5  # seconds that a running call has after a cancel


async def silent(_: str) -> None:
    """Discard progress."""


class Limits:
    """The limits of one operation: a deadline, and an event that a cancel sets.

    :param seconds: of time from now; 0 means the default.
    """

    def __init__(self, seconds: float = 0, cancelled: asyncio.Event | None = None) -> None:
        self.seconds = seconds or DEFAULT_TIMEOUT
        self.cancelled = cancelled or asyncio.Event()

    def within(self, what: str, stream: str, progress: Progress = silent) -> AbstractAsyncContextManager[None]:
        """Raise `WaitTimeout` at the deadline, and `WaitCancelled` shortly after a cancel: a call may still end.

        :param progress: awaited with each progress text in this block; the error has the last one too.
        """
        return _within(self.seconds, self.cancelled, what, stream, progress)

    async def pause(self, seconds: float, what: str, stream: str) -> None:
        """Sleep; raise `WaitCancelled` at once on a cancel."""
        try:
            await asyncio.wait_for(self.cancelled.wait(), seconds)
        except TimeoutError:
            return
        raise WaitCancelled(f"cancelled while {what}; the engine continues", stream=stream, fix="run pulumi up again")


@asynccontextmanager
async def _within(
    seconds: float, cancelled: asyncio.Event, what: str, stream: str, progress: Progress
) -> AsyncIterator[None]:
    news = _News()
    try:
        async with asyncio.timeout(seconds) as scope:
            beside = [asyncio.create_task(_hurry(scope, cancelled)), asyncio.create_task(news.carry(progress))]
            try:
                with told_to(news.hear):
                    yield
            finally:
                for task in beside:
                    task.cancel()
    except TimeoutError:
        if not scope.expired():
            raise
        if cancelled.is_set():
            raise WaitCancelled(
                f"cancelled during {what}; the engine continues",
                stream=stream,
                fix="run the same command again, which is safe",
            ) from None
        raise WaitTimeout(
            f"{what} took longer than {seconds:g} s; nothing was undone"
            + (news.last and f"; last progress: {news.last}"),
            stream=stream,
            fix="raise the resource's customTimeouts, or look at the stream's status and run pulumi up again",
        ) from None


class _News:
    """Carries progress texts from a scope to the user."""

    def __init__(self) -> None:
        self.last = ""
        self._unread = asyncio.Event()

    def hear(self, text: str) -> None:
        self.last = text
        self._unread.set()

    async def carry(self, progress: Progress) -> None:
        while True:
            await self._unread.wait()
            self._unread.clear()
            await progress(self.last)


async def _hurry(scope: asyncio.Timeout, cancelled: asyncio.Event) -> None:
    """Give a running call only a moment after a cancel."""
    await cancelled.wait()
    soon = asyncio.get_running_loop().time() + _LAST_CALL
    scope.reschedule(min(soon, scope.when() or soon))


async def wait_for_stream(replicator: Replicator, stream: Stream, limits: Limits) -> StreamStatus:
    """Wait as `stream.wait_for` says, and return the last status.

    `caught_up` means that everything committed at the source when the wait started is at the destination. A stream that
    the engine reports as failed ends the wait at once: its status says so.
    """
    found = await _look(replicator, stream.name)
    goal = _marks(found)[1]
    while not _reached(stream.wait_for, found, goal):
        tell(_words(found.status))
        await limits.pause(_POLL, f"waiting for {stream.wait_for.value}", stream.name)
        found = await _look(replicator, stream.name)
    return found.status


async def _look(replicator: Replicator, name: str) -> Description:
    found = await replicator.describe([name])
    if not found:
        raise StreamNotFound("it was removed by another process meanwhile", stream=name)
    return found[0]


def _marks(found: Description) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Return the position reached at the destination and the source's end, by part; both empty if unknown."""
    if found.source_end:
        return found.reached, found.source_end
    status = found.status
    if status.events_replicated is None or status.lag_events is None:
        return {}, {}
    return {"": status.events_replicated}, {"": status.events_replicated + status.lag_events}


def _reached(wait_for: WaitFor, found: Description, goal: Mapping[str, int]) -> bool:
    status = found.status
    if wait_for is WaitFor.NONE or status.state in (StreamState.FAILED, StreamState.PAUSED):
        return True
    if wait_for is WaitFor.RUNNING:
        return status.state in (StreamState.RUNNING, StreamState.CATCHING_UP)
    if status.state is StreamState.SNAPSHOT:
        return False
    reached = _marks(found)[0]
    if goal and reached:  # a part that no longer exists has nothing left to wait for
        return all(reached[part] >= end for part, end in goal.items() if part in reached)
    return status.lag_events == 0


def _words(status: StreamStatus) -> str:
    behind = f", {status.lag_events} behind" if status.lag_events else ""
    upload = f", {status.upload}" if status.upload else ""
    return f"{status.state.value.replace('_', ' ')}{behind}{upload}"


async def wait_for_replay(replicator: Replicator, started: ReplayProgress, limits: Limits) -> ReplayProgress:
    """Wait until the replay is done or failed. Raise `WaitTimeout` if it cannot progress by itself."""
    replay = started
    while replay.state is ReplayState.RUNNING:
        if replay.error is not None:
            raise WaitTimeout(
                f"the replay is recorded, and does not continue: {replay.error}",
                stream=replay.stream,
                fix="fix that, and run the same command again, which continues it",
            )
        tell(replay.message or "replaying")
        await limits.pause(_POLL, "waiting for the replay", replay.stream)
        replay = await replicator.get_replay(replay.stream, replay.key)
    return replay
