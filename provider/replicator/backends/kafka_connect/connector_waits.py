"""Waiting for effects that Kafka Connect brings about after its answer."""

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
"""Seconds in which a status may predate a worker's restart, and in which a new connector may have none."""


class ConnectorWaits:
    """Waits for states of connectors, all with one poller."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._poller = Poller(listing.statuses)

    async def aclose(self) -> None:
        """Cancel the read in progress."""
        await self._poller.aclose()

    async def until(
        self, name: str, reached: Callable[[Status], bool], goal: str, within: float, gone: Exception
    ) -> Status:
        """Wait until `reached` accepts the connector's status, and return it.

        :param goal: the awaited state, as text for people.
        :param gone: raised if the connector does not exist.
        :raises WaitTimeout: it does not after `within` seconds.
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
                if found.failed:  # a trace is shown in full only if the configuration is known
                    found = await self._listing.get(name) or found
                seen_at = time.monotonic()
                if reached(found):
                    return found

    async def until_settled(self, name: str, within: float, gone: Exception, *, may_idle: bool) -> Status:
        """Wait until the connector runs, or has failed for longer than a status may be stale.

        :param may_idle: a connector without tasks counts as running.
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
        """Wait until a deleted connector is no longer listed.

        :raises WaitTimeout: it is still listed after `within` seconds.
        """
        tell(f"waiting for connector {name!r} to be gone")
        async with _limit(within, lambda: f"connector {name!r} is not gone"):
            while name in await self._poller.next():
                pass

    async def until_shown(self, name: str, is_shown: Callable[[], Awaitable[bool]], within: float) -> None:
        """Wait until a connector shows its new configuration.

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
