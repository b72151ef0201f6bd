"""The recipe of a mirror: what MirrorMaker 2 adds to the life cycle of connectors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from replicator.authref import Redactor
from replicator.backends.kafka.endpoint import kafka_endpoint
from replicator.backends.kafka.positions import Offsets, read, write
from replicator.backends.kafka_connect.cluster import RECENT, ConnectCluster, Connector
from replicator.backends.kafka_connect.deployed import DeployedStream, Listed, Parts
from replicator.backends.kafka_connect.kept_settings import carry_over, keeps_login
from replicator.backends.kafka_connect.mirror import adoption, preflight
from replicator.backends.kafka_connect.mirror.cluster_identity import (
    AGAIN,
    ClusterPair,
    MirrorClients,
    look,
    rebuilt,
    recorded_ids,
)
from replicator.backends.kafka_connect.mirror.connector_configs import BACKEND, WORKER_CLUSTER, Side, build, part_names
from replicator.backends.kafka_connect.mirror.declarations import begins_at_the_beginning
from replicator.backends.kafka_connect.mirror.foreign_mirrors import CLASSES
from replicator.backends.kafka_connect.mirror.peer_clusters import Mirrors, PeerClusters
from replicator.backends.kafka_connect.mirror.replay_planner import refuse_gaps, resolve
from replicator.backends.kafka_connect.mirror.source_view import SourceView
from replicator.backends.kafka_connect.mirror.start_positions import StartPositions, recorded_starts
from replicator.backends.kafka_connect.mirror.status import as_stored, is_done
from replicator.backends.kafka_connect.mirror.stream_reader import StreamReader
from replicator.backends.kafka_connect.mirror.surroundings import Surroundings
from replicator.backends.kafka_connect.mirror.topics import Naming, matching_topics, names
from replicator.backends.kafka_connect.placeholders import placeholders
from replicator.backends.kafka_connect.recipe import ConnectOnly, Prepared, ResolvedReplay
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord, is_another
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.backends.shared.declarations import canonical
from replicator.errors import ReplayNotRetained, ReplayRefused, ReplicatorError
from replicator.model import Checkpoint, End, Stream
from replicator.replicator import Description, EndHints, Finding, Proposal, ReplayMethod, Severity


class Facts(NamedTuple):
    """The results of the checks before a change.

    :param side: the end on whose cluster the workers are.
    :param seen: both clusters.
    """

    side: Side
    seen: ClusterPair


class MirrorRecipe(ConnectOnly[Facts]):
    """The recipe for the mirrors of one Connect cluster.

    :param aliases: names of the worker's config providers, by `authRef` scheme.
    :param peers: other Connect clusters whose mirrors may conflict with those here.
    :param claims: the streams that this process is changing, in any cluster.
    :param environ: the environment for `env://` references of the provider's own connections to brokers.
    """

    kind = BACKEND
    connector_classes = CLASSES
    kept_together = (*adoption.LOGINS.values(), adoption.TOPICS)
    never_kept = ()

    def __init__(
        self,
        cluster: ConnectCluster,
        *,
        aliases: Mapping[str, str],
        redactor: Redactor,
        peers: PeerClusters,
        claims: PendingChanges,
        environ: Mapping[str, str],
    ) -> None:
        self._cluster = cluster
        self._aliases = aliases
        self._peers = peers
        self._ends = MirrorClients(environ, redactor)
        self._reader = StreamReader(cluster, self._ends, aliases)
        self._starts = StartPositions(cluster, self._ends, self._reader)
        self._mirrors = Mirrors(cluster, RECENT)
        self._surroundings = Surroundings(self._mirrors, peers, claims)

    # --- A declaration as connectors ---------------------------------------------------------------------------------

    def part_names(self, name: str) -> Sequence[str]:
        return part_names(name)

    def parts(self, record: StreamRecord) -> Parts:
        return build(record, self._aliases)

    def moves(self, old: StreamRecord, new: StreamRecord) -> bool:
        return moves(old, new)

    def needs_start(self, stream: Stream) -> bool:
        return not begins_at_the_beginning(stream)

    # --- adoption ----------------------------------------------------------------------------------------------------

    async def propose(self, connector: Connector, source: EndHints, destination: EndHints) -> Proposal:
        return await adoption.propose(self._ends, connector, source, destination)

    async def adopted(self, connector: Connector, stream: Stream) -> StreamRecord:
        return adoption.adopted(connector, stream)

    async def refuse_adoption(self, connector: Connector, record: StreamRecord) -> None:
        pass  # `adopted` and `look` see all there is

    # --- checks before a change --------------------------------------------------------------------------------------

    async def recent(self) -> Listed:
        return (await self._mirrors.recent()).listed

    def forget_errors(self) -> None:
        self._mirrors.forget_error()

    async def claim(self, stream: Stream, deployed: DeployedStream | None) -> StreamRecord:
        seen = await look(self._ends, stream, recorded_ids(deployed.record if deployed else None, stream))
        return seen.claim(stream)

    async def look(self, stream: Stream, claimed: Sequence[StreamRecord], deployed: DeployedStream | None) -> Facts:
        routes = await self._surroundings.lately(stream, claimed)
        if deployed is not None and deployed.record.creating:  # it is itself a claim, and `win` decides between claims
            routes = [route for route in routes if route.settled]
        worker = (await self._cluster.recent_identity.get()).kafka_cluster_id
        wanted = self._logins(stream, deployed)
        recorded = recorded_ids(deployed.record if deployed else None, stream)
        return Facts(*await preflight.check(self._cluster, worker, self._ends, stream, routes, wanted, recorded))

    def _logins(self, stream: Stream, deployed: DeployedStream | None) -> dict[End, dict[str, str]]:
        """Return the placeholders of each end that a connector is to have, and may not have yet."""
        old = deployed.record.stream if deployed else stream
        return {
            end: placeholders(kafka_endpoint(getattr(stream, end), end).ref, self._aliases, f"{end}.authRef")
            for end, keys in adoption.LOGINS.items()
            if not keeps_login(deployed, keys, getattr(old, end), getattr(stream, end))
        }

    async def validate(self, stream: Stream, facts: Facts, deployed: DeployedStream | None) -> None:
        record = StreamRecord(stream=stream, side=facts.side.value)
        config = self.parts(record).main
        if deployed is not None and not self.moves(deployed.record, facts.seen.claim(stream)):
            config = carry_over(deployed, self.parts(deployed.record).main, config, self.kept_together).config
        await preflight.refuse_invalid(self._cluster, config, stream)

    async def warnings(
        self, stream: Stream, facts: Facts, claim: StreamRecord, deployed: DeployedStream | None
    ) -> list[Finding]:
        found = await preflight.warnings(self._ends, stream, facts.seen, new=deployed is None)
        found += await self._surroundings.doubts(claim)
        same_places = deployed is not None and _places(deployed.record.stream) == _places(stream)
        if deployed is not None and same_places and (why := rebuilt(deployed.record, facts.seen)):
            text = f"{why}; so all that the source retains is copied again"
            found.append(Finding(severity=Severity.WARNING, code=ReplayNotRetained.code, message=text))
        return found

    def positioned(self, deployed: DeployedStream) -> Sequence[Connector]:
        return (deployed.connector,)

    async def refuse_gap(self, record: StreamRecord) -> None:
        if why := await self._reader.rebuilt(record):
            raise ReplayNotRetained(why, stream=record.stream.name, fix=AGAIN)
        await self._refuse_gap(record, await self.positions(record))

    async def refuse_return(self, record: StreamRecord, stream: Stream) -> None:
        stored = await self.positions(record)
        before = names(record.stream)
        again = {at: offset for at, offset in stored.items() if not before.has(at.topic)}
        if again:
            await self._refuse_gap(record.model_copy(update={"stream": stream}), again)

    async def _refuse_gap(self, record: StreamRecord, stored: Offsets) -> None:
        """Raise if offsets are behind a gap. With `worker.cluster`, an unreachable end raises nothing."""
        try:
            source = await self._reader.source(record, stored)
        except ReplicatorError as error:
            if WORKER_CLUSTER in record.stream.options:
                return
            raise type(error)(
                f"whether it can continue without a gap is unknown: {error.message}",
                stream=record.stream.name,
                property=error.property,
                fix=error.fix,
            ) from error
        refuse_gaps(record, stored, source)

    # --- changes -----------------------------------------------------------------------------------------------------

    async def record(self, stream: Stream, facts: Facts, deployed: DeployedStream | None) -> StreamRecord:
        seen = facts.seen
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
            side=facts.side.value,
            topics={**topics, **known.topics},  # offsets belong to the topics that existed when they were stored
            replays=known.replays,
            starts=known.starts,
        )

    async def find_start(self, stream: Stream) -> Offsets | None:
        return await self._starts.find(stream)

    async def prepare(self, record: StreamRecord, start: Offsets | None) -> Prepared:
        listed, kept, earliest = await asyncio.gather(
            self._surroundings.win(record), self.positions(record), self._earliest(record.stream, start)
        )
        first = await self._starts.set(record, start, kept)
        return Prepared(record.model_copy(update={"starts": recorded_starts(earliest, first)}), listed)

    async def _earliest(self, stream: Stream, start: Offsets | None) -> Offsets | None:
        return await self._starts.earliest(stream) if start is None else start

    async def moved(self, record: StreamRecord, before: StreamRecord) -> StreamRecord:
        starts = recorded_starts(await self._starts.earliest(record.stream), {})
        return record.model_copy(update={"starts": starts})

    def starts_idle(self, record: StreamRecord) -> bool:
        return record.source_cluster is not None and not record.topics

    async def may_idle(self, deployed: DeployedStream, connector: str) -> bool:
        if connector != deployed.name:
            return True  # no group to follow yet
        (source,) = await self._reader.sources([deployed], [{}])
        return isinstance(source, SourceView) and not source.topics

    # --- reads -------------------------------------------------------------------------------------------------------

    def as_found(self, deployed: DeployedStream) -> Stream:
        return self._reader.as_found(deployed)

    def outline(self, deployed: DeployedStream) -> Description:
        return self._reader.outline(deployed)

    async def measure(self, streams: Sequence[DeployedStream]) -> list[Description]:
        return await self._reader.describe(streams)

    # --- replays -----------------------------------------------------------------------------------------------------

    async def positions(self, record: StreamRecord) -> Offsets:
        return await self._reader.positions(record.stream)

    def is_done(self, record: StreamRecord, replay: ReplayRecord, positions: Offsets) -> bool:
        return is_done(replay, positions)

    async def resolve(
        self, deployed: DeployedStream, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[ResolvedReplay, Offsets]:
        record = deployed.record
        if why := await self._reader.rebuilt(record):
            raise ReplayRefused(why, stream=deployed.name, fix=AGAIN)
        stored = await self.positions(record)
        brokers = await self._ends.brokers(record.stream, "source")
        named = {at.topic for at in read(start.lsn)} if start.lsn else set()
        kept = named.intersection(at.topic for at in stored)  # of a topic that was copied before and may be again
        source = await self._reader.source(record, stored, also=kept)
        found = await resolve(brokers, record, source, stored, start, method=method, target=target)
        return (
            ResolvedReplay(
                plan=found.plan,
                start=write(found.offsets) or "",
                until=write(found.until) or "",
                extent=f"{len(found.offsets)} partitions",
                topics=found.topics,
            ),
            stored,
        )

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> tuple[StreamRecord, ReplayRecord]:
        if replay.start:
            stored = as_stored(read(replay.start), Naming.of(record.stream))
            await self._cluster.alter_offsets(record.stream.name, stored)
        return record, replay

    async def aclose(self) -> None:
        await self._mirrors.aclose()
        await self._peers.aclose()


def moves(old: StreamRecord, new: StreamRecord) -> bool:
    """Tell whether earlier offsets are meaningless: of another source, or of topics that are empty at first."""
    if Naming.of(old.stream) != Naming.of(new.stream):
        return True
    (source_was, destination_was), (source_now, destination_now) = _places(old.stream), _places(new.stream)
    return is_another(old.source_cluster, new.source_cluster, same_place=source_was == source_now) or is_another(
        old.destination_cluster, new.destination_cluster, same_place=destination_was == destination_now
    )


def _places(stream: Stream) -> tuple[str, str]:
    declared = canonical(stream)
    return declared.source.uri, declared.destination.uri
