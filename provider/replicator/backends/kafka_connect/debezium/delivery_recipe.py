"""The recipe of a stream from topics to a database: one connector, Debezium's JDBC sink."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from replicator.backends.kafka.admin import KafkaAdmin, Topic
from replicator.backends.kafka.positions import Offsets, Partition, read
from replicator.backends.kafka.reading import Read
from replicator.backends.kafka.topic_globs import glob_regex
from replicator.backends.kafka_connect.cluster import RECENT, ConnectCluster, Connector
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.backends.kafka_connect.connector_states import SEEN_WITHIN
from replicator.backends.kafka_connect.debezium import preflight, sink_replay
from replicator.backends.kafka_connect.debezium.connector_config import BACKEND
from replicator.backends.kafka_connect.debezium.delivery_config import (
    DeliveryDetails,
    build_delivery,
    delivery_details,
)
from replicator.backends.kafka_connect.debezium.delivery_options import table_of
from replicator.backends.kafka_connect.debezium.details import leaves_an_end
from replicator.backends.kafka_connect.debezium.positions import Position, Progress, SinkProgress, Waiting
from replicator.backends.kafka_connect.debezium.sink_config import SINK_CLASS
from replicator.backends.kafka_connect.debezium.sink_progress import (
    as_stored,
    begin_at_the_beginning,
    next_offsets,
    sink_progress,
)
from replicator.backends.kafka_connect.debezium.sink_status import delivery_described, lost_records
from replicator.backends.kafka_connect.debezium.target_tables import TargetTables
from replicator.backends.kafka_connect.deployed import DeployedStream, Listed, Parts, foreign_settings, sort
from replicator.backends.kafka_connect.recipe import Prepared, ResolvedReplay, answer_or_error
from replicator.backends.kafka_connect.record import RECORD_KEYS, ReplayRecord, StreamRecord
from replicator.backends.postgres.identifiers import Table
from replicator.backends.postgres.session import Sessions
from replicator.backends.shared.declarations import keeps_ends
from replicator.backends.shared.single_flight import SingleFlight
from replicator.capabilities import DEBEZIUM, No
from replicator.errors import (
    EngineUnavailable,
    InvalidStream,
    ReplayNotRetained,
    ReplicatorError,
    SourceMissing,
    Unsupported,
)
from replicator.model import Checkpoint, Drain, Mode, Stream, StreamState, StreamStatus
from replicator.replicator import Description, EndHints, Finding, Proposal, ReplayMethod, Severity

_INTERNAL = re.compile(r"__.*|connect-(configs|offsets|status)")
_NAMED = 5  # topics that a text lists


class DeliveryFacts(NamedTuple):
    """The results of the checks before a change.

    :param topics: the topics that the stream takes; `None` if the source is not reachable, and not needed.
    :param ids: the identities of both ends.
    """

    topics: Mapping[str, Topic] | None
    ids: StreamRecord


class DeliveryRecipe:
    """The recipe for the streams of one Connect cluster that write topics to databases.

    :param aliases: names of the worker's config providers, by `authRef` scheme.
    """

    kind = BACKEND
    connector_classes: Collection[str] = ()
    kept_together: Collection[Collection[str]] = ()
    never_kept: Collection[str] = ()
    has_objects = True

    def __init__(
        self, cluster: ConnectCluster, ends: ClusterClients, sessions: Sessions, aliases: Mapping[str, str]
    ) -> None:
        self._cluster = cluster
        self._ends = ends
        self._tables = TargetTables(sessions)
        self._aliases = aliases
        self._recent = SingleFlight(self._listing, RECENT)

    # --- a declaration as connectors ---------------------------------------------------------------------------------

    def part_names(self, name: str) -> Sequence[str]:
        return ()

    def parts(self, record: StreamRecord) -> Parts:
        return Parts(build_delivery(record, self._aliases), {})

    def moves(self, old: StreamRecord, new: StreamRecord) -> bool:
        """Tell whether the offsets mean nothing any more: for another cluster or database."""
        return leaves_an_end(old, new)

    def needs_start(self, stream: Stream) -> bool:
        return True

    # --- adoption ----------------------------------------------------------------------------------------------------

    async def propose(self, connector: Connector, source: EndHints, destination: EndHints) -> Proposal:
        raise _no_adoption(connector)

    async def adopted(self, connector: Connector, stream: Stream) -> StreamRecord:
        raise _no_adoption(connector)

    async def refuse_adoption(self, connector: Connector, record: StreamRecord) -> None:
        raise _no_adoption(connector)

    # --- checks before a change --------------------------------------------------------------------------------------

    async def recent(self) -> Listed:
        return await self._recent.get()

    def forget_errors(self) -> None:
        self._recent.forget_error()

    async def claim(self, stream: Stream, deployed: DeployedStream | None) -> StreamRecord:
        known = deployed.record if deployed and keeps_ends(deployed.record.stream, stream) else None
        brokers = await self._ends.brokers(stream, "source")
        try:
            cluster = await brokers.cluster()
            source, destination = cluster.id, await self._tables.identity(stream)
        except EngineUnavailable:
            if known is None or known.source_cluster is None or known.destination_cluster is None:
                raise
            source, destination = known.source_cluster, known.destination_cluster
        return StreamRecord(
            stream=stream,
            source_cluster=source,
            destination_cluster=destination,
            details=deployed.record.details if deployed else {},
        )

    async def look(
        self, stream: Stream, claimed: Sequence[StreamRecord], deployed: DeployedStream | None
    ) -> DeliveryFacts:
        known = deployed.record if deployed is not None and not deployed.record.creating else None
        ids = await self.claim(stream, deployed)
        worker = (await self._cluster.recent_identity.get()).kafka_cluster_id
        ids = ids.model_copy(update={"side": "source" if ids.source_cluster == worker else "destination"})
        await preflight.refuse_unresolved_writer(self._cluster, stream, self._aliases)
        try:
            topics = await self._chosen(stream)
            await self._refuse_unfit(stream, topics, known.details.get("claim") if known else None)
        except EngineUnavailable:
            if known is None or not _keeps_data(known.stream, stream):
                raise
            return DeliveryFacts(None, ids)
        return DeliveryFacts(topics, ids)

    async def _chosen(self, stream: Stream) -> dict[str, Topic]:
        brokers = await self._ends.brokers(stream, "source")
        there = set(await brokers.topics())
        named = {glob for glob in stream.include if not {"*", "?"} & set(glob)}
        there |= (await brokers.describe(named - there)).keys()  # the listing may be of a moment before
        if missing := sorted(named - there):
            raise SourceMissing(
                f"the source has no topic {missing[0]!r} that the credentials may describe; it has {_some(there)}",
                property="include",
                fix="create the topic, or correct the name",
            )
        include = re.compile("|".join(glob_regex(glob, "include") for glob in stream.include))
        exclude = [re.compile(glob_regex(glob, "exclude")) for glob in stream.exclude]
        names = [
            name
            for name in there
            if include.fullmatch(name) and not _INTERNAL.fullmatch(name) and not any(e.fullmatch(name) for e in exclude)
        ]
        if not names:
            raise SourceMissing(
                f"no topic of the source is chosen; it has {_some(there)}",
                property="include",
                fix="create a topic, or correct include and exclude; * stands for no dot",
            )
        return await brokers.describe(names)

    async def _refuse_unfit(self, stream: Stream, topics: Mapping[str, Topic], claim: str | None) -> None:
        seen: dict[str, str] = {}
        for topic in sorted(topics):
            table = str(table_of(stream, topic))
            if table in seen:
                raise InvalidStream(
                    f"the topics {seen[table]} and {topic} would be written to the same table, {table}",
                    property="include",
                    fix="put them into streams of their own, or use ${topic} in options.collection.name.format",
                )
            seen[table] = topic
        await self._tables.refuse_unwritable(stream, [table_of(stream, topic) for topic in topics], claim)

    async def validate(self, stream: Stream, facts: DeliveryFacts, deployed: DeployedStream | None) -> None:
        if facts.topics is None:
            return
        details = _details(stream, facts.topics, "")
        config = self.parts(facts.ids.model_copy(update={"stream": stream, "details": details.wire()})).main
        found = await self._cluster.validate(SINK_CLASS, {**config, "name": stream.name})
        for error in found.errors:
            property = f"options.{error.field}" if error.field in stream.options else "destination.uri"
            raise InvalidStream(f"the worker refuses the sink: {error}", stream=stream.name, property=property)

    async def warnings(
        self, stream: Stream, facts: DeliveryFacts, claim: StreamRecord, deployed: DeployedStream | None
    ) -> list[Finding]:
        if facts.topics is None:
            text = "an end does not answer; this change does not need it, and the stream continues when it does"
            code = EngineUnavailable.code
            return [Finding(severity=Severity.WARNING, code=code, message=text, property="source.uri")]
        known = delivery_details(deployed.record).tables if deployed and not deployed.record.creating else {}
        new = sorted(facts.topics.keys() - known.keys())
        found = []
        if new:
            brokers = await self._ends.brokers(stream, "source")
            offsets = await self._begins(brokers, stream, {name: facts.topics[name] for name in new})
            ends = await brokers.latest(offsets)
            records = sum(ends[at] - offset for at, offset in offsets.items() if at in ends)
            more = f" and {len(new) - 1} more" if new[1:] else ""
            text = f"{new[0]}{more} is written to {table_of(stream, new[0])}{more}: {records} records at first"
            found.append(Finding(severity=Severity.INFO, code=InvalidStream.code, message=text, property="include"))
        for topic in sorted(known.keys() - facts.topics.keys()):
            text = f"{topic} leaves the stream: {known[topic]} stays as it is, and gets no more changes"
            found.append(Finding(severity=Severity.WARNING, code=InvalidStream.code, message=text, property="include"))
        return found

    def positioned(self, deployed: DeployedStream) -> Sequence[Connector]:
        return (deployed.connector,)

    async def refuse_gap(self, record: StreamRecord) -> None:
        sink = (await self.positions(record)).sink
        if isinstance(sink, ReplicatorError):
            raise preflight.unseen_gap(record.stream.name, sink)
        if sink is not None and (lost := self._lost(record, sink)):
            raise lost

    def _lost(self, record: StreamRecord, sink: SinkProgress) -> ReplayNotRetained | None:
        return lost_records(record, sink, list(delivery_details(record).tables))

    async def refuse_return(self, record: StreamRecord, stream: Stream) -> None:
        pass  # offsets of a topic that returns are compared when they are set

    # --- changes -----------------------------------------------------------------------------------------------------

    async def record(self, stream: Stream, facts: DeliveryFacts, deployed: DeployedStream | None) -> StreamRecord:
        known = deployed.record if deployed else None
        if facts.topics is None:
            assert known is not None
            return known.model_copy(update={"stream": stream})
        claim = str(known.details["claim"]) if known is not None and known.details else secrets.token_hex(16)
        return StreamRecord(
            stream=stream,
            source_cluster=facts.ids.source_cluster,
            destination_cluster=facts.ids.destination_cluster,
            side=facts.ids.side,
            topics={name: topic.id for name, topic in facts.topics.items()} | (known.topics if known else {}),
            replays=known.replays if known else (),
            details=_details(stream, facts.topics, claim).wire(),
        )

    async def find_start(self, stream: Stream) -> Offsets:
        brokers = await self._ends.brokers(stream, "source")
        return await self._begins(brokers, stream, await self._chosen(stream))

    async def _begins(self, brokers: KafkaAdmin, stream: Stream, topics: Mapping[str, Topic]) -> dict[Partition, int]:
        """Return where a stream begins in each partition of topics that it does not have yet."""
        partitions = [Partition(name, number) for name, topic in topics.items() for number in range(topic.partitions)]
        first, end = await asyncio.gather(brokers.earliest(partitions), brokers.latest(partitions))
        asked = stream.start_from or ("latest" if stream.mode is Mode.CDC else "earliest")
        if asked == "earliest":
            return dict(first)
        if isinstance(asked, Checkpoint) and asked.wall is not None:
            found = await brokers.at_time(partitions, int(asked.wall.timestamp() * 1000))
            return {at: found[at].offset if at in found else end[at] for at in end}
        if isinstance(asked, Checkpoint) and asked.lsn is not None:
            return {**end, **_within(read(asked.lsn), first, end)}
        return dict(end)

    async def prepare(self, record: StreamRecord, start: Offsets | None) -> Prepared:
        details = delivery_details(record)
        for place in details.left_destinations:
            with suppress(EngineUnavailable):  # a destination that is gone is a reason to move
                await self._tables.release(record.stream.model_copy(update={"destination": place}), details.claim)
        record = record.model_copy(update={"details": details.model_copy(update={"left_destinations": ()}).wire()})
        await self._tables.claim(record.stream, details.claim, self._origins(record))
        await self._cluster.stop(record.stream.name, SEEN_WITHIN)
        await self._cluster.reset_offsets(record.stream.name)  # Connect keeps those of a deleted connector
        if start:
            await self._cluster.alter_offsets(record.stream.name, as_stored(start))
        return Prepared(record, frozenset())

    def _origins(self, record: StreamRecord) -> dict[Table, frozenset[str]]:
        own = frozenset((record.source_cluster or "",))
        return dict.fromkeys(delivery_details(record).names, own)

    async def moved(self, record: StreamRecord, before: StreamRecord) -> StreamRecord:
        was = delivery_details(before)
        left = was.left_destinations
        if record.destination_cluster != before.destination_cluster:
            left = (*left, before.stream.destination)
        details = delivery_details(record).model_copy(update={"claim": was.claim, "left_destinations": left})
        return record.model_copy(update={"details": details.wire()})

    def starts_idle(self, record: StreamRecord) -> bool:
        return False

    async def may_idle(self, deployed: DeployedStream, connector: str) -> bool:
        return False

    # --- objects outside Connect -------------------------------------------------------------------------------------

    def is_writable(self, facts: DeliveryFacts) -> bool:
        return True

    def must_stop(self, old: StreamRecord, new: StreamRecord) -> bool:
        return bool(delivery_details(new).tables.keys() - delivery_details(old).tables.keys())

    async def alter(self, old: StreamRecord, new: StreamRecord) -> StreamRecord:
        if old.details == new.details:
            return new
        await self._tables.claim(new.stream, delivery_details(new).claim, self._origins(new))
        joining = delivery_details(new).tables.keys() - delivery_details(old).tables.keys()
        if joining:
            brokers = await self._ends.brokers(new.stream, "source")
            begins = await self._begins(brokers, new.stream, await brokers.describe(joining))
            stored = (await self.positions(new)).sink
            known = stored.stored if isinstance(stored, SinkProgress) else {}
            fresh = {at: offset for at, offset in begins.items() if at not in known}
            if fresh:
                await self._cluster.alter_offsets(new.stream.name, as_stored(fresh))
        return new

    async def follow_up(self, record: StreamRecord) -> None:
        pass

    async def ready(self, record: StreamRecord) -> bool:
        sink = (await self.positions(record)).sink
        if isinstance(sink, ReplicatorError):
            raise sink
        assert sink is not None
        return await begin_at_the_beginning(self._cluster, record.stream.name, sink)

    async def refuse_removal(self, record: StreamRecord) -> None:
        try:
            await self._tables.identity(record.stream)
        except ReplicatorError as error:
            if record.stream.drain_before_delete is Drain.SKIP:
                return
            raise type(error)(
                f"its claim at the destination cannot be dropped: {error.message}",
                stream=record.stream.name,
                property=error.property,
                fix="let it answer; or, if the destination is gone for good, set drainBeforeDelete: skip",
            ) from error

    async def drain(self, deployed: DeployedStream) -> None:
        pass  # what the topics hold stays there

    async def dispose(self, record: StreamRecord, *, undone: bool = False) -> None:
        try:
            await self._tables.release(record.stream, delivery_details(record).claim)
        except EngineUnavailable:
            if record.stream.drain_before_delete is not Drain.SKIP:
                raise

    # --- reads -------------------------------------------------------------------------------------------------------

    def as_found(self, deployed: DeployedStream) -> Stream:
        stream = deployed.record.stream
        found = foreign_settings(deployed.connector, self.parts(deployed.record).main, RECORD_KEYS)
        return stream.model_copy(update={"options": {**stream.options, **found}}) if found else stream

    def outline(self, deployed: DeployedStream, error: ReplicatorError | None = None) -> Description:
        state = StreamState.FAILED if deployed.trace else deployed.state
        why = f"its offsets cannot be read: {error.message}" if error else None
        return Description(
            stream=self.as_found(deployed),
            status=StreamStatus(name=deployed.name, state=state, last_error=deployed.trace or why),
            engine_objects=self._engine_objects(deployed),
        )

    async def measure(self, streams: Sequence[DeployedStream]) -> list[Description]:
        read = await asyncio.gather(*(answer_or_error(self.positions(deployed.record)) for deployed in streams))
        found = []
        for deployed, at in zip(streams, read, strict=True):
            if isinstance(at, Progress):
                outline = self.outline(deployed)
                lost = self._lost(deployed.record, at.sink) if isinstance(at.sink, SinkProgress) else None
                found.append(delivery_described(deployed, at, outline, lost, datetime.now(UTC)))
            elif at is not None:
                found.append(self.outline(deployed, at))
        return found

    def _engine_objects(self, deployed: DeployedStream) -> dict[str, object]:
        record, details = deployed.record, delivery_details(deployed.record)
        return {
            "connectors": [deployed.name],
            "topics": sorted(details.tables),
            "tables": [str(table) for table in details.names],
            **({"sourceCluster": record.source_cluster} if record.source_cluster else {}),
            **({"destinationDatabase": record.destination_cluster} if record.destination_cluster else {}),
        }

    async def _listing(self) -> Listed:
        return sort((await self._cluster.listing()).values(), BACKEND)

    # --- replays -----------------------------------------------------------------------------------------------------

    async def positions(self, record: StreamRecord) -> Progress:
        stored = next_offsets(await self._cluster.offsets(record.stream.name))
        sink, away = await asyncio.gather(self._sink(record, stored), self._tables.away(record.stream))
        return Progress(Position(), sink, away)

    async def _sink(self, record: StreamRecord, stored: Offsets) -> SinkProgress | ReplicatorError:
        try:
            brokers = await self._ends.brokers(record.stream, "source")
            return await sink_progress(brokers, list(delivery_details(record).tables), stored, _waiting)
        except ReplicatorError as error:
            return error

    def is_done(self, record: StreamRecord, replay: ReplayRecord, positions: Progress) -> bool:
        return replay.progress.finished_at is not None or (replay.applied and sink_replay.is_done(replay, positions))

    async def resolve(
        self, deployed: DeployedStream, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[ResolvedReplay, Progress]:
        record = deployed.record
        chosen = ReplayMethod.SINK_REWIND if method is ReplayMethod.AUTO else method
        if isinstance(cell := DEBEZIUM.route(record.stream).replay[chosen], No):
            raise Unsupported(cell.reason, stream=deployed.name, property="method")
        progress = await self.positions(record)
        sink = progress.sink
        found = {}
        if isinstance(sink, SinkProgress) and start.wall is not None:
            brokers = await self._ends.brokers(record.stream, "source")
            found = await brokers.at_time(sink.latest, int(start.wall.timestamp() * 1000))
        return sink_replay.resolve(record, progress, start, found, target=target), progress

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> tuple[StreamRecord, ReplayRecord]:
        if replay.start:
            await self._cluster.alter_offsets(record.stream.name, as_stored(read(replay.start)))
        return record, replay

    async def aclose(self) -> None:
        await self._recent.settled()


def _details(stream: Stream, topics: Mapping[str, Topic], claim: str) -> DeliveryDetails:
    return DeliveryDetails(claim=claim, tables={topic: str(table_of(stream, topic)) for topic in sorted(topics)})


def _waiting(record: Read) -> Waiting:
    return Waiting(0, datetime.fromtimestamp(record.time / 1000, UTC) if record.time else None)


def _no_adoption(connector: Connector) -> Unsupported:
    return Unsupported(
        "a sink is not adopted: its tables are reserved before it first writes to them",
        stream=connector.name,
        fix="delete it, and declare a stream with startFrom at its offsets",
    )


def _within(asked: Offsets, first: Offsets, end: Offsets) -> Offsets:
    """Return offsets that a start names; raise for those that the source does not have."""
    for at, offset in asked.items():
        if at not in end:
            raise InvalidStream(f"{at} is no partition that the stream takes", property="startFrom")
        if not first.get(at, 0) <= offset <= end[at]:
            raise ReplayNotRetained(
                f"{at} has the offsets {first.get(at, 0)} to {end[at]}, and not {offset}",
                property="startFrom",
                fix="start at an offset that the source has",
            )
    return asked


def _keeps_data(old: Stream, new: Stream) -> bool:
    """Tell whether a change needs nothing of the ends, such as a pause."""
    same = (old.include, old.exclude, old.options) == (new.include, new.exclude, new.options)
    return same and keeps_ends(old, new)


def _some(topics: Collection[str]) -> str:
    names = sorted(name for name in topics if not _INTERNAL.fullmatch(name))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more or "none"
