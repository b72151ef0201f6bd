"""A Kafka Connect cluster: its connectors, and changes to them that return when their effect is seen.

Connect does what it is asked to some time after it has answered. So each change here ends with a look, by one poller
for all of them. What a name means is decided by the marker in the connector's configuration, which the caller reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from weakref import WeakValueDictionary

import httpx

from replicator.backends.connect.connector import (
    Connector,
    ConnectorState,
    Initial,
    Offset,
    Status,
    Task,
    read_connector,
    read_offsets,
    read_status,
    unreadable,
    write_offsets,
)
from replicator.backends.connect.poller import EVERY, Poller
from replicator.backends.connect.rest import Answer, ConnectRest, Repeat, Turns, path_of
from replicator.backends.connect.validation import (
    FieldError,
    Problem,
    Validation,
    echo_of,
    holds_placeholder,
    problem_of,
    read_validation,
)
from replicator.errors import EngineRefused, EngineUnavailable, NotOurs, ReplicatorError, StreamNotFound, WaitTimeout

__all__ = [
    "ConnectCluster",
    "Connector",
    "ConnectorState",
    "FieldError",
    "Identity",
    "Initial",
    "Offset",
    "Problem",
    "Status",
    "Task",
    "Validation",
]

T = TypeVar("T")

CHANGES = 16
"""Changes in flight in one cluster: more are answered sooner and run later, since each one is a rebalance."""

PATIENCE = 15.0
"""Seconds in which a call is tried again; a worker restarts in 7."""

_STALE_FOR = 2.0  # seconds in which a status may still be the one from before a worker's restart
_BROKEN_AFTER = 2.0  # seconds of errors about one connector, which a rebalance explains while it lasts
_FRESH_FOR = 1.0  # seconds after an answer in which a worker cannot have restarted unseen
_ECHOED = "source.cluster.alias"  # a field of MirrorMaker's connectors; its type, STRING, is echoed as it is resolved
_OLDEST = "3.9"  # the first Kafka with /health


@dataclass(frozen=True, slots=True)
class Identity:
    """Which Connect cluster it is.

    :param kafka_cluster_id: the Kafka cluster that the workers keep their topics in, and that sources write to.
    """

    version: str
    kafka_cluster_id: str


class ConnectCluster:
    """One Connect cluster. Belongs to one event loop, as its `rest` does.

    Errors of `ConnectRest.call` may come from each method; they are not repeated there.

    :param patience: seconds after the start of a call in which it may be tried again.
    """

    def __init__(self, rest: ConnectRest, *, patience: float = PATIENCE) -> None:
        self._rest = rest
        self._patience = patience
        self._poller = Poller(self._look)
        self._slots = asyncio.Semaphore(CHANGES)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._ready: tuple[str, float] | None = None

    async def aclose(self) -> None:
        """End what waits, and close the connections."""
        await self._poller.aclose()
        await self._rest.aclose()

    @asynccontextmanager
    async def slot(self, name: str) -> AsyncIterator[None]:
        """A turn to change a connector: one at a time for each, and `CHANGES` in the cluster.

        Hold it until the effect is seen: that paces the rebalances.
        """
        async with self._turns.setdefault(name, asyncio.Lock()), self._slots:
            yield

    # --- Looking -----------------------------------------------------------------------------------------------------

    async def identity(self) -> Identity:
        """Its version, and the Kafka cluster that it belongs to."""
        answer = await self._ask("GET", "/")
        return self._read(answer, lambda body: Identity(body["version"], body["kafka_cluster_id"]))

    async def listing(self) -> dict[str, Connector]:
        """All connectors, in one call. One of which the engine tells nothing is failed, and hides no other.

        A name that is not in it is not gone: a new connector is not listed before it has a status. Ask `get`.
        """
        try:
            answer = await self._list("status", "info")
        except EngineRefused:
            return await self._listing_one_by_one()
        return self._read(
            answer,
            lambda body: {
                name: read_connector(item["info"], item["status"], self._redacted) for name, item in body.items()
            },
        )

    async def get(self, name: str) -> Connector | None:
        """One connector; None only where the engine says that there is none."""
        return await self._get(name, self._patience)

    async def _get(self, name: str, patience: float) -> Connector | None:
        async def ask(path: str) -> Answer:
            return await self._rest.call("GET", path, repeat=Repeat.SAFE, patience=patience)

        info = await ask(path_of("connectors", name))
        if info.missing:
            return None
        status = await ask(path_of("connectors", name, "status"))
        return self._read(
            info, lambda body: read_connector(body, None if status.missing else status.body, self._redacted)
        )

    async def wait_running(self, name: str, within: float) -> Status:
        """The connector when it runs, or has failed for so long that this is no report from before a restart.

        :raises StreamNotFound: it is gone.
        :raises WaitTimeout: it is neither after `within` seconds.
        """
        failed_since: float | None = None

        def settled(found: Status) -> bool:
            nonlocal failed_since
            if not found.failed:
                failed_since = None
                return found.running
            failed_since = failed_since or time.monotonic()
            return time.monotonic() - failed_since >= _STALE_FOR

        return await self._until(name, settled, "running", within)

    # --- Changing ----------------------------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        config: Mapping[str, str],
        state: Initial,
        *,
        is_ours: Callable[[Mapping[str, str]], bool],
    ) -> bool:
        """Create a connector, or find that ours is there already.

        It is never posted again before a look: a reply may be lost, and a worker may say 500 of what was done.

        :param is_ours: whether a configuration carries the marker of the same stream.
        :returns: True where this call made it. False where it was there, or may have been: it can have another
            configuration and state than those asked for.
        :raises NotOurs: a connector of somebody else has the name.
        """
        request = {"name": name, "config": dict(config), "initial_state": state.value}
        turns = Turns(self._patience)
        while True:
            answer = None
            try:
                answer = await self._rest.call(
                    "POST", "/connectors", body=request, repeat=Repeat.NEVER, patience=self._patience
                )
            except EngineUnavailable as unanswered:
                error: ReplicatorError = unanswered
            if answer is not None:
                if answer.done:
                    return True
                error = self._rest.error(answer)
                if not _is_open(answer):
                    await self._refuse(name, config, error)
            found = await self.get(name)
            if found is not None:
                if is_ours(found.config):
                    return False
                raise NotOurs(
                    f"Kafka Connect at {self._rest.address} has a connector {name!r} that is not of this stream",
                    fix="give the stream another name, or remove that connector",
                )
            faulty = answer is not None and isinstance(error, EngineRefused)
            if not await (turns.again_after_fault() if faulty else turns.again()):
                if faulty:
                    await self._refuse(name, config, error)
                raise error

    async def put_config(self, name: str, config: Mapping[str, str], within: float) -> None:
        """Give a connector another configuration; it keeps its state, and is created where it is not there.

        :raises WaitTimeout: the engine does not show it after `within` seconds.
        """
        path = path_of("connectors", name, "config")
        wanted = {"name": name, **config}
        try:
            await self._ask("PUT", path, body=dict(config))
        except EngineRefused as error:
            await self._refuse(name, config, error)

        async def is_shown() -> bool:
            return bool((await self._ask("GET", path)).body == wanted)

        await self._until_true(is_shown, f"connector {name!r} does not show its new configuration", within)

    async def pause(self, name: str, within: float) -> None:
        """Pause a connector, and return when it and its tasks are paused."""
        await self._ask_of(name, "PUT", "pause")
        await self._until(name, lambda found: found.paused, "paused", within)

    async def resume(self, name: str, within: float) -> Status:
        """Resume a connector, and return it as `wait_running` does."""
        await self._ask_of(name, "PUT", "resume")
        return await self.wait_running(name, within)

    async def stop(self, name: str, within: float) -> None:
        """Stop a connector, and return when it is stopped and its tasks are gone."""
        await self._ask_of(name, "PUT", "stop")
        await self._until(name, lambda found: found.stopped, "stopped", within)

    async def restart_failed(self, name: str) -> None:
        """Ask for a restart of what failed of a connector; what runs is not touched. `wait_running` tells the rest."""
        path = path_of("connectors", name, "restart")
        which = {"includeTasks": "true", "onlyFailed": "true"}
        turns = Turns(self._patience)
        while True:
            answer = None
            try:
                answer = await self._rest.call("POST", path, params=which, repeat=Repeat.NEVER, patience=self._patience)
            except EngineUnavailable as unanswered:
                error: ReplicatorError = unanswered
            if answer is not None:
                if answer.done:
                    return
                error = self._missing(name) if answer.missing else self._rest.error(answer)
                if not _is_open(answer):
                    raise error
            found = await self.get(name)
            if found is None:
                raise self._missing(name)
            if not found.failed:
                return
            if not await turns.again():
                raise error

    async def delete(self, name: str, within: float) -> None:
        """Stop a connector, forget its offsets, and remove it, so that one of the same name begins anew.

        What is done already is skipped, so it can be done again wherever it was cut off. Gone is success.

        :raises WaitTimeout: a step has no effect after `within` seconds.
        """
        found = await self.get(name)
        if found is None:
            return
        try:
            if not found.stopped:
                await self.stop(name, within)
            if await self.offsets(name):
                await self.reset_offsets(name)
        except StreamNotFound:
            return
        await self._ask("DELETE", path_of("connectors", name))

        async def is_gone() -> bool:
            return (await self._ask("GET", path_of("connectors", name))).missing

        # A name that is still shown would be taken for the stream that is created next.
        await self._until_true(is_gone, f"connector {name!r} is not gone", within)

    # --- Offsets -----------------------------------------------------------------------------------------------------

    async def offsets(self, name: str) -> list[Offset]:
        """How far a connector has come, by partition of its source; empty before its first record."""
        return self._read(await self._ask_of(name, "GET", "offsets"), read_offsets)

    async def alter_offsets(self, name: str, offsets: Sequence[Offset]) -> None:
        """Set the position of a stopped connector in the partitions named; others stay.

        :raises EngineRefused: the connector is not stopped, or refuses the offsets.
        """
        await self._ask_offsets(name, "PATCH", write_offsets(offsets))

    async def reset_offsets(self, name: str) -> None:
        """Forget all offsets of a stopped connector.

        :raises EngineRefused: the connector is not stopped, or refuses.
        """
        await self._ask_offsets(name, "DELETE", None)

    async def _ask_offsets(self, name: str, verb: str, body: object) -> None:
        try:
            await self._ask_of(name, verb, "offsets", body=body, repeat=Repeat.CHECKED)
        except EngineRefused as error:
            found = await self.get(name)
            if found is None or found.state is ConnectorState.STOPPED:
                raise
            raise EngineRefused(
                f"the offsets of connector {name!r} cannot be changed while it is {found.state}", fix="stop it first"
            ) from error

    # --- Validation --------------------------------------------------------------------------------------------------

    async def validate(self, connector_class: str, config: Mapping[str, str]) -> Validation:
        """What the workers say of a configuration, by field.

        :raises EngineRefused: the class is not known, or a placeholder cannot be read.
        """
        sent = {"name": "replicator-validation", "connector.class": connector_class, **config}
        try:
            answer = await self._validate(connector_class, sent)
        except EngineRefused as error:
            if holds_placeholder(sent):
                raise self._hidden() from error
            raise
        found = self._read(answer, lambda body: read_validation(body, sent))
        return Validation(tuple(FieldError(item.field, self._rest.quote(item.message)) for item in found.errors))

    async def resolves(self, placeholders: Sequence[str], connector_class: str) -> dict[str, Problem | None]:
        """Whether a worker can resolve placeholders such as `${env:NAME}`; what they stand for is dropped at once.

        :param connector_class: one of MirrorMaker's.
        """
        problems = await asyncio.gather(*(self._resolve(item, connector_class) for item in placeholders))
        return dict(zip(placeholders, problems, strict=True))

    async def _resolve(self, placeholder: str, connector_class: str) -> Problem | None:
        sent = {"name": "replicator-validation", "connector.class": connector_class, _ECHOED: placeholder}
        try:
            answer = await self._validate(connector_class, sent)
        except EngineRefused:
            # The same without the placeholder tells a reference that cannot be read from a class that is not there.
            await self._validate(connector_class, {**sent, _ECHOED: "replicator"})
            return Problem.UNREADABLE

        return self._read(answer, lambda body: problem_of(placeholder, echo_of(_ECHOED, body)))

    async def _validate(self, connector_class: str, sent: Mapping[str, str]) -> Answer:
        path = path_of("connector-plugins", connector_class, "config", "validate")
        return await self._ask("PUT", path, body=dict(sent), repeat=Repeat.CHECKED)

    async def _refuse(self, name: str, config: Mapping[str, str], error: ReplicatorError) -> NoReturn:
        """Raise what is wrong with a configuration. The engine's text may show what a placeholder stands for."""
        if not isinstance(error, EngineRefused) or not holds_placeholder(config):
            raise error
        found = await self.validate(config.get("connector.class", ""), {"name": name, **config})
        if not found.errors:
            raise self._hidden() from error
        told = "; ".join(map(str, found.errors))
        raise EngineRefused(f"Kafka Connect refuses the configuration of connector {name!r}: {told}") from error

    def _hidden(self) -> EngineRefused:
        return EngineRefused(
            "Kafka Connect refuses the configuration; its text is not shown, since it may hold what a placeholder "
            "stands for",
            fix="read the worker's log, and check that each reference in the configuration can be resolved there",
        )

    # --- One place for each way to ask -------------------------------------------------------------------------------

    async def _ask(self, verb: str, path: str, *, body: object = None, repeat: Repeat = Repeat.SAFE) -> Answer:
        return await self._rest.call(verb, path, body=body, repeat=repeat, patience=self._patience)

    async def _ask_of(
        self, name: str, verb: str, what: str, *, body: object = None, repeat: Repeat = Repeat.SAFE
    ) -> Answer:
        """Ask something of a connector that has to be there."""
        answer = await self._ask(verb, path_of("connectors", name, what), body=body, repeat=repeat)
        if answer.missing:
            raise self._missing(name)
        return answer

    def _missing(self, name: str) -> StreamNotFound:
        return StreamNotFound(f"Kafka Connect at {self._rest.address} has no connector {name!r}")

    def _read(self, answer: Answer, read: Callable[[Any], T]) -> T:
        try:
            return read(answer.body)
        except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise EngineRefused(
                f"what answers at {self._rest.address} does not answer as Kafka Connect does",
                fix="give the address of a Connect worker's REST interface",
            ) from error

    def _redacted(self, text: str) -> str:
        return self._rest.redact(text)

    # --- Listing -----------------------------------------------------------------------------------------------------

    async def _list(self, *expand: str) -> Answer:
        """A listing that can be believed.

        For about a second after a restart, a worker lists what is in the half of its log that it has read, and names
        that were deleted long ago. `/health` does not answer before the whole is read, so it is asked first, of the
        same worker, and a listing that does not come at once is not waited for.
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
        """A worker that has read its whole log."""
        if self._ready is not None and time.monotonic() - self._ready[1] < _FRESH_FOR:
            return self._ready[0]
        answer = await self._ask("GET", "/health")
        if answer.missing:
            raise EngineRefused(
                f"Kafka Connect at {self._rest.address} has no /health", fix=f"run Kafka Connect {_OLDEST} or newer"
            )
        return answer.worker

    async def _listing_one_by_one(self) -> dict[str, Connector]:
        answer = await self._list()
        names = self._read(answer, list)
        found = await asyncio.gather(*(self._get_or_failed(name) for name in names))
        return {item.name: item for item in found if item is not None}

    async def _get_or_failed(self, name: str) -> Connector | None:
        try:
            return await self._get(name, _BROKEN_AFTER)
        except EngineRefused as error:
            return unreadable(name, error.message)

    # --- Waiting -----------------------------------------------------------------------------------------------------

    async def _look(self) -> Mapping[str, Status]:
        try:
            answer = await self._list("status")
        except EngineRefused:
            return await self._listing_one_by_one()
        return self._read(
            answer,
            lambda body: {name: read_status(item["status"], self._redacted) for name, item in body.items()},
        )

    async def _until(self, name: str, reached: Callable[[Status], bool], goal: str, within: float) -> Status:
        found: Status | None = None
        try:
            async with asyncio.timeout(within) as limit:
                while True:
                    found = (await self._poller.next()).get(name) or await self.get(name)
                    if found is None:
                        raise self._missing(name)
                    if reached(found):
                        return found
        except TimeoutError:
            if not limit.expired():
                raise
            state = f"; it is {found.summary}" if found else ""
            raise WaitTimeout(f"connector {name!r} is not {goal} after {within:g} s{state}") from None

    async def _until_true(self, reached: Callable[[], Awaitable[bool]], what: str, within: float) -> None:
        try:
            async with asyncio.timeout(within) as limit:
                while True:
                    if await reached():
                        return
                    await asyncio.sleep(EVERY)
        except TimeoutError:
            if not limit.expired():
                raise
            raise WaitTimeout(f"{what} after {within:g} s") from None


def _is_open(answer: Answer) -> bool:
    """Whether an answer to a POST leaves it open what was done: a look has to tell."""
    return (
        answer.status == httpx.codes.CONFLICT
        or httpx.codes.is_server_error(answer.status)
        or (answer.status == httpx.codes.NOT_FOUND and not answer.spoken)
    )
