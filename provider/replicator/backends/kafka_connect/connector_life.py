"""The life cycle of streams on a Connect cluster, the same for every backend of the family."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Generic

from replicator.backends.kafka_connect.adoption import is_unmanaged, unmanaged
from replicator.backends.kafka_connect.cluster import ConnectCluster, Connector, ConnectorState
from replicator.backends.kafka_connect.connector_states import SEEN_WITHIN, ConnectorStates
from replicator.backends.kafka_connect.creating import Creating
from replicator.backends.kafka_connect.deployed import DeployedStream, Parts, differing, not_found, read_record
from replicator.backends.kafka_connect.failures import Failures
from replicator.backends.kafka_connect.kept_settings import carry_over, kept_of
from replicator.backends.kafka_connect.recipe import Facts, Positions, Recipe, Start
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.kafka_connect.replay_executor import ReplayExecutor, given_up_all
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.backends.kafka_connect.stream_store import StreamStore
from replicator.backends.kafka_connect.worker_log import traces_of
from replicator.backends.shared.declarations import canonical, with_canonical_options
from replicator.backends.shared.ownership import may_remove, refuse_elsewhere, settle_owner
from replicator.backends.shared.projections import Projections
from replicator.errors import (
    EngineRefused,
    EngineUnavailable,
    NotOurs,
    RecordUnreadable,
    ReplicatorError,
    StreamNotFound,
)
from replicator.model import Checkpoint, DesiredState, Owner, Stream, StreamState, StreamStatus
from replicator.replicator import (
    Adoption,
    Description,
    EndHints,
    Finding,
    LogLines,
    Proposal,
    ReplayMethod,
    ReplayPlan,
    ReplayProgress,
    Severity,
    Unmanaged,
)


class ConnectorLife(Projections, Generic[Facts, Start, Positions]):
    """A Replicator over one Connect cluster.

    :param address: the Connect cluster's.
    :param recipe: the backend's own part.
    :param claims: the streams that this process is changing, in any cluster.
    :param previewed: the streams that this process has previewed.
    """

    def __init__(
        self,
        cluster: ConnectCluster,
        address: str,
        recipe: Recipe[Facts, Start, Positions],
        *,
        claims: PendingChanges,
        previewed: PendingChanges,
    ) -> None:
        self.kind = recipe.kind
        self._cluster = cluster
        self._address = address
        self._recipe = recipe
        self._streams = StreamStore(cluster, recipe.kind, recipe.part_names, recipe.parts)
        self._states = ConnectorStates(cluster, self._streams, recipe)
        self._creating = Creating(cluster, self._streams, recipe)
        self._replays = ReplayExecutor(self._streams, self._states, recipe)
        self._failures = Failures()
        self._busy: dict[str, str] = {}
        self._claims = claims
        self._previewed = previewed

    # --- creating and changing ---------------------------------------------------------------------------------------

    async def upsert_stream(self, stream: Stream) -> None:
        stream = with_canonical_options(stream.model_copy(update={"backend": self.kind}))
        async with self._cluster.slot(stream.name):
            self._recipe.forget_errors()
            self._cluster.recent_identity.forget_error()
            deployed = None if await self._seems_new(stream) else await self._streams.get(stream.name)
            while not await self._upsert(stream, deployed):
                deployed = await self._streams.get(stream.name)

    async def _seems_new(self, stream: Stream) -> bool:
        """Tell whether a recent listing lacks the stream. Connect itself refuses a name that exists.

        Objects outside Connect would be refused before that, as those of another stream.
        """
        if self._recipe.has_objects:
            return False
        updated = stream.owner is not None and stream.owner.claim
        listed = await self._recipe.recent()
        return not updated and stream.name not in listed.streams and stream.name not in listed.unreadable

    async def _upsert(self, stream: Stream, deployed: DeployedStream | None) -> bool:
        """Create or change a stream; return False, without an effect, if one exists that `deployed` does not know."""
        if deployed is None:
            refuse_elsewhere(stream.name, stream.owner, await self.identity())
        owner = settle_owner(deployed.record.stream if deployed else None, stream)
        wanted = stream.model_copy(update={"owner": owner, "backend": self.kind})
        claim = await self._recipe.claim(wanted, deployed)
        if deployed is not None and not deployed.record.creating and self._is_as_declared(deployed.record, claim):
            declared = deployed.record.stream.model_copy(update={"owner": wanted.recorded().owner})
            await self._reconcile(deployed, deployed.record.model_copy(update={"stream": declared}))
            return True
        with self._claims.claim(self._address, claim) as claimed:
            return await self._change(wanted, deployed, claimed)

    def _is_as_declared(self, record: StreamRecord, claim: StreamRecord) -> bool:
        """Tell whether a record has the same declaration, and its clusters still answer at its addresses."""
        declared, wanted = (
            canonical(item.stream.recorded()).model_copy(update={"owner": None}) for item in (record, claim)
        )
        return declared == wanted and not self._recipe.moves(record, claim)

    async def _change(self, wanted: Stream, deployed: DeployedStream | None, claimed: Sequence[StreamRecord]) -> bool:
        """Create a stream, or apply another declaration; return False as `Creating.create` does.

        :param claimed: other streams that are being changed.
        """
        facts = await self._recipe.look(wanted, claimed, deployed)
        if deployed is not None and not self._recipe.is_writable(facts):
            return await self._pause_only(deployed, wanted)
        if deployed is not None:  # a creation starts with the worker's checks
            await self._recipe.validate(wanted, facts, deployed)
        record = await self._recipe.record(wanted, facts, deployed)
        if deployed is None or deployed.record.creating:
            with self._busy_with(wanted.name, "it is being created: its connectors are not started yet"):
                return await self._creating.create(record, facts, deployed)
        if self._recipe.moves(deployed.record, record):
            settled = self._replays.settled(deployed, await self._recipe.positions(deployed.record))
            ended = given_up_all(settled, "the stream was moved meanwhile")
            fresh = await self._recipe.moved(await self._recipe.record(wanted, facts, None), deployed.record)
            record = fresh.model_copy(update={"replays": ended.replays})
            await self._states.stop(deployed)
            if self._recipe.has_objects:
                return await self._create_elsewhere(deployed, record, facts)
            await self._cluster.reset_offsets(wanted.name)
            deployed = replace(deployed, record=deployed.record.model_copy(update={"kept": ()}))
        else:
            await self._states.before_change(deployed, wanted)
            await self._states.pause_first(deployed, wanted)
            if self._recipe.must_stop(deployed.record, record):
                return await self._change_stopped(deployed, record)
        await self._rewrite(deployed, record)
        await self._states.set_state(wanted)
        return True

    async def _rewrite(self, deployed: DeployedStream, record: StreamRecord) -> None:
        """Change the objects outside Connect, and then the configurations."""
        record = await self._recipe.alter(deployed.record, record)
        parts = self._recipe.parts(record)
        if deployed.record.kept:
            carried = carry_over(
                deployed, self._recipe.parts(deployed.record).main, parts.main, self._recipe.kept_together
            )
            record = record.model_copy(update={"kept": carried.kept})
            parts = Parts({**carried.config, **record.keys(self.kind)}, parts.others)
        if record == deployed.record:
            parts = parts.with_record_of(deployed.connector.config)
        await self._apply(deployed, parts)
        await self._recipe.follow_up(record)

    async def _change_stopped(self, deployed: DeployedStream, record: StreamRecord) -> bool:
        """Change a stream whose connector must not run meanwhile; where that fails, start it as it was."""
        ran = deployed.connector.state is ConnectorState.RUNNING
        await self._states.stop(deployed)
        try:
            await self._rewrite(deployed, record)
        except ReplicatorError:
            if ran:
                with suppress(ReplicatorError):  # the first error tells more
                    await self._states.start_all(await self._streams.found(deployed.name))
            raise
        await self._states.set_state(record.stream)
        return True

    async def _pause_only(self, deployed: DeployedStream, wanted: Stream) -> bool:
        """Pause a stream whose record cannot be written now; the record goes on to say what was declared before."""
        if wanted.desired_state is DesiredState.PAUSED:
            await self._states.pause(deployed)
            before = deployed.record.stream.model_copy(update={"desired_state": DesiredState.PAUSED, "owner": None})
            if canonical(before.recorded()) == canonical(wanted.recorded()).model_copy(update={"owner": None}):
                return True
        raise EngineUnavailable(
            "the worker takes no change of the stream while the source does not answer",
            stream=wanted.name,
            property="source.uri",
            fix="run pulumi up again when the source answers; a pause alone, or replicator pause, works now",
        )

    async def _create_elsewhere(self, deployed: DeployedStream, record: StreamRecord, facts: Facts) -> bool:
        """Make a stream's objects in another place. The next change finishes what is interrupted, as a creation."""
        record = record.model_copy(update={"creating": True})
        deployed = await self._states.put_record(deployed, record)
        await self._cluster.reset_offsets(deployed.name)
        with self._busy_with(deployed.name, "it moves to another place: its connectors are not started yet"):
            return await self._creating.create(record.model_copy(update={"creating": False}), facts, deployed)

    async def _reconcile(self, deployed: DeployedStream, record: StreamRecord) -> None:
        """Correct only what differs on the engine's side from an unchanged declaration."""
        await self._states.before_change(deployed, record.stream)
        await self._states.pause_first(deployed, record.stream)
        await self._rewrite(deployed, record)
        for connector in deployed.all:
            if connector.failed and record.stream.desired_state is DesiredState.RUNNING:
                await self._cluster.restart_failed(connector.name)
        await self._states.set_state(record.stream)

    async def _apply(self, deployed: DeployedStream, parts: Parts) -> None:
        """Write the configurations that differ."""
        there = {connector.name: connector for connector in deployed.all}
        for name in there.keys() - parts.others.keys() - {deployed.name}:
            await self._cluster.delete(name, SEEN_WITHIN)
        for name, config in {deployed.name: parts.main, **parts.others}.items():
            if name not in there:
                await self._creating.create_part(name, config)
            elif differing(there[name], config):
                await self._cluster.put_config(name, config, SEEN_WITHIN)

    # --- adopting ----------------------------------------------------------------------------------------------------

    async def unmanaged(self) -> list[Unmanaged]:
        return unmanaged((await self._cluster.listing()).values(), self._recipe.connector_classes)

    async def propose(self, name: str, source: EndHints, destination: EndHints) -> Proposal:
        connector = await self._cluster.look(name)
        if connector is None:
            raise _no_connector(name)
        if not is_unmanaged(connector):
            raise NotOurs("it belongs to a stream already", stream=name, fix="see replicator list")
        with _naming(name):
            found = await self._recipe.propose(connector, source, destination)
            _, record = await self._adopted(connector, found.stream)
        kept = {key for key in record.kept if key in connector.config} - found.stream.options.keys()
        return found.model_copy(update={"kept": tuple(sorted(kept))})

    async def adopt_stream(self, stream: Stream, *, dry_run: bool = False) -> Adoption:
        stream = with_canonical_options(stream.model_copy(update={"owner": None, "backend": self.kind}))
        async with self._cluster.slot(stream.name):
            connector = await self._cluster.look(stream.name)
            if connector is not None and is_unmanaged(connector):
                with _naming(stream.name):
                    deployed, record = await self._adopted(connector, stream)
                    if dry_run:
                        return Adoption(known=False)
                    now = await self._cluster.get(stream.name)
                    if now is not None and is_unmanaged(now):
                        _refuse_other_config(connector, now)
                        main = self._recipe.parts(record).main
                        config = carry_over(deployed, main, main, ()).config
                        await self._cluster.put_config(stream.name, config, SEEN_WITHIN)
                        return Adoption(known=False)
        if await self._streams.get(stream.name) is None:
            raise _no_connector(stream.name)
        return Adoption(known=True)

    async def _adopted(self, connector: Connector, stream: Stream) -> tuple[DeployedStream, StreamRecord]:
        """Return a connector as a stream, and the record to write; raise what a change of that stream would raise."""
        deployed = DeployedStream(connector, await self._recipe.adopted(connector, stream))
        record = deployed.record
        deployed = replace(deployed, record=record.model_copy(update={"kept": tuple(connector.config)}))
        claim = await self._recipe.claim(stream, deployed)
        with self._claims.claim(self._address, claim) as claimed:
            facts = await self._recipe.look(stream, claimed, deployed)
            record = await self._recipe.record(stream, facts, deployed)
            kept = kept_of(deployed, self._recipe.parts(record).main, self._recipe.never_kept)
            record = record.model_copy(update={"kept": kept})
            deployed = replace(deployed, record=record)
            await self._recipe.refuse_adoption(connector, record)
            await self._recipe.validate(stream, facts, deployed)
            await self._recipe.refuse_gap(record)
        return deployed, record

    # --- removing ----------------------------------------------------------------------------------------------------

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        async with self._cluster.slot(name):
            connector, parts = await asyncio.gather(self._cluster.look(name), self._streams.parts(name))
            deployed = None
            if connector is None:
                refuse_elsewhere(name, owner, await self.identity())
            else:
                deployed = DeployedStream(connector, read_record(connector, self.kind), parts)
                if not may_remove(deployed.record.stream, owner):
                    return False
                await self._recipe.refuse_removal(deployed.record)
                await self._recipe.drain(deployed)
            for part in parts:  # also those that remained when the one with the record was deleted by hand
                await self._cluster.delete(part.name, SEEN_WITHIN)
            token = None
            if deployed is not None:
                await self._remove(deployed)
                token = deployed.record.stream.owner.token if deployed.record.stream.owner else None
            self._claims.drop(self._address, name, token)
            return True

    async def _remove(self, deployed: DeployedStream) -> None:
        """Remove the connector with the record.

        An interruption leaves a stream without offsets, which would start at the engine's default. So a stream with
        another start position is first marked as one whose start position is not set.
        """
        if self._recipe.needs_start(deployed.record.stream):
            await self._cluster.stop(deployed.name, SEEN_WITHIN)
            await self._states.put_record(deployed, deployed.record.model_copy(update={"creating": True}))
        await self._recipe.dispose(deployed.record)
        await self._cluster.delete(deployed.name, SEEN_WITHIN)

    # --- pausing -----------------------------------------------------------------------------------------------------

    async def pause(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._states.pause(await self._streams.found(name))

    async def resume(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._states.resume(await self._streams.found(name))

    # --- reading -----------------------------------------------------------------------------------------------------

    async def log(self, name: str, *, after: str | None = None, lines: int = 100) -> LogLines:
        return traces_of(await self._streams.found(name), after, lines)

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        return await self._identified(await self._described(names))

    async def _described(self, names: Sequence[str] | None) -> list[Description]:
        if names is not None and len(names) == 1:
            try:
                deployed = await self._streams.get(names[0])
            except RecordUnreadable as error:
                return [Description.unreadable(names[0], error)]
            return await self._measured([deployed] if deployed else [])
        listed = await self._streams.listing()
        wanted = [deployed for name, deployed in listed.streams.items() if names is None or name in names]
        return await self._measured(wanted) + listed.failures(names)

    async def _measured(self, streams: Sequence[DeployedStream]) -> list[Description]:
        counts = {deployed.name: self._failures.count(deployed) for deployed in streams}
        return [
            item.model_copy(update={"status": self._with_operation(item.status, counts[item.status.name])})
            for item in await self._recipe.measure(streams)
        ]

    def _with_operation(self, status: StreamStatus, failures: int | None) -> StreamStatus:
        """Add the failures of the last hour, and the operation for which a stream is temporarily stopped."""
        changes: dict[str, object] = {"errors_last_hour": failures}
        if status.state is StreamState.PAUSED and (what := self._busy.get(status.name)):
            changes |= {"state": StreamState.CATCHING_UP, "last_error": what}
        return status.model_copy(update=changes)

    @contextmanager
    def _busy_with(self, name: str, what: str) -> Iterator[None]:
        """Make statuses inside this block name the operation on the stream, rather than say that it is paused."""
        self._busy[name] = what
        try:
            yield
        finally:
            self._busy.pop(name, None)

    async def _identified(self, found: list[Description]) -> list[Description]:
        """Name the Connect cluster, so that a state detects an address that leads to another one."""
        own = {"connectCluster": await self.identity()}
        return [item.model_copy(update={"engine_objects": {**item.engine_objects, **own}}) for item in found]

    async def overview(self) -> list[Description]:
        listed = await self._streams.listing()
        outlines = [self._recipe.outline(deployed) for deployed in listed.streams.values()]
        return await self._identified(outlines + listed.failures())

    def not_found(self, name: str) -> StreamNotFound:
        return not_found(name)

    async def identity(self) -> str | None:
        return (await self._cluster.recent_identity.get()).kafka_cluster_id

    async def preflight(self, stream: Stream) -> list[Finding]:
        stream = with_canonical_options(stream.model_copy(update={"backend": self.kind}))
        await self._cluster.identity()  # an unreachable worker is no finding about the stream
        deployed = None
        try:
            deployed = await self._streams.get(stream.name)
            if deployed is None:
                refuse_elsewhere(stream.name, stream.owner, await self.identity())
            settle_owner(deployed.record.stream if deployed else None, stream)
            claim = await self._recipe.claim(stream, deployed)
            with self._previewed.claim(self._address, claim) as previewed:
                claimed = [*previewed, *self._claims.of_others(self._address, stream.name)]
                facts = await self._recipe.look(stream, claimed, deployed)
                await self._recipe.validate(stream, facts, deployed)
            if deployed is None:
                await self._recipe.find_start(stream)
            elif not deployed.record.creating and not self._recipe.moves(deployed.record, claim):
                await self._states.refuse_change(deployed, stream)
        except ReplicatorError as error:
            return [Finding.of(error, Severity.ERROR)]
        return await self._recipe.warnings(stream, facts, claim, deployed)

    # --- replaying ---------------------------------------------------------------------------------------------------

    async def replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        key: str,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayProgress:
        async with self._cluster.slot(name):
            deployed = await self._streams.found(name)
            runs = deployed.connector.state is ConnectorState.RUNNING
            with self._busy_with(name, "a replay sets its offsets back") if runs else nullcontext():
                return await self._replays.replay(deployed, start, key, method, target)

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        return await self._replays.progress(await self._streams.found(name), key)

    async def list_replays(self, name: str) -> list[ReplayProgress]:
        return await self._replays.every(await self._streams.found(name))

    async def plan_replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayPlan:
        return await self._replays.plan(await self._streams.found(name), start, method, target)

    async def aclose(self) -> None:
        await self._recipe.aclose()


def _no_connector(name: str) -> StreamNotFound:
    return StreamNotFound("the Connect cluster has no connector of this name to take over", stream=name)


def _refuse_other_config(before: Connector, now: Connector) -> None:
    """Raise if a connector was changed during the checks. Connect itself compares nothing when it is changed."""
    if now.config != before.config:
        raise EngineRefused("the connector was changed while the adoption was checked", fix="run the command again")


@contextmanager
def _naming(stream: str) -> Iterator[None]:
    """Give errors of this block the stream's name."""
    try:
        yield
    except ReplicatorError as error:
        error.stream = error.stream or stream
        raise
