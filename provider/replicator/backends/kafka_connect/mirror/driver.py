"""kafka-mirror: the Replicator of MirrorMaker 2."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from replicator.authref import Redactor
from replicator.backends.kafka.admin import RECENT
from replicator.backends.kafka_connect.cluster import ConnectCluster, ConnectorState
from replicator.backends.kafka_connect.mirror import preflight
from replicator.backends.kafka_connect.mirror.cluster_identity import (
    ClusterClients,
    ClusterPair,
    look,
    rebuilt,
    recorded_ids,
)
from replicator.backends.kafka_connect.mirror.connector_states import SEEN_WITHIN, ConnectorStates
from replicator.backends.kafka_connect.mirror.connectors import BACKEND, Parts, Side, build
from replicator.backends.kafka_connect.mirror.creating import Creating
from replicator.backends.kafka_connect.mirror.declarations import begins_at_the_beginning
from replicator.backends.kafka_connect.mirror.peer_clusters import HOLDS, PATIENCE, Mirrors, PeerClusters
from replicator.backends.kafka_connect.mirror.replay_executor import ReplayExecutor, given_up_all
from replicator.backends.kafka_connect.mirror.reservations import PendingChanges
from replicator.backends.kafka_connect.mirror.start_positions import StartPositions, recorded_starts
from replicator.backends.kafka_connect.mirror.status import DeployedStream
from replicator.backends.kafka_connect.mirror.stream_reader import StreamReader, differing, not_found, read_record
from replicator.backends.kafka_connect.mirror.surroundings import Surroundings
from replicator.backends.kafka_connect.mirror.topics import Naming, matching_topics
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.kafka_connect.rest import ConnectRest
from replicator.backends.kafka_connect.worker_access import access
from replicator.backends.settings import DEFAULT_ALIASES, ConnectConfig
from replicator.backends.shared.declarations import canonical, with_canonical_options
from replicator.backends.shared.ownership import may_remove, refuse_elsewhere, settle_owner
from replicator.backends.shared.single_flight import SingleFlight
from replicator.errors import RecordUnreadable, ReplayNotRetained, ReplicatorError
from replicator.model import Checkpoint, DesiredState, Owner, Stream, StreamStatus
from replicator.replicator import Adoption, Description, Finding, ReplayMethod, ReplayPlan, ReplayProgress, Severity

# Of the process: a program may have mirrors on several Connect clusters, and each cluster has a driver of its own.
_CLAIMS = PendingChanges(RECENT, HOLDS)
_PREVIEWED = PendingChanges(HOLDS, HOLDS)


def open_mirror(address: str, settings: ConnectConfig) -> KafkaMirror:
    """The mirrors of the Connect cluster at an address; raise `SecretNotFound` where the login cannot be read."""
    redactor = Redactor()
    aliases = {**DEFAULT_ALIASES, **settings.secret_providers}

    def rest(at: str) -> ConnectRest:
        return ConnectRest(access(at, settings, redactor, os.environ), redact=redactor)

    elsewhere = sorted({settings.address or address, *settings.regions.values()} - {address})
    peers = PeerClusters([ConnectCluster(rest(at), patience=PATIENCE) for at in elsewhere])
    return KafkaMirror(
        ConnectCluster(rest(address)),
        address,
        aliases=aliases,
        redactor=redactor,
        peers=peers,
        claims=_CLAIMS,
        previewed=_PREVIEWED,
    )


class KafkaMirror:
    """Streams from Kafka to Kafka, as connectors of one Connect cluster.

    :param address: the Connect cluster's.
    :param aliases: names of the worker's ConfigProviders, by scheme of reference.
    :param peers: other Connect clusters whose mirrors matter to those here.
    :param claims: what this process changes, here and elsewhere.
    :param previewed: what this process has looked at before a change.
    """

    kind = BACKEND

    def __init__(
        self,
        cluster: ConnectCluster,
        address: str,
        *,
        aliases: Mapping[str, str],
        redactor: Redactor,
        peers: PeerClusters,
        claims: PendingChanges,
        previewed: PendingChanges,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._cluster = cluster
        self._address = address
        self._peers = peers
        self._aliases = aliases
        self._ends = ClusterClients(environ, redactor)
        self._streams = StreamReader(cluster, self._ends, aliases)
        self._states = ConnectorStates(cluster, self._streams)
        self._starts = StartPositions(cluster, self._ends, self._streams)
        self._mirrors = Mirrors(cluster, RECENT)
        self._surroundings = Surroundings(self._mirrors, peers, claims)
        self._creating = Creating(cluster, self._streams, self._starts, self._surroundings, aliases)
        self._replay_executor = ReplayExecutor(self._ends, self._streams, self._states)
        self._identity = SingleFlight(cluster.identity, RECENT)
        self._claims = claims
        self._previewed = previewed

    # --- making and changing -----------------------------------------------------------------------------------------

    async def upsert_stream(self, stream: Stream) -> None:
        stream = with_canonical_options(stream.model_copy(update={"backend": self.kind}))
        async with self._cluster.slot(stream.name):
            self._mirrors.forget_error()
            self._identity.forget_error()
            deployed = None if await self._seems_new(stream) else await self._streams.get(stream.name)
            while not await self._make_it_so(stream, deployed):
                deployed = await self._streams.get(stream.name)

    async def _seems_new(self, stream: Stream) -> bool:
        """Whether a listing of the last second has no such stream. Connect itself refuses a name that is taken."""
        updated = stream.owner is not None and stream.owner.claim
        listed = (await self._mirrors.recent()).listed
        return not updated and stream.name not in listed.streams and stream.name not in listed.unreadable

    async def _make_it_so(self, stream: Stream, deployed: DeployedStream | None) -> bool:
        """Make or change a stream; False, and nothing was done, where there is one that `deployed` does not know."""
        if deployed is None:
            refuse_elsewhere(stream.name, stream.owner, await self.identity())
        owner = settle_owner(deployed.record.stream if deployed else None, stream)
        wanted = stream.model_copy(update={"owner": owner, "backend": self.kind})
        claim = await self._claim_of(wanted, deployed)
        if deployed is not None and not deployed.record.creating and _is_as_declared(deployed.record, claim):
            declared = deployed.record.stream.model_copy(update={"owner": wanted.recorded().owner})
            await self._reconcile(deployed, deployed.record.model_copy(update={"stream": declared}))
            return True
        with self._claims.claim(self._address, claim) as claimed:
            return await self._change(wanted, deployed, claimed)

    async def _change(self, wanted: Stream, deployed: DeployedStream | None, claimed: Sequence[StreamRecord]) -> bool:
        """Make a stream, or give it another declaration; False as `Creating.create` says it.

        :param claimed: other streams that are changed meanwhile.
        """
        side, seen = await (self._checked if deployed else self._looked)(wanted, claimed, deployed)
        record = await self._record_of(wanted, side, seen, deployed)
        if deployed is None or deployed.record.creating:
            return await self._creating.create(record, side, deployed)
        if _moves(deployed.record, record):
            settled = self._replay_executor.settled(deployed, await self._streams.positions(deployed.record.stream))
            ended = given_up_all(settled, "the stream was moved meanwhile")
            fresh = await self._record_of(wanted, side, seen, None)
            starts = recorded_starts(await self._starts.earliest(wanted), {})
            record = fresh.model_copy(update={"replays": ended.replays, "starts": starts})
            await self._states.stop(deployed)
            await self._cluster.reset_offsets(wanted.name)
        else:
            await self._states.before_change(deployed, wanted)
            await self._states.pause_first(deployed, wanted)
        await self._apply(deployed, build(record, side, self._aliases))
        await self._states.set_state(wanted)
        return True

    async def _claim_of(self, stream: Stream, deployed: DeployedStream | None) -> StreamRecord:
        seen = await look(self._ends, stream, recorded_ids(deployed.record if deployed else None, stream))
        return seen.claim(stream)

    async def _checked(
        self, stream: Stream, claimed: Sequence[StreamRecord] = (), deployed: DeployedStream | None = None
    ) -> tuple[Side, ClusterPair]:
        """What is refused before anything is changed."""
        side, seen = await self._looked(stream, claimed, deployed)
        await preflight.refuse_invalid(
            self._cluster, build(StreamRecord(stream=stream), side, self._aliases).source, stream
        )
        return side, seen

    async def _looked(
        self, stream: Stream, claimed: Sequence[StreamRecord] = (), deployed: DeployedStream | None = None
    ) -> tuple[Side, ClusterPair]:
        """The same but for the engine's own checks, which the creation of a connector begins with.

        :param deployed: what there is. If it is a claim itself, the end of its creation decides between it and others.
        """
        routes = await self._surroundings.lately(stream, claimed)
        if deployed is not None and deployed.record.creating:
            routes = [route for route in routes if route.settled]
        worker = (await self._identity.get()).kafka_cluster_id
        recorded = recorded_ids(deployed.record if deployed else None, stream)
        return await preflight.check(self._cluster, worker, self._ends, stream, routes, self._aliases, recorded)

    async def _record_of(
        self, stream: Stream, side: Side, seen: ClusterPair, deployed: DeployedStream | None
    ) -> StreamRecord:
        """The record to write.

        :param deployed: what there is and goes on.
        """
        topics: dict[str, str] = {}
        if seen.id("source"):
            brokers = await self._ends.brokers(stream, "source")
            found = await brokers.describe(matching_topics(stream, await brokers.topics()))
            topics = {name: topic.id for name, topic in found.items()}
        known = deployed.record if deployed else StreamRecord(stream=stream)
        was, now = _places(known.stream), _places(stream)
        return StreamRecord(
            stream=stream,
            source_cluster=seen.id("source") or (known.source_cluster if was[0] == now[0] else None),
            destination_cluster=seen.id("destination") or (known.destination_cluster if was[1] == now[1] else None),
            side=side.value,
            topics={**topics, **known.topics},  # positions are of the topics that were there when they were made
            replays=known.replays,
            starts=known.starts,
        )

    async def _reconcile(self, deployed: DeployedStream, record: StreamRecord) -> None:
        """The declaration is the same: put right what the engine's side says otherwise, and nothing else."""
        await self._states.before_change(deployed, record.stream)
        parts = build(record, deployed.side, self._aliases)
        if record == deployed.record:
            parts = parts.with_record_of(deployed.connector.config)
        await self._states.pause_first(deployed, record.stream)
        await self._apply(deployed, parts)
        for connector in deployed.all:
            if connector.failed and record.stream.desired_state is DesiredState.RUNNING:
                await self._cluster.restart_failed(connector.name)
        await self._states.set_state(record.stream)

    async def _apply(self, deployed: DeployedStream, parts: Parts) -> None:
        """Write the configurations that differ."""
        there = {connector.name: connector for connector in deployed.all}
        for name in there.keys() - parts.others.keys() - {deployed.name}:
            await self._cluster.delete(name, SEEN_WITHIN)
        for name, config in {deployed.name: parts.source, **parts.others}.items():
            if name not in there:
                await self._creating.create_part(name, config)
            elif differing(there[name], config):
                await self._cluster.put_config(name, config, SEEN_WITHIN)

    async def adopt_stream(self, stream: Stream, *, dry_run: bool = False) -> Adoption:
        known = await self._streams.get(stream.name) is not None
        if not known and not dry_run:
            await self.upsert_stream(stream.model_copy(update={"owner": None}))
        elif not known:
            await self._checked(stream)
        return Adoption(known=known)

    # --- removing ----------------------------------------------------------------------------------------------------

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        async with self._cluster.slot(name):
            connector, parts = await asyncio.gather(self._cluster.look(name), self._streams.parts(name))
            deployed = None if connector is None else DeployedStream(connector, read_record(connector), parts)
            if deployed is None:
                refuse_elsewhere(name, owner, await self.identity())
            if deployed is not None and not may_remove(deployed.record.stream, owner):
                return False
            for part in parts:  # also those that somebody left who deleted the one with the record
                await self._cluster.delete(part.name, SEEN_WITHIN)
            token = None
            if deployed is not None:
                await self._remove(deployed)
                token = deployed.record.stream.owner.token if deployed.record.stream.owner else None
            self._claims.drop(self._address, name, token)
            return True

    async def _remove(self, deployed: DeployedStream) -> None:
        """Remove the connector with the record.

        What a cut leaves has no offsets, with which MirrorMaker 2 would begin at the beginning. So a stream that begins
        elsewhere is one whose start is to be set again before they go.
        """
        if not begins_at_the_beginning(deployed.record.stream):
            await self._cluster.stop(deployed.name, SEEN_WITHIN)
            await self._states.put_record(deployed, deployed.record.model_copy(update={"creating": True}))
        await self._cluster.delete(deployed.name, SEEN_WITHIN)

    # --- pausing -----------------------------------------------------------------------------------------------------

    async def pause(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._states.pause(await self._streams.found(name))

    async def resume(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._states.resume(await self._streams.found(name))

    # --- looking -----------------------------------------------------------------------------------------------------

    async def list_streams(self) -> list[Stream]:
        return [self._streams.as_found(deployed) for deployed in (await self._streams.listing()).streams.values()]

    async def get_status(self, name: str) -> StreamStatus:
        found = await self.describe([name])
        if not found:
            raise not_found(name)
        return found[0].status

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        return await self._identified(await self._described(names))

    async def _identified(self, found: list[Description]) -> list[Description]:
        """Name the Connect cluster, by which a state knows an address that leads elsewhere."""
        own = {"connectCluster": await self.identity()}
        return [item.model_copy(update={"engine_objects": {**item.engine_objects, **own}}) for item in found]

    async def _described(self, names: Sequence[str] | None) -> list[Description]:
        if names is not None and len(names) == 1:
            try:
                deployed = await self._streams.get(names[0])
            except RecordUnreadable as error:
                return [Description.unreadable(names[0], error)]
            return await self._streams.describe([deployed] if deployed else [])
        listed = await self._streams.listing()
        wanted = [deployed for name, deployed in listed.streams.items() if names is None or name in names]
        return await self._streams.describe(wanted) + listed.failures(names)

    async def overview(self) -> list[Description]:
        return await self._identified(await self._streams.overview())

    async def identity(self) -> str | None:
        return (await self._identity.get()).kafka_cluster_id

    async def preflight(self, stream: Stream) -> list[Finding]:
        stream = with_canonical_options(stream.model_copy(update={"backend": self.kind}))
        await self._cluster.identity()  # a worker that is away is no finding about the stream
        deployed = None
        try:
            deployed = await self._streams.get(stream.name)
            if deployed is None:
                refuse_elsewhere(stream.name, stream.owner, await self.identity())
            settle_owner(deployed.record.stream if deployed else None, stream)
            claim = await self._claim_of(stream, deployed)
            with self._previewed.claim(self._address, claim) as previewed:
                claimed = [*previewed, *self._claims.of_others(self._address, stream.name)]
                _, seen = await self._checked(stream, claimed, deployed)
            if deployed is None:
                await self._starts.find(stream)
            elif not deployed.record.creating and not _moves(deployed.record, claim):
                await self._states.refuse_change(deployed, stream)
        except ReplicatorError as error:
            return [Finding.of(error, Severity.ERROR)]
        found = await preflight.warnings(self._ends, stream, seen, new=deployed is None)
        found += await self._surroundings.doubts(claim)
        same_places = deployed is not None and _places(deployed.record.stream) == _places(stream)
        if deployed is not None and same_places and (told := rebuilt(deployed.record, seen)):
            text = f"{told}; so all that the source retains is copied again"
            found.append(Finding(severity=Severity.WARNING, code=ReplayNotRetained.code, message=text))
        return found

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
            with self._streams.busy(name, "a replay sets its offsets back") if runs else nullcontext():
                return await self._replay_executor.replay(deployed, start, key, method, target)

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        return await self._replay_executor.progress(await self._streams.found(name), key)

    async def plan_replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayPlan:
        return await self._replay_executor.plan(await self._streams.found(name), start, method, target)

    async def aclose(self) -> None:
        await self._mirrors.aclose()
        await self._peers.aclose()


def _moves(old: StreamRecord, new: StreamRecord) -> bool:
    """Whether positions of before mean nothing any more: another source, or topics that are empty at first."""
    if Naming.of(old.stream) != Naming.of(new.stream):
        return True
    (source_was, destination_was), (source_now, destination_now) = _places(old.stream), _places(new.stream)
    return _is_another(source_was, old.source_cluster, source_now, new.source_cluster) or _is_another(
        destination_was, old.destination_cluster, destination_now, new.destination_cluster
    )


def _places(stream: Stream) -> tuple[str, str]:
    declared = canonical(stream)
    return declared.source.uri, declared.destination.uri


def _is_another(was: str, before: str | None, now: str, after: str | None) -> bool:
    """Whether a cluster is another one, by its id; by its address where the id is not known."""
    return before != after if before and after else was != now


def _is_as_declared(record: StreamRecord, claim: StreamRecord) -> bool:
    """Whether a record is of the same declaration, and of clusters that still answer at its addresses."""
    declared, wanted = (
        canonical(item.stream.recorded()).model_copy(update={"owner": None}) for item in (record, claim)
    )
    return declared == wanted and not _moves(record, claim)
