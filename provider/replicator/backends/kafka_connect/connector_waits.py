"""Waiting for what Kafka Connect does some time after it has answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from replicator.backends.kafka_connect.connector import Status
from replicator.backends.kafka_connect.listing import Listing
from replicator.backends.shared.poller import EVERY, Poller
from replicator.errors import WaitTimeout
from replicator.progress import tell

STALE_FOR = 2.0
"""Seconds in which a status may be the one from before a worker's restart, and in which a new connector has none."""


class ConnectorWaits:
    """Waits for states of connectors, all of them by the looks of one poller."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._poller = Poller(listing.statuses)

    async def aclose(self) -> None:
        """End the look that is under way."""
        await self._poller.aclose()

    async def until(
        self, name: str, reached: Callable[[Status], bool], goal: str, within: float, gone: Exception
    ) -> Status:
        """Return the connector when `reached` says so.

        :param goal: the state that is waited for, for a person.
        :param gone: raised where the connector is not there.
        :raises WaitTimeout: it is not so after `within` seconds.
        """
        found: Status | None = None
        tell(f"waiting for connector {name!r} to be {goal}")
        async with _limit(within, lambda: f"connector {name!r} is not {goal}", lambda: _as_is(found)):
            seen_at = time.monotonic()
            while True:
                listed = (await self._poller.next()).get(name)
                if listed is None and time.monotonic() - seen_at < STALE_FOR:
                    continue
                found = listed or await self._listing.get(name)
                if found is None:
                    raise gone
                if found.failed:  # a trace is told whole only where the configuration is known
                    found = await self._listing.get(name) or found
                seen_at = time.monotonic()
                if reached(found):
                    return found

    async def until_settled(self, name: str, within: float, gone: Exception, *, may_idle: bool) -> Status:
        """The connector when it runs, or has failed for longer than a status is stale.

        :param may_idle: a connector without a task runs too.
        :raises WaitTimeout: it is neither after `within` seconds.
        """
        failed_at: float | None = None

        def settled(found: Status) -> bool:
            nonlocal failed_at
            now = time.monotonic()
            failed_at = (failed_at or now) if found.failed else None
            return (
                found.running or (may_idle and found.idle) or (failed_at is not None and now - failed_at >= STALE_FOR)
            )

        return await self.until(name, settled, "running", within, gone)

    async def until_absent(self, name: str, within: float) -> None:
        """Return when a connector that was deleted is not listed any more.

        :raises WaitTimeout: it is listed after `within` seconds.
        """
        tell(f"waiting for connector {name!r} to be gone")
        async with _limit(within, lambda: f"connector {name!r} is not gone"):
            while name in await self._poller.next():
                pass

    async def until_shown(self, name: str, is_shown: Callable[[], Awaitable[bool]], within: float) -> None:
        """Return when a connector shows its new configuration.

        :raises WaitTimeout: it does not after `within` seconds.
        """
        tell(f"waiting for connector {name!r} to show its new configuration")
        async with _limit(within, lambda: f"connector {name!r} does not show its new configuration"):
            while True:
                if await is_shown():
                    return
                await asyncio.sleep(EVERY)


@asynccontextmanager
async def _limit(within: float, *told: Callable[[], str]) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(within) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        what, *state = (tell() for tell in told)
        raise WaitTimeout("; ".join([f"{what} after {within:g} s", *filter(None, state)])) from None


def _as_is(found: Status | None) -> str:
    if found is None:
        return ""
    return f"it is {found.summary}" + (f": {found.trace}" if found.trace else "")
