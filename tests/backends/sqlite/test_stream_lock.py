"""Who changes a stream holds its lock, and no other one allows it."""

from __future__ import annotations

import asyncio

import pytest
from replicator.backends.sqlite.stream_lock import StreamLocks


async def test_a_lock_allows_changes_of_its_stream_while_it_is_held() -> None:
    locks = StreamLocks()
    async with locks.hold("orders") as lock:
        lock.require("orders")
        with pytest.raises(RuntimeError, match="the lock of 'orders' does not allow a change of 'bills'"):
            lock.require("bills")
        assert (locks.is_held("orders"), locks.is_held("bills")) == (True, False)
    with pytest.raises(RuntimeError, match="'orders'"):
        lock.require("orders")
    assert not locks.is_held("orders")


async def test_two_changes_of_one_stream_follow_each_other() -> None:
    locks, seen = StreamLocks(), list[str]()

    async def change(name: str, what: str) -> None:
        async with locks.hold(name):
            seen.append(f"{what} begins")
            await asyncio.sleep(0.01)
            seen.append(f"{what} ends")

    await asyncio.gather(change("orders", "first"), change("orders", "second"), change("bills", "other"))
    order = [item for item in seen if not item.startswith("other")]
    assert order == ["first begins", "first ends", "second begins", "second ends"]
    assert seen.index("other begins") < seen.index("second begins")
