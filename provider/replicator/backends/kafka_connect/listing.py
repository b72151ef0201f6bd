"""Listing the connectors of a cluster, and deciding when a worker's listing can be trusted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from replicator.backends.kafka_connect.connector import (
    Connector,
    Status,
    read_config,
    read_connector,
    read_status,
    unreadable,
)
from replicator.backends.kafka_connect.rest import MALFORMED, Answer, ConnectRest, Repeat, Turns, path_of
from replicator.errors import EngineRefused, EngineUnavailable, ReplicatorError

_FRESH_FOR = 1.0  # seconds after an answer in which a worker cannot have restarted unnoticed
_BROKEN_AFTER = 2.0  # seconds of errors about one connector that a rebalance can explain
_OLDEST = "3.9"  # the first Kafka with /health
_MALFORMED = "what Kafka Connect tells of this connector cannot be read"


class Listing:
    """The connectors of a cluster.

    :param patience: seconds after the start of a read within which it may be retried.
    """

    def __init__(self, rest: ConnectRest, patience: float) -> None:
        self._rest = rest
        self._patience = patience
        self._ready: tuple[str, float] | None = None

    async def connectors(self) -> dict[str, Connector]:
        """Return all connectors, in one call. One that the engine cannot describe is failed and hides no other."""
        try:
            answer = await self._list("status", "info")
        except EngineRefused:
            return await self._one_by_one()

        def read(body: Any) -> dict[str, Connector]:
            # A connector that was just deleted is listed with its last status and a null configuration.
            found = ((name, self._read(name, item)) for name, item in body.items())
            return {name: connector for name, connector in found if connector is not None}

        return self._rest.read(answer, read)

    def _read(self, name: str, item: Mapping[str, Any]) -> Connector | None:
        """Read one connector of a listing. A malformed entry does not affect the others."""
        try:
            if item["info"] is None:
                return None
            return read_connector(item["info"], item["status"], self._rest.redact)
        except MALFORMED:
            return unreadable(name, _MALFORMED, _config_of(item))

    async def statuses(self) -> Mapping[str, Status]:
        """Return the status of all connectors, in one call that costs a worker half as much."""
        try:
            answer = await self._list("status")
        except EngineRefused:
            return await self._one_by_one()

        def read(body: Any) -> dict[str, Status]:
            return {name: self._read_status(name, item) for name, item in body.items()}

        return self._rest.read(answer, read)

    def _read_status(self, name: str, item: Mapping[str, Any]) -> Status:
        try:
            return read_status(item["status"], self._rest.redact)
        except MALFORMED:
            return unreadable(name, _MALFORMED)

    async def get(self, name: str) -> Connector | None:
        """Return one connector; None only if the engine says that it does not exist."""
        return await self._get(name, self._patience)

    async def _get(self, name: str, patience: float) -> Connector | None:
        async def ask(path: str) -> Answer:
            return await self._rest.call("GET", path, repeat=Repeat.SAFE, patience=patience)

        # A worker that has not read its whole log delays this call, so the status is not requested too early.
        info = await ask(path_of("connectors", name))
        if info.missing:
            return None
        status = await ask(path_of("connectors", name, "status"))
        known = None if status.missing else status.body
        return self._rest.read(info, lambda body: read_connector(body, known, self._rest.redact))

    async def _one_by_one(self) -> dict[str, Connector]:
        names: list[str] = self._rest.read(await self._list(), _read_names)
        found = await asyncio.gather(*(self._get_or_failed(name) for name in names))
        return {item.name: item for item in found if item is not None}

    async def _get_or_failed(self, name: str) -> Connector | None:
        try:
            return await self._get(name, _BROKEN_AFTER)
        except EngineRefused as error:
            return unreadable(name, error.message)

    async def _list(self, *expand: str) -> Answer:
        """Return a listing that can be trusted.

        For about a second after a restart, a worker lists the part of its log that it has read, including names deleted
        long ago. `/health` does not answer before the whole log is read, so the same worker is asked for it first. A
        listing that does not arrive at once is abandoned, since the worker may have restarted.
        """
        turns = Turns(self._patience)
        error: ReplicatorError = EngineUnavailable(f"no worker of Kafka Connect at {self._rest.address} stays ready")
        while True:
            worker = await self._ready_worker()
            try:
                answer = await self._rest.call(
                    "GET", "/connectors", params={"expand": expand}, repeat=Repeat.NEVER, patience=self._patience
                )
            except EngineUnavailable as unanswered:
                error = unanswered
            else:
                if answer.done and answer.worker == worker:
                    self._ready = (worker, time.monotonic())
                    return answer
                if not answer.done:
                    error = self._rest.error(answer)
                    if isinstance(error, EngineRefused):
                        raise error
            self._ready = None
            if not await turns.again():
                raise error

    async def _ready_worker(self) -> str:
        """Return a worker that has read its whole log."""
        if self._ready is not None and time.monotonic() - self._ready[1] < _FRESH_FOR:
            return self._ready[0]
        answer = await self._rest.call("GET", "/health", repeat=Repeat.SAFE, patience=self._patience)
        if answer.missing:
            raise EngineRefused(
                f"Kafka Connect at {self._rest.address} has no /health", fix=f"run Kafka Connect {_OLDEST} or newer"
            )
        return answer.worker


def _read_names(body: Any) -> list[str]:
    if not isinstance(body, list) or not all(isinstance(name, str) for name in body):
        raise TypeError("no list of names")
    return body


def _config_of(item: Any) -> dict[str, str] | None:
    try:
        return read_config(item["info"])
    except MALFORMED:
        return None
