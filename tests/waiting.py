"""Waiting in tests: poll until something is so, and say what was waited for where it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    condition: Callable[[], Awaitable[T | None]],
    what: str = "condition",
    *,
    timeout: float = 60.0,
    interval: float = 0.05,
    told: Callable[[], object] = str,
) -> T:
    """Poll until `condition` gives something true, and return that; raise TimeoutError after `timeout` seconds.

    :param told: what is so instead, for the error.
    """
    deadline = time.monotonic() + timeout
    while not (found := await condition()):
        if time.monotonic() > deadline:
            raise TimeoutError("; ".join(filter(None, [f"{what}: not true after {timeout:g} s", str(told())])))
        await asyncio.sleep(interval)
    return found


def wait_until(
    condition: Callable[[], object], what: str = "condition", *, timeout: float = 60.0, interval: float = 0.02
) -> None:
    """Poll until `condition` is true; raise TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not true after {timeout:g} s")
        time.sleep(interval)
