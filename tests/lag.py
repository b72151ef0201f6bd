"""What a status says of the lag, held against what was so: when each change was written, and when it had arrived.

Both are known within bounds only. Each bound is taken so that a correct status is never blamed: a change counts as
waiting while a status was asked for if it was committed before the question, and was not at the destination after the
answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import cycle
from typing import Any

from replicator.errors import ReplicatorError
from replicator.model import StreamState, StreamStatus

Action = Callable[[], Coroutine[Any, Any, None]]

ROUNDING = 0.01
"""Seconds: times in a status are rounded to the millisecond, and so are those of an engine."""


@dataclass(frozen=True, slots=True)
class Change:
    """A commit or a record; times in seconds since 1970.

    :param written: it was there by then.
    :param absent: it was not at the destination until then, or later.
    :param begun: it was not there before.
    :param arrived: it was at the destination by then.
    """

    written: float
    absent: float
    begun: float = 0.0
    arrived: float = float("inf")


@dataclass(frozen=True, slots=True)
class Sample:
    """One status; times in seconds since 1970.

    :param events: how many changes it says that wait; None where the backend counts something else.
    :param reason: what it gives as a reason for what it does not know.
    :param newest: the age that it implies for the newest change at the source.
    """

    asked: float
    answered: float
    seconds: float | None
    events: int | None
    reason: str | None
    newest: float | None = None


def waiting(changes: Sequence[Change], sample: Sample) -> list[Change]:
    """What certainly was not at the destination while the status was measured, oldest first."""
    return [change for change in changes if change.written <= sample.asked and change.absent >= sample.answered]


def too_low(samples: Sequence[Sample], changes: Sequence[Change], resolution: float) -> list[str]:
    """Where a status says less than was so, or says nothing and does not say why.

    :param resolution: seconds by which the documentation allows a lag to be too low.
    """
    found = []
    for sample in samples:
        late = waiting(changes, sample)
        least = sample.asked - late[0].written if late else 0.0
        if sample.seconds is None:
            if sample.reason is None:
                found.append(f"no lag and no reason, after {least:.2f} s: {sample}")
        elif sample.seconds < least - resolution - ROUNDING:
            found.append(f"{sample.seconds} s instead of {least:.2f} s: {sample}")
        if sample.events is not None and sample.events < len(late):
            found.append(f"{sample.events} changes instead of {len(late)}: {sample}")
    return found


def too_many(samples: Sequence[Sample], changes: Sequence[Change]) -> list[str]:
    """Where a status says that more changes wait than can have been."""
    found = []
    for sample in samples:
        most = sum(change.begun <= sample.answered and change.arrived > sample.asked for change in changes)
        if sample.events is None or sample.events > most:
            found.append(f"{sample.events} changes instead of {most} at most: {sample}")
    return found


def zero_for_unknown(samples: Sequence[Sample]) -> list[Sample]:
    """A naive status: what it does not see is 0."""
    return [
        replace(item, seconds=item.seconds or 0.0, events=item.events or 0) if item.seconds is None else item
        for item in samples
    ]


def age_of_the_newest(samples: Sequence[Sample]) -> list[Sample]:
    """A naive status: the lag is the age of the newest file."""
    return [replace(item, seconds=item.newest) for item in samples if item.newest is not None]


_STALE = 4
"""By how many samples a stale status is late: enough for each machine, however fast its engines start again."""


def of_an_earlier_end(samples: Sequence[Sample]) -> list[Sample]:
    """A naive status: it goes by the end of the source that one of some seconds before has seen."""
    return [
        replace(now, seconds=before.seconds, events=before.events)
        for before, now in zip(samples, samples[_STALE:], strict=False)
    ]


async def one_sample(
    ask: Callable[[], Awaitable[StreamStatus]], *, counts: bool, within: float = 20.0
) -> tuple[Sample, StreamStatus | None]:
    """Ask for a status. An error of the product is a reason; any other one is a fault of it."""
    asked = time.time()
    try:
        async with asyncio.timeout(within):
            status = await ask()
    except ReplicatorError as error:
        return Sample(asked, time.time(), None, None, str(error)), None
    answered = time.time()
    reason = status.last_error or (None if status.state is StreamState.RUNNING else status.state.value)
    newest = _age(status.last_event, asked)
    events = status.lag_events if counts else None
    return Sample(asked, answered, status.lag_seconds, events, reason, newest), status


async def samples_during(
    ask: Callable[[], Awaitable[StreamStatus]],
    disturb: Iterator[Action],
    chance: random.Random,
    *,
    count: int,
    counts: bool,
) -> list[Sample]:
    """Take samples while one disturbance follows the other; the last one has ended on return.

    Where most disturbances in a row make the lag unknown, more samples are taken, so that some have one.
    """
    found: list[Sample] = []
    enough = asyncio.Event()

    async def disturbances() -> None:
        while not enough.is_set():
            action = next(disturb)
            began = time.time()
            await action()
            print(f"{began:.2f} to {time.time():.2f}: {action.__qualname__}")
            await asyncio.sleep(chance.random() * 3)

    disturbing = asyncio.create_task(disturbances())
    states: Counter[str] = Counter()

    def enough_known() -> bool:
        return len(found) >= 4 * count or sum(sample.seconds is not None for sample in found) > count / 4

    while (len(found) < count or not enough_known()) and not disturbing.done():
        sample, status = await one_sample(ask, counts=counts)
        states[status.state if status else "no answer"] += 1
        found.append(sample)
        await asyncio.sleep(chance.random() * 0.7)
    enough.set()
    await disturbing
    known = sum(sample.seconds is not None for sample in found)
    print(f"{len(found)} samples, {known} with a lag, {dict(states)}")
    return found


def in_turn(chance: random.Random, actions: Sequence[Action]) -> Iterator[Action]:
    """The actions in a random order, each before one of them comes again."""
    return cycle(chance.sample(actions, len(actions)))


def _age(then: datetime | None, now: float) -> float | None:
    return max(now - then.timestamp(), 0.0) if then is not None else None
