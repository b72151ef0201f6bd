"""A Kafka Connect cluster: its connectors, and changes to them that return once their effect is visible.

The record in a connector's configuration decides whose connector it is; the caller reads it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from weakref import WeakValueDictionary

import httpx

from replicator.backends.kafka_connect.connector import (
    Connector,
    ConnectorState,
    Initial,
    Offset,
    Status,
    Task,
    read_offsets,
    write_offsets,
)
from replicator.backends.kafka_connect.connector_waits import ConnectorWaits
from replicator.backends.kafka_connect.listing import Listing
from replicator.backends.kafka_connect.rest import Answer, ConnectRest, Repeat, Turns, path_of, patient
from replicator.backends.kafka_connect.validation import (
    FieldError,
    Problem,
    Validation,
    echo_of,
    holds_secrets,
    problem_of,
    read_validation,
)
from replicator.backends.shared.poller import Poller
from replicator.backends.shared.single_flight import SingleFlight
from replicator.errors import EngineRefused, EngineUnavailable, NotOurs, ReplicatorError, StreamNotFound, WaitTimeout
from replicator.progress import tell

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

CHANGES = 16
"""Maximum number of concurrent changes in one cluster: more would take effect later, since each one rebalances."""

READS = 16
"""Maximum number of concurrent offset requests; more would not be answered sooner."""

RECENT = 1.0
"""Seconds for which an answer about the whole cluster is cached."""

PATIENCE = 15.0
"""Seconds for which a call is retried; a worker restarts in 7."""

_POLLS_FOR = 5.0  # seconds that a task may take to pause before it is stopped anyway

_HAS_MEMBERS = "because its tasks haven't stopped completely yet"
_LEFT_WITHIN = 60.0
"""Seconds in which the consumers of a stopped sink leave their group: a broker waits 45 for one that is silent."""

_TOGETHER = 0.02  # seconds in which reads of single connectors are combined into one

_VALIDATED = {"name": "replicator-validation"}  # without a name there is one more error


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a Connect cluster.

    :param kafka_cluster_id: the Kafka cluster that holds the workers' topics, and that source connectors write to.
    """

    version: str
    kafka_cluster_id: str


class ConnectCluster:
    """One Connect cluster. Belongs to one event loop, as its `rest` does.

    Every method may also raise the errors of `ConnectRest.call`.

    :param patience: seconds after the start of a call within which it may be retried.
    :ivar recent_identity: the answer of `identity`, at most `RECENT` seconds old.
    """

    def __init__(self, rest: ConnectRest, *, patience: float = PATIENCE) -> None:
        self._rest = rest
        self._patience = patience
        self._listing = Listing(rest, patience)
        self._waits = ConnectorWaits(self._listing)
        self._looks = Poller(self._listing.connectors, _TOGETHER)
        self._free = asyncio.Semaphore(CHANGES)
        self._free_to_read = asyncio.Semaphore(READS)
        self.recent_identity = SingleFlight(self.identity, RECENT)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def aclose(self) -> None:
        """Cancel waiting calls, and close the connections."""
        await self._waits.aclose()
        await self._looks.aclose()
        await self._rest.aclose()

    @asynccontextmanager
    async def slot(self, name: str) -> AsyncIterator[None]:
        """Wait for a slot to change a connector: one per connector at a time, and `CHANGES` per cluster.

        Hold it until the effect is visible, which paces the rebalances. A rebalance is awaited inside, however long it
        takes.
        """
        async with self._turns.setdefault(name, asyncio.Lock()), self._free:
            with patient():
                yield

    # --- Reads -------------------------------------------------------------------------------------------------------

    async def identity(self) -> Identity:
        """Return the version, and the Kafka cluster that it belongs to."""
        answer = await self._ask("GET", "/")
        return self._rest.read(answer, lambda body: Identity(body["version"], body["kafka_cluster_id"]))

    async def listing(self) -> dict[str, Connector]:
        """Return all connectors, in one call. One that the engine cannot describe is failed and hides no other.

        A name that is not listed may still exist: a new connector is not listed before it has a status. Use `get`.
        """
        return await self._listing.connectors()

    async def get(self, name: str) -> Connector | None:
        """Return one connector; None only if the engine says that it does not exist."""
        return await self._listing.get(name)

    async def look(self, name: str) -> Connector | None:
        """Return the same from one listing, shared by all concurrent callers.

        A worker answers `get` only between rebalances, but a listing at any time. (Seen on Kafka 4.3.)
        """
        found = (await self._looks.next()).get(name)
        return found if found is not None and found.config else await self.get(name)

    async def wait_running(self, name: str, within: float, *, may_idle: bool = False) -> Status:
        """Wait until the connector runs, or has failed for too long for the report to predate a restart.

        A connector without work has no task, and does not run.

        :param may_idle: a connector without tasks counts as running, since it has nothing to do now.
        :raises StreamNotFound: it no longer exists.
        :raises WaitTimeout: it is neither after `within` seconds.
        """
        return await self._waits.until_settled(name, within, self._missing(name), may_idle=may_idle)

    async def wait_assigned(self, name: str, within: float) -> None:
        """Wait until a worker has the connector. Until then its state is unknown: it reports UNASSIGNED after a change.

        :raises StreamNotFound: it no longer exists.
        :raises WaitTimeout: no worker has it after `within` seconds.
        """

        def is_assigned(found: Status) -> bool:
            return found.state is not ConnectorState.UNASSIGNED

        await self._waits.until(name, is_assigned, "assigned", within, self._missing(name))

    # --- Changes -----------------------------------------------------------------------------------------------------

    async def create(
        self,
        name: str,
        config: Mapping[str, str],
        state: Initial,
        *,
        is_ours: Callable[[Mapping[str, str]], bool],
    ) -> bool:
        """Create a connector, or find that the stream's own already exists.

        :param is_ours: whether a configuration holds the record of the same stream.
        :returns: True if this call created it. False if it existed, or may have: its configuration and state can then
            differ from those asked for.
        :raises NotOurs: a connector of another owner has the name.
        """

        async def is_adopted(error: ReplicatorError) -> bool:
            found = await self.get(name)
            if found is None and isinstance(error, EngineRefused):
                await self._check(name, config)  # raises if validation explains it
            if found is not None and not is_ours(found.config):
                raise NotOurs(
                    f"Kafka Connect at {self._rest.address} has a connector {name!r} that is not of this stream",
                    fix="give the stream another name, or remove that connector",
                )
            return found is not None

        request = {"name": name, "config": dict(config), "initial_state": state.value}
        try:
            return await self._post("/connectors", request, {}, is_adopted)
        except EngineRefused as error:
            refusal = error
        raise await self._explained(name, config, refusal)

    async def put_config(self, name: str, config: Mapping[str, str], within: float) -> None:
        """Replace a connector's configuration and keep its state. A connector that does not exist is created, and runs.

        The tasks of a running connector keep the old configuration for some seconds, and are reported as running
        meanwhile. If the time of the switch matters, stop the connector first and resume it afterwards.

        :raises WaitTimeout: the engine does not show it after `within` seconds.
        """
        path = path_of("connectors", name, "config")
        wanted = {"name": name, **config}
        if await self._refusal_of("PUT", path, dict(config), Repeat.CHECKED) is not None:
            await self._check(name, config)  # raises if validation explains it
            if (refusal := await self._refusal_of("PUT", path, dict(config), Repeat.SAFE)) is not None:
                raise await self._explained(name, config, refusal)

        async def is_shown() -> bool:
            """Read the shared listing: a worker describes a single connector only between rebalances."""
            found = (await self._looks.next()).get(name)
            return found is not None and found.config == wanted

        await self._waits.until_shown(name, is_shown, within)

    async def pause(self, name: str, within: float) -> None:
        """Pause a connector; return once its tasks are paused and it is paused too, or still has to be started."""
        await self._ask_of(name, "PUT", "pause")
        await self._waits.until(
            name, lambda found: found.paused or found.pausing, "paused", within, self._missing(name)
        )

    async def resume(self, name: str, within: float, *, may_idle: bool = False) -> Status:
        """Resume a connector, and return it as `wait_running` does."""
        await self._ask_of(name, "PUT", "resume")
        return await self.wait_running(name, within, may_idle=may_idle)

    async def stop(self, name: str, within: float) -> None:
        """Stop a connector; return once it is stopped and has no tasks.

        A task ends after its poll, and a worker that stops it does nothing else until then. A worker does not wait for
        a task that pauses, so running tasks are paused first. (Seen on Kafka 4.3.)
        """
        found = await self.look(name)
        if found is None:
            raise self._missing(name)
        if found.at_work:
            await self._ask_of(name, "PUT", "pause")
            with suppress(WaitTimeout):
                await self._waits.until(name, lambda now: not now.at_work, "paused", _POLLS_FOR, self._missing(name))
        await self._ask_of(name, "PUT", "stop")
        await self._waits.until(name, lambda found: found.stopped, "stopped", within, self._missing(name))

    async def restart_failed(self, name: str) -> None:
        """Request a restart of a connector's failed parts; running parts continue. `wait_running` has the result."""

        async def nothing_failed(_: ReplicatorError) -> bool:
            found = await self.get(name)
            if found is None:
                raise self._missing(name)
            return not found.failed

        path = path_of("connectors", name, "restart")
        await self._post(path, None, {"includeTasks": "true", "onlyFailed": "true"}, nothing_failed)

    async def delete(self, name: str, within: float) -> None:
        """Stop a connector, reset its offsets, and remove it, so that a new one of the same name starts afresh.

        It is idempotent: call it again after an interruption at any step. A missing connector is success.

        :raises WaitTimeout: a step has no effect after `within` seconds.
        """
        try:
            await self.stop(name, within)
            await self.reset_offsets(name)
        except StreamNotFound:
            return
        await self.remove(name, within)

    async def remove(self, name: str, within: float) -> None:
        """Remove a connector. Connect keeps its offsets for the next one of this name. A missing connector is success.

        :raises WaitTimeout: it still exists after `within` seconds.
        """
        await self._ask("DELETE", path_of("connectors", name))
        await self._waits.until_absent(name, within)

    # --- Offsets -----------------------------------------------------------------------------------------------------

    async def offsets(self, name: str) -> list[Offset]:
        """Return a connector's offsets, by partition of its source; empty before its first record."""
        async with self._free_to_read:
            answer = await self._ask_of(name, "GET", "offsets")
        return self._rest.read(answer, read_offsets)

    async def alter_offsets(self, name: str, offsets: Sequence[Offset]) -> None:
        """Set a stopped connector's offsets in the named partitions; others stay.

        :raises EngineRefused: the connector is not stopped, or refuses the offsets.
        """
        await self._change_offsets(name, "PATCH", write_offsets(offsets), Repeat.CHECKED)

    async def reset_offsets(self, name: str) -> None:
        """Reset all offsets of a stopped connector.

        :raises EngineRefused: the connector is not stopped, or refuses.
        """
        await self._change_offsets(name, "DELETE", None, Repeat.SAFE)

    async def _change_offsets(self, name: str, verb: str, body: object, repeat: Repeat) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + _LEFT_WITHIN
        while True:
            try:
                await self._ask_of(name, verb, "offsets", body=body, repeat=repeat)
                return
            except EngineRefused as error:
                found = await self.get(name)
                if found is not None and found.state is not ConnectorState.STOPPED:
                    raise EngineRefused(
                        f"the offsets of connector {name!r} cannot be changed while it is {found.state}",
                        fix="stop it first",
                    ) from error
                if _HAS_MEMBERS not in error.message or loop.time() > ends:
                    raise
            tell(f"waiting until the consumers of {name} have left their group")
            await asyncio.sleep(1)

    # --- Validation --------------------------------------------------------------------------------------------------

    async def validate(self, connector_class: str, config: Mapping[str, str]) -> Validation:
        """Return the workers' validation of a configuration, by field.

        :raises EngineRefused: the class is unknown, or a placeholder cannot be resolved.
        """
        sent = {**_VALIDATED, "connector.class": connector_class, **config}
        try:
            answer = await self._validate(connector_class, sent)
        except EngineRefused as error:
            refusal = error
        else:
            return self._read_errors(answer, sent)
        raise _hidden() if holds_secrets(sent) else refusal

    def _read_errors(self, answer: Answer, sent: Mapping[str, str]) -> Validation:
        found = self._rest.read(answer, lambda body: read_validation(body, sent))
        return Validation(tuple(FieldError(item.field, self._rest.quote(item.message)) for item in found.errors))

    async def resolves(
        self, placeholders: Sequence[str], connector_class: str, field: str
    ) -> dict[str, Problem | None]:
        """Return why a worker cannot resolve placeholders such as `${env:NAME}`; their values are discarded at once.

        :param field: a field of the class whose type is STRING, which a worker echoes as it is resolved.
        """
        problems = await asyncio.gather(*(self._resolve(item, connector_class, field) for item in placeholders))
        return dict(zip(placeholders, problems, strict=True))

    async def _resolve(self, placeholder: str, connector_class: str, field: str) -> Problem | None:
        # Text around it keeps the worker from trimming a final line break, which files often have.
        sent = {**_VALIDATED, "connector.class": connector_class, field: f"[{placeholder}]"}
        try:
            answer = await self._validate(connector_class, sent)
        except EngineRefused:
            # The same request without the placeholder tells an unreadable reference from a missing class.
            await self._validate(connector_class, {**sent, field: "replicator"})
            return Problem.UNREADABLE
        return self._rest.read(answer, lambda body: problem_of(placeholder, echo_of(field, body)[1:-1]))

    async def _validate(self, connector_class: str, sent: Mapping[str, str]) -> Answer:
        path = path_of("connector-plugins", connector_class, "config", "validate")
        return await self._ask("PUT", path, body=dict(sent), repeat=Repeat.CHECKED)

    async def _check(self, name: str, config: Mapping[str, str]) -> None:
        """Raise what validation finds wrong with a configuration."""
        found = await self.validate(config["connector.class"], {**config, "name": name})
        if found.errors:
            told = "; ".join(map(str, found.errors))
            raise EngineRefused(f"Kafka Connect refuses the configuration of connector {name!r}: {told}")

    async def _explained(self, name: str, config: Mapping[str, str], refusal: EngineRefused) -> EngineRefused:
        """Return the refusal of a configuration, without the engine's text if that may show a placeholder's value.

        Call it outside of the handler of the refusal, which would otherwise be shown as this error's context.
        """
        if not holds_secrets(config):
            return refusal
        await self._check(name, config)
        return _hidden()

    # --- Requests ----------------------------------------------------------------------------------------------------

    async def _ask(self, verb: str, path: str, *, body: object = None, repeat: Repeat = Repeat.SAFE) -> Answer:
        return await self._rest.call(verb, path, body=body, repeat=repeat, patience=self._patience)

    async def _refusal_of(self, verb: str, path: str, body: object, repeat: Repeat) -> EngineRefused | None:
        try:
            await self._ask(verb, path, body=body, repeat=repeat)
        except EngineRefused as error:
            return error
        return None

    async def _ask_of(
        self, name: str, verb: str, what: str, *, body: object = None, repeat: Repeat = Repeat.SAFE
    ) -> Answer:
        """Send a request about a connector that has to exist."""
        turns = Turns(self._patience)
        while (answer := await self._ask(verb, path_of("connectors", name, what), body=body, repeat=repeat)).missing:
            # A worker that has not read its whole log may say so of any connector; a read waits until it has.
            if await self.get(name) is None:
                raise self._missing(name)
            if not await turns.again():
                raise EngineUnavailable(f"Kafka Connect at {self._rest.address} knows {name!r} and does not find it")
        return answer

    async def _post(
        self, path: str, body: object, params: Mapping[str, str], is_so: Callable[[ReplicatorError], Awaitable[bool]]
    ) -> bool:
        """Post, and never retry before a read: a reply may be lost, and a 500 may answer a change that was done.

        :param is_so: reads, after an error, whether the requested state holds.
        :returns: True if the engine confirmed the change, False if a read found that the state holds.
        """
        turns, rebalance = Turns(self._patience), Turns(math.inf)
        while True:
            faulty = rebalancing = False
            try:
                answer = await self._rest.call(
                    "POST", path, body=body, params=params, repeat=Repeat.NEVER, patience=self._patience
                )
            except EngineUnavailable as unanswered:
                error: ReplicatorError = unanswered
            else:
                if answer.done:
                    return True
                error = self._rest.error(answer)
                faulty = httpx.codes.is_server_error(answer.status) and not answer.unforwarded
                rebalancing = answer.rebalancing and "rebalance" in answer.text  # a 409 also means that it exists
                if not faulty and isinstance(error, EngineRefused) and not answer.missing:
                    raise error
            if await is_so(error):
                return False
            if rebalancing and await self._rest.waited(rebalance):
                turns = Turns(self._patience)
                continue
            if not await (turns.again_after_fault() if faulty else turns.again()):
                raise error

    def _missing(self, name: str) -> StreamNotFound:
        return StreamNotFound(f"Kafka Connect at {self._rest.address} has no connector {name!r}")


def _hidden() -> EngineRefused:
    return EngineRefused(
        "Kafka Connect refuses the configuration; its text is not shown, since it may hold a secret",
        fix="read the worker's log, and check that each reference in the configuration can be resolved there",
    )
