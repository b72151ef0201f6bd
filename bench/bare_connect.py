"""Kafka Connect's REST interface in bare loops: what a provider's operations cost before there is a provider.

Nothing of `replicator` is in here. Each call is sent once, and an error ends the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

Status = Mapping[str, Any]

_EVERY = 0.05  # seconds from one look at all statuses to the next
_LIMIT = 60.0  # seconds for one call, and for one connector to do what it was asked
_READS_AT_ONCE = 16


class _Looks:
    """All connectors' statuses, looked at again and again for everybody who waits."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._changed = asyncio.Condition()
        self._number = 0
        self._statuses: dict[str, Status] = {}

    async def go_on(self) -> None:
        while True:
            number = self._number + 1
            answer = (await self._client.get("/connectors", params={"expand": "status"})).raise_for_status().json()
            async with self._changed:
                self._number, self._statuses = number, {name: item["status"] for name, item in answer.items()}
                self._changed.notify_all()
            await asyncio.sleep(_EVERY)

    async def until(self, reached: Callable[[Mapping[str, Status]], bool]) -> None:
        async with asyncio.timeout(_LIMIT), self._changed:
            await self._changed.wait_for(lambda: reached(self._statuses))


@dataclass(frozen=True)
class BareConnect:
    """The workers at a URL.

    :param url: of one worker.
    """

    url: str

    def configs(self) -> dict[str, dict[str, str]]:
        """The configurations of all connectors, by name."""
        answer = httpx.get(f"{self.url}/connectors", params={"expand": "info"}, trust_env=False, timeout=_LIMIT)
        return {name: item["info"]["config"] for name, item in answer.raise_for_status().json().items()}

    def create(self, configs: Mapping[str, Mapping[str, str]], at_once: int) -> float:
        """Post connectors, and wait for each until it and its task run; the seconds that this took."""
        return asyncio.run(_timed(self._create(configs, at_once)))

    async def _create(self, configs: Mapping[str, Mapping[str, str]], at_once: int) -> None:
        async with self._watched() as (client, looks):

            async def one(name: str) -> None:
                body = {"name": name, "config": configs[name]}
                (await client.post("/connectors", json=body)).raise_for_status()
                await looks.until(lambda statuses: _runs(statuses.get(name)))

            await _each(one, configs, at_once)

    def delete(self, names: Iterable[str], at_once: int) -> float:
        """Stop connectors, wait until all are stopped, forget their offsets, and delete them, phase by phase."""
        return asyncio.run(_timed(self._delete(list(names), at_once)))

    async def _delete(self, names: list[str], at_once: int) -> None:
        async with self._watched() as (client, looks):

            def each(verb: str, what: str) -> Awaitable[None]:
                async def one(name: str) -> None:
                    (await client.request(verb, f"/connectors/{name}{what}")).raise_for_status()

                return _each(one, names, at_once)

            await each("PUT", "/stop")
            await looks.until(lambda statuses: all(_stopped(statuses[name]) for name in names))
            await each("DELETE", "/offsets")
            await each("DELETE", "")
            await looks.until(lambda statuses: statuses.keys().isdisjoint(names))

    def look(self, partitions: Mapping[str, int], bootstrap: str) -> float:
        """One listing, the offsets of each connector, and the ends of all topics in one question to the brokers.

        :param partitions: how many partitions each topic has.
        """
        return asyncio.run(_timed(self._look(partitions, bootstrap)))

    async def _look(self, partitions: Mapping[str, int], bootstrap: str) -> None:
        async with _client(self.url) as client:
            listing = await client.get("/connectors", params={"expand": ["status", "info"]})
            await _each(lambda name: _offsets(client, name), listing.raise_for_status().json(), _READS_AT_ONCE)
        await asyncio.to_thread(_ends, partitions, bootstrap)

    def wait_copied(self, names: Iterable[str]) -> None:
        """Wait until each connector has stored a position."""

        async def all_stored() -> None:
            async with _client(self.url) as client, asyncio.timeout(_LIMIT):
                waiting = list(names)
                while waiting:
                    found = [(name, await _offsets(client, name)) for name in waiting]
                    waiting = [name for name, offsets in found if not offsets]

        asyncio.run(all_stored())

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[tuple[httpx.AsyncClient, _Looks]]:
        async with _client(self.url) as client:
            looks = _Looks(client)
            going = asyncio.create_task(looks.go_on())
            try:
                yield client, looks
            finally:
                going.cancel()
                await asyncio.gather(going, return_exceptions=True)


class BareMirrors:
    """The same calls for one mirror at a time, in a process that is asked for many at once.

    :param url: of one worker.
    :param bootstrap: of the source.
    :param topics: of all mirrors, each with one partition.
    """

    def __init__(self, url: str, bootstrap: str, topics: Iterable[str]) -> None:
        self._client = _client(url)
        self._looks = _Looks(self._client)
        self._going: asyncio.Task[None] | None = None
        self._bootstrap, self._topics = bootstrap, dict.fromkeys(topics, 1)
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._listing: asyncio.Task[frozenset[str]] | None = None

    async def create(self, config: Mapping[str, str]) -> str:
        """Post a connector, and return its name when it and its task run."""
        name = config["name"]
        await self._send("POST", "/connectors", json={"name": name, "config": config})
        await self._until(lambda statuses: _runs(statuses.get(name)))
        return name

    async def look(self, name: str) -> None:
        """Ask for a connector's offsets, and once for all connectors and for the ends of their topics."""
        if self._listing is None:
            self._listing = asyncio.create_task(self._list())
        if name not in await asyncio.shield(self._listing):
            raise RuntimeError(f"there is no connector {name}")
        async with self._reads:
            await _offsets(self._client, name)

    async def _list(self) -> frozenset[str]:
        listing, _ = await asyncio.gather(
            self._client.get("/connectors", params={"expand": ["status", "info"]}),
            asyncio.to_thread(_ends, self._topics, self._bootstrap),
        )
        return frozenset(listing.raise_for_status().json())

    async def delete(self, name: str) -> None:
        """Stop a connector, wait, forget its offsets, delete it, and wait until it is gone."""
        await self._send("PUT", f"/connectors/{name}/stop")
        await self._until(lambda statuses: name in statuses and _stopped(statuses[name]))
        await self._send("DELETE", f"/connectors/{name}/offsets")
        await self._send("DELETE", f"/connectors/{name}")
        await self._until(lambda statuses: name not in statuses)

    async def _send(self, verb: str, path: str, **rest: Any) -> None:
        """Send it again while the workers are in a rebalance, as a plugin has to, which is asked for many at once."""
        async with asyncio.timeout(_LIMIT):
            while (answer := await self._client.request(verb, path, **rest)).status_code == httpx.codes.CONFLICT:
                await asyncio.sleep(_EVERY)
        answer.raise_for_status()

    async def _until(self, reached: Callable[[Mapping[str, Status]], bool]) -> None:
        if self._going is None:
            self._going = asyncio.create_task(self._looks.go_on())
        await self._looks.until(reached)


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=_LIMIT)


async def _offsets(client: httpx.AsyncClient, name: str) -> list[Any]:
    answer = await client.get(f"/connectors/{name}/offsets")
    offsets: list[Any] = answer.raise_for_status().json()["offsets"]
    return offsets


async def _timed(work: Awaitable[None]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def _each(one: Callable[[str], Coroutine[Any, Any, Any]], names: Iterable[str], at_once: int) -> None:
    gate = asyncio.Semaphore(at_once)

    async def in_turn(name: str) -> None:
        async with gate:
            await one(name)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(in_turn(name))


def _runs(status: Status | None) -> bool:
    return status is not None and bool(status["tasks"]) and _states(status) == {"RUNNING"}


def _stopped(status: Status) -> bool:
    return _states(status) == {"STOPPED"}


def _states(status: Status) -> set[str]:
    return {status["connector"]["state"], *(task["state"] for task in status["tasks"])}


def _ends(partitions: Mapping[str, int], bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.list_topics(timeout=_LIMIT)  # without metadata the next call now and then waits for three seconds
    asked = {TopicPartition(name, at): OffsetSpec.latest() for name, count in partitions.items() for at in range(count)}
    for found in admin.list_offsets(asked).values():
        found.result(_LIMIT)
