"""A database as the destination of a stream: topics between, and a sink that writes their changes to tables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from replicator.backends.kafka.admin import Found
from replicator.backends.kafka.positions import Partition, read
from replicator.backends.kafka_connect.cluster import ConnectCluster, ConnectorState
from replicator.backends.kafka_connect.connector_states import SEEN_WITHIN
from replicator.backends.kafka_connect.debezium import preflight, sink_replay, target_tables
from replicator.backends.kafka_connect.debezium.between import Between, kept_for, topic_in_use
from replicator.backends.kafka_connect.debezium.declarations import RETRIES, topic_prefix
from replicator.backends.kafka_connect.debezium.details import (
    details_of,
    signal_table,
    topic_of,
    topics_of,
    with_details,
)
from replicator.backends.kafka_connect.debezium.positions import Position, Progress, SinkProgress
from replicator.backends.kafka_connect.debezium.sink_config import (
    CONVERTERS,
    EXACT,
    RESELECTING,
    RESELECTS,
    SINK_CLASS,
    TABLE_OF_CHANGE,
    build_sink,
    sink_name,
)
from replicator.backends.kafka_connect.debezium.sink_progress import as_stored, begin_at_the_beginning, next_offsets
from replicator.backends.kafka_connect.debezium.sink_status import described, lost_changes
from replicator.backends.kafka_connect.debezium.source_facts import SourceFacts
from replicator.backends.kafka_connect.debezium.target_tables import TargetTables
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.options import option_text
from replicator.backends.kafka_connect.recipe import ResolvedReplay
from replicator.backends.kafka_connect.record import PART_OF, ReplayRecord, StreamRecord
from replicator.backends.postgres.endpoint import postgres_endpoint
from replicator.backends.postgres.identifiers import Table, chosen, read_pattern
from replicator.backends.postgres.lsn import read_lsn
from replicator.backends.postgres.session import Sessions
from replicator.errors import (
    DestinationInUse,
    EngineRefused,
    EngineUnavailable,
    InvalidConfig,
    InvalidStream,
    ReplicatorError,
    StreamNotFound,
)
from replicator.model import Checkpoint, Drain, EndpointKind, Stream
from replicator.progress import tell
from replicator.replicator import Description, Finding, ReplayMethod, Severity

_POLL = 1.0
"""Seconds between two looks at a sink that writes what is left."""


class DatabaseDestination:
    """The databases that streams write to, by a sink in the same Connect cluster.

    :param between: the topics between.
    :param aliases: names of the worker's config providers, by `authRef` scheme.
    """

    leftovers = "the destination keeps them"
    holds_rows = True

    def __init__(
        self, cluster: ConnectCluster, between: Between, sessions: Sessions, aliases: Mapping[str, str]
    ) -> None:
        self._cluster = cluster
        self._between = between
        self._aliases = aliases
        self._tables = TargetTables(sessions)

    # --- a declaration as connectors ---------------------------------------------------------------------------------

    def part_names(self, name: str) -> Sequence[str]:
        return (sink_name(name),)

    def parts(self, record: StreamRecord) -> dict[str, dict[str, str]]:
        stream = record.stream
        at = postgres_endpoint(stream.destination, "destination")
        name = sink_name(stream.name)
        common = build_sink(name, topics_of(record), at, TABLE_OF_CHANGE, self._aliases)
        own = {RETRIES: option_text(stream.options[RETRIES])} if RETRIES in stream.options else {}
        return {name: {**common, **CONVERTERS, **own, PART_OF: stream.name}}

    def settings(self, record: StreamRecord) -> Mapping[str, str]:
        return EXACT | RESELECTING if record.stream.options.get(RESELECTS) else EXACT

    # --- checks before a change --------------------------------------------------------------------------------------

    async def identity(self, stream: Stream) -> str:
        return await self._tables.identity(stream)

    async def topics_cluster(self, stream: Stream) -> str | None:
        """Return the id of the Kafka cluster of the workers, to which sources write, and from which sinks read."""
        worker = (await self._cluster.recent_identity.get()).kafka_cluster_id
        between = await self._between.cluster_id()
        if worker != between:
            raise InvalidConfig(
                f"debezium:kafka names the Kafka cluster {between}, and the Connect workers are of {worker}",
                fix="name the brokers that the workers have in bootstrap.servers",
            )
        return worker

    async def refuse_unresolved_logins(self, stream: Stream) -> None:
        await preflight.refuse_unresolved_writer(self._cluster, stream, self._aliases)

    async def refuse_unfit(
        self,
        record: StreamRecord,
        source: SourceFacts,
        known: StreamRecord | None,
        claimed: Sequence[StreamRecord],
    ) -> None:
        _refuse_same_tables(record, source, claimed)
        await self._tables.refuse_unfit(record, source)
        made = known.topics if known is not None else {}
        if used := await self._between.used([topic for topic in topics_of(record) if topic not in made]):
            raise topic_in_use(used)

    async def validate(self, record: StreamRecord) -> None:
        """Raise what the worker finds wrong with the sink's configuration. It does not connect to the database."""
        (config,) = self.parts(record).values()
        found = await self._cluster.validate(SINK_CLASS, {**config, "name": sink_name(record.stream.name)})
        for error in found.errors:
            if error.field.startswith("consumer.override."):
                raise InvalidStream(
                    f"the worker does not let a connector set {error.field}",
                    stream=record.stream.name,
                    property="destination.uri",
                    fix="set connector.client.config.override.policy=All on the workers, Kafka's default",
                )
        if found.errors:
            raise InvalidStream(
                f"the worker refuses the sink: {found.errors[0]}", stream=record.stream.name, property="destination.uri"
            )

    async def warnings(self, stream: Stream, source: SourceFacts, new: Sequence[Table]) -> list[Finding]:
        facts = await self._tables.look(stream, source)
        rows = await self._tables.rows(stream, [table for table in new if table in facts.there])
        found = [*target_tables.warnings(facts, rows, new), *target_tables.lossy_floats(facts, new)]
        if made := [table for table in new if table in facts.missing]:
            more = f" and {len(made) - 1} more" if made[1:] else ""
            text = (
                f"{made[0]}{more} is made at the destination, with the columns and the primary key of the source; "
                "defaults, indexes and other constraints are not"
            )
            found.append(_info(text))
        if new:
            found.append(
                _info(
                    f"changes pass through topics that begin with {topic_prefix(stream)!r}, which keep them "
                    f"{kept_for(stream)}: so long may the destination be away, and so far back can a replay begin"
                )
            )
        return found

    async def refuse_gap(self, record: StreamRecord, progress: Progress) -> None:
        sink = progress.sink
        if isinstance(sink, ReplicatorError):
            raise preflight.unseen_gap(record.stream.name, sink)
        if sink is not None and (lost := lost_changes(record, sink)):
            raise lost

    # --- changes -----------------------------------------------------------------------------------------------------

    async def prepare(
        self, record: StreamRecord, source: SourceFacts, *, fresh: bool
    ) -> tuple[StreamRecord, frozenset[Table]]:
        details = details_of(record)
        for place in details.left_destinations:
            before = record.stream.model_copy(update={"destination": place})
            with suppress(EngineUnavailable):  # a destination that is gone is a reason to move
                await self._tables.release(before, details.claim)
        made = await self._tables.make(record, source, fresh=fresh)
        wanted = topics_of(record)
        known = {name: id for name, id in record.topics.items() if name in wanted}
        made_topics = await self._between.make(record.stream, wanted, known)
        # A table that returns is read again: changes of before must not be written a second time after that.
        await self._between.remove({name: id for name, id in record.topics.items() if name not in wanted}, ())
        at = self._between.kafka
        settled = details.model_copy(update={"left_destinations": (), "kafka": at.uri, "kafka_auth_ref": at.auth_ref})
        return with_details(record, settled).model_copy(update={"topics": {**known, **made_topics}}), made

    async def settled(self, record: StreamRecord) -> None:
        await self._tables.mark_read(record)

    async def ready(self, record: StreamRecord) -> bool:
        sink = await self._sink(record)
        if isinstance(sink, ReplicatorError):
            raise sink
        return await begin_at_the_beginning(self._cluster, sink_name(record.stream.name), sink)

    async def refuse_removal(self, record: StreamRecord) -> None:
        try:
            await self._between.of(record).cluster_id()
            await self._tables.identity(record.stream)
        except ReplicatorError as error:
            if record.stream.drain_before_delete is Drain.SKIP and error.property is not None:
                return
            raise type(error)(
                f"what it has at the destination cannot be removed: {error.message}",
                stream=record.stream.name,
                property=error.property,
                fix="let it answer; or, if the destination is gone for good, set drainBeforeDelete: skip and "
                "desiredState: paused",
            ) from error

    async def drain(self, deployed: DeployedStream) -> None:
        """Stop Debezium, and wait until the sink has written what the topics hold.

        A stream that is paused writes nothing more, and neither does its delete.
        """
        record = deployed.record
        idle = record.creating or deployed.connector.state in (ConnectorState.PAUSED, ConnectorState.STOPPED)
        if idle or record.stream.drain_before_delete is Drain.SKIP:
            return
        await self._behind(record)
        await self._cluster.stop(deployed.name, SEEN_WITHIN)
        try:
            while behind := await self._behind(record):
                sink = await self._cluster.look(sink_name(record.stream.name))
                if sink is not None and (sink.failed or sink.state is not ConnectorState.RUNNING):
                    raise EngineRefused(
                        f"its sink does not run, and {behind} changes in the topics between would not reach the "
                        "destination",
                        stream=record.stream.name,
                        property="drainBeforeDelete",
                        fix="see what its status says, and delete it again; or set drainBeforeDelete: skip",
                    )
                tell(f"the sink writes what is on the way: {behind} changes")
                await asyncio.sleep(_POLL)
        except ReplicatorError:
            with suppress(ReplicatorError):  # the first error tells more
                await self._cluster.resume(deployed.name, SEEN_WITHIN)
            raise

    async def _behind(self, record: StreamRecord) -> int:
        """Return how many changes the sink has to write; raise if some are lost, or if that is unknown."""
        sink = (await self.progress(record, Position())).sink
        if isinstance(sink, StreamNotFound) or sink is None:
            return 0
        if isinstance(sink, ReplicatorError):
            raise sink
        if lost := lost_changes(record, sink):
            lost.fix = f"{lost.fix}. To remove the stream as it is, pause it, or set drainBeforeDelete: skip"
            raise lost
        return sum(sink.behind.values())

    async def dispose(self, record: StreamRecord) -> None:
        prefix = topic_prefix(record.stream)
        signal = signal_table(record.stream)
        others = (
            topic_of(record.stream, signal),
            f"__debezium-heartbeat.{prefix}",
            f"{prefix}.notifications",
        )
        await self._between.of(record).remove(record.topics, others)
        try:
            await self._tables.release(record.stream, details_of(record).claim)
        except EngineUnavailable:
            if record.stream.drain_before_delete is not Drain.SKIP:
                raise

    # --- reads -------------------------------------------------------------------------------------------------------

    def engine_objects(self, record: StreamRecord) -> Mapping[str, object]:
        found = {"tables": [str(table) for table in details_of(record).names]}
        return found | ({"destinationDatabase": record.destination_cluster} if record.destination_cluster else {})

    async def progress(self, record: StreamRecord, position: Position) -> Progress:
        """Return the whole progress. The topics' ends are asked after Debezium's position, which they then include."""
        sink, away = await asyncio.gather(self._sink(record), self._tables.away(record.stream))
        return Progress(position, sink, away)

    async def _sink(self, record: StreamRecord) -> SinkProgress | ReplicatorError:
        try:
            stored = next_offsets(await self._cluster.offsets(sink_name(record.stream.name)))
            return await self._between.of(record).progress(topics_of(record), stored)
        except StreamNotFound:
            return _no_sink(record)
        except ReplicatorError as error:
            return error

    def described(self, deployed: DeployedStream, progress: Progress, found: Description) -> Description:
        return described(deployed, progress, found)

    # --- replays -----------------------------------------------------------------------------------------------------

    async def resolve(
        self, deployed: DeployedStream, progress: Progress, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> ResolvedReplay | None:
        if method not in (ReplayMethod.AUTO, ReplayMethod.SINK_REWIND):
            return None
        sink = progress.sink
        if isinstance(sink, SinkProgress) and (lost := lost_changes(deployed.record, sink)):
            raise lost
        found: Mapping[Partition, Found | int] = {}
        if isinstance(sink, SinkProgress) and start.wall is not None:
            found = await self._between.of(deployed.record).at_time(sink.latest, start.wall)
        elif isinstance(sink, SinkProgress) and start.lsn is not None and not sink_replay.is_offsets(start):
            found = await self._between.of(deployed.record).at_lsn(sink, read_lsn(start.lsn))
        return sink_replay.resolve(deployed.record, progress, start, found, target=target)

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> StreamRecord:
        if replay.start:
            await self._cluster.alter_offsets(sink_name(record.stream.name), as_stored(read(replay.start)))
        if replay.progress.method is not ReplayMethod.RESNAPSHOT:
            return record
        between, wanted = self._between.of(record), topics_of(record)
        there = await between.ids(wanted)
        made = await between.make(record.stream, wanted, there)
        await self._pass_gaps(record)
        return record.model_copy(update={"topics": {**there, **made}})

    async def _pass_gaps(self, record: StreamRecord) -> None:
        """Let the sink go on behind changes that are lost: a new snapshot brings the rows."""
        sink = (await self.progress(record, Position())).sink
        if isinstance(sink, ReplicatorError):
            raise sink
        assert sink is not None
        begins = {
            at: first
            for at, first in sink.earliest.items()
            if not first <= sink.stored.get(at, -1) <= sink.latest.get(at, 0)
            or sink.topics[at.topic] != record.topics.get(at.topic)
        }
        if begins:
            await self._cluster.alter_offsets(sink_name(record.stream.name), as_stored(begins))


def _refuse_same_tables(record: StreamRecord, source: SourceFacts, claimed: Sequence[StreamRecord]) -> None:
    """Raise `DestinationInUse` if a stream of the same program, which has no claim in the database yet, has a table."""
    for other in claimed:
        stream = other.stream
        if other.destination_cluster != record.destination_cluster or stream.source.kind is not EndpointKind.POSTGRES:
            continue
        include = [read_pattern(text, "include") for text in stream.include]
        exclude = [read_pattern(text, "exclude") for text in stream.exclude]
        if shared := chosen(source.tables, include, exclude):
            raise DestinationInUse(
                f"the stream {stream.name!r} writes to {shared[0]} of this database",
                property="include",
                fix="leave the table out of one of them",
            )


def _no_sink(record: StreamRecord) -> ReplicatorError:
    return StreamNotFound(
        f"its connector {sink_name(record.stream.name)} was deleted",
        stream=record.stream.name,
        fix="run pulumi up --refresh, which makes it again",
    )


def _info(text: str) -> Finding:
    return Finding(severity=Severity.INFO, code=InvalidStream.code, message=text, property="destination.uri")
