"""The recipe of a Debezium stream: what PostgreSQL adds to the life cycle of connectors."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from replicator.backends import stream_id
from replicator.backends.kafka_connect.cluster import RECENT, ConnectCluster, Connector, Offset
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.backends.kafka_connect.debezium import (
    adoption,
    bookmarks,
    kept_bookmark,
    log_rewind,
    preflight,
    replay_planner,
    sink_replay,
    source_facts,
    source_status,
    table_changes,
)
from replicator.backends.kafka_connect.debezium.between import Between, KafkaBetween
from replicator.backends.kafka_connect.debezium.connector_config import (
    BACKEND,
    build_source,
    snapshot_select,
)
from replicator.backends.kafka_connect.debezium.database_destination import DatabaseDestination
from replicator.backends.kafka_connect.debezium.declarations import topic_prefix
from replicator.backends.kafka_connect.debezium.destination import Destination
from replicator.backends.kafka_connect.debezium.details import (
    DebeziumDetails,
    TableDetails,
    details_of,
    leaves_an_end,
    publication_of,
    row_filter,
    signal_table,
    slot_of,
    topics_of,
    with_details,
)
from replicator.backends.kafka_connect.debezium.positions import Progress, read_position
from replicator.backends.kafka_connect.debezium.preflight import Side
from replicator.backends.kafka_connect.debezium.source_facts import SourceFacts
from replicator.backends.kafka_connect.debezium.source_objects import FoundObjects, SourceObjects, helpers_setup
from replicator.backends.kafka_connect.debezium.source_status import SourceStatus
from replicator.backends.kafka_connect.debezium.status import (
    AGAIN,
    findings_of,
    lost_position,
    lost_publication,
    no_heartbeat,
    outline_of,
    pause_cost,
    status_of,
)
from replicator.backends.kafka_connect.debezium.topics_destination import TopicsDestination
from replicator.backends.kafka_connect.deployed import DeployedStream, Listed, Parts, foreign_settings, sort
from replicator.backends.kafka_connect.kept_settings import carry_over, keeps_login
from replicator.backends.kafka_connect.recipe import Prepared, ResolvedReplay, answer_or_error
from replicator.backends.kafka_connect.record import RECORD_KEYS, ReplayRecord, StreamRecord, given_up
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.backends.postgres import catalog, slots
from replicator.backends.postgres.catalog import Server, TableFacts
from replicator.backends.postgres.identifiers import Table, read_table
from replicator.backends.postgres.lsn import read_lsn, write_lsn
from replicator.backends.postgres.session import Sessions
from replicator.backends.shared.declarations import keeps_ends
from replicator.backends.shared.single_flight import SingleFlight
from replicator.errors import (
    CopiesAgain,
    EngineUnavailable,
    InvalidStream,
    ReplayRefused,
    ReplicatorError,
    SourcePosition,
    SourceSetup,
)
from replicator.model import Checkpoint, DesiredState, EndpointKind, Mode, OnDelete, Stream, WaitFor
from replicator.replicator import Description, EndHints, Finding, Proposal, ReplayMethod, Severity


class Facts(NamedTuple):
    """The results of the checks before a change.

    :param source: `None` if the source is not reachable, and the change does not need it.
    :param side: the end on whose Kafka cluster the workers are; `source` stands for any but the destination's.
    :param ids: the identities of both ends, as far as they are known.
    :param objects: what exists under the stream's name; `None` if nothing is needed there.
    :param printed: the row filter of each table as PostgreSQL prints it, as far as it is known.
    """

    source: SourceFacts | None
    side: Side
    ids: StreamRecord
    objects: FoundObjects | None
    printed: Mapping[Table, str]


@dataclass(frozen=True, slots=True)
class Look:
    """One listing of the Connect cluster."""

    connectors: Mapping[str, Connector]
    listed: Listed


class DebeziumRecipe:
    """The recipe for the Debezium streams of one Connect cluster.

    :param aliases: names of the worker's config providers, by `authRef` scheme.
    :param kafka: the brokers of the workers' Kafka cluster, which has the topics between.
    :param claims: the streams that this process is changing, in any cluster.
    """

    kind = BACKEND
    connector_classes = adoption.CLASSES
    kept_together = (adoption.LOGIN, adoption.PRODUCER_LOGIN, adoption.TABLES, adoption.COLUMNS)
    never_kept = adoption.NEVER_KEPT
    has_objects = True

    def __init__(
        self,
        cluster: ConnectCluster,
        *,
        ends: ClusterClients,
        sessions: Sessions,
        aliases: Mapping[str, str],
        kafka: KafkaBetween,
        claims: PendingChanges,
    ) -> None:
        self._cluster = cluster
        self._aliases = aliases
        self._claims = claims
        self._sessions = sessions
        self._brokers = kafka.uri
        self._objects = SourceObjects(self._sessions)
        self._destinations: Mapping[EndpointKind, Destination] = {
            EndpointKind.KAFKA: TopicsDestination(cluster, ends, aliases),
            EndpointKind.POSTGRES: DatabaseDestination(cluster, Between(kafka, ends), sessions, aliases),
        }
        self._recent = SingleFlight(self._listing, RECENT)

    # --- a declaration as connectors ---------------------------------------------------------------------------------

    def part_names(self, name: str) -> Sequence[str]:
        return [part for destination in self._destinations.values() for part in destination.part_names(name)]

    def parts(self, record: StreamRecord) -> Parts:
        destination = self._to(record)
        return Parts(build_source(record, self._aliases, destination.settings(record)), destination.parts(record))

    def _to(self, record: StreamRecord) -> Destination:
        return self._destinations[record.stream.destination.kind]

    def moves(self, old: StreamRecord, new: StreamRecord) -> bool:
        """Tell whether the stream gets a new slot and a first snapshot: for another database, prefix or cluster."""
        was, now = old.stream, new.stream
        one_copy = (was.mode is Mode.SNAPSHOT) != (now.mode is Mode.SNAPSHOT)
        return one_copy or topic_prefix(was) != topic_prefix(now) or leaves_an_end(old, new)

    def needs_start(self, stream: Stream) -> bool:
        return True

    # --- adoption ----------------------------------------------------------------------------------------------------

    async def propose(self, connector: Connector, source: EndHints, destination: EndHints) -> Proposal:
        return await adoption.propose(self._sessions, connector, source, destination, self._brokers)

    async def adopted(self, connector: Connector, stream: Stream) -> StreamRecord:
        await self._refuse_other_brokers(connector, stream)
        return await adoption.adopted(self._sessions, connector, stream)

    async def _refuse_other_brokers(self, connector: Connector, stream: Stream) -> None:
        """Raise if records of a connector go to another Kafka cluster than the declaration says."""
        cluster = await self._destinations[stream.destination.kind].identity(stream)
        worker = (await self._cluster.recent_identity.get()).kafka_cluster_id
        adoption.refuse_other_brokers(connector, stream, is_workers=cluster == worker)

    async def refuse_adoption(self, connector: Connector, record: StreamRecord) -> None:
        adoption.refuse_shared_slot(connector, (await self._recent.get()).connectors.values())
        position = (await self.positions(record)).source
        found = await self._objects.look(record.stream, details_of(record))
        adoption.refuse_unstarted(record, position, has_slot=found.slot is not None)

    # --- checks before a change --------------------------------------------------------------------------------------

    async def recent(self) -> Listed:
        return (await self._recent.get()).listed

    def forget_errors(self) -> None:
        self._recent.forget_error()

    async def claim(self, stream: Stream, deployed: DeployedStream | None) -> StreamRecord:
        known = deployed.record if deployed and keeps_ends(deployed.record.stream, stream) else None
        source, (destination, topics) = await asyncio.gather(
            self._source_id(stream, known), self._destination_ids(stream, known)
        )
        return StreamRecord(
            stream=stream,
            source_cluster=source,
            destination_cluster=destination,
            topics_cluster=topics,
            details=deployed.record.details if deployed else {},
        )

    async def _source_id(self, stream: Stream, known: StreamRecord | None) -> str | None:
        session = self._objects.owner(stream)
        try:
            return (await catalog.server(session)).identity
        except EngineUnavailable:
            if known is None:
                raise
            return known.source_cluster

    async def _destination_ids(self, stream: Stream, known: StreamRecord | None) -> tuple[str | None, str | None]:
        """Return the ids of the destination, and of the Kafka cluster with the topics between."""
        destination = self._destinations[stream.destination.kind]
        try:
            return await destination.identity(stream), await destination.topics_cluster(stream)
        except EngineUnavailable:
            if known is None:
                raise
            return known.destination_cluster, known.topics_cluster

    async def look(self, stream: Stream, claimed: Sequence[StreamRecord], deployed: DeployedStream | None) -> Facts:
        known = deployed.record if deployed is not None and not deployed.record.creating else None
        ids = await self.claim(stream, deployed)
        worker = (await self._cluster.recent_identity.get()).kafka_cluster_id
        topics = ids.topics_cluster or ids.destination_cluster
        side: Side = "destination" if topics == worker else "source"
        seen = await self._recent.get()
        others = [*(item.record for item in seen.listed.streams.values()), *claimed]
        others = [record for record in others if not self._claims.is_removed(record.stream.owner)]
        preflight.refuse_same_topics(stream, topics, others, seen.connectors.values())
        old = deployed.record.stream if deployed else stream
        if not keeps_login(deployed, adoption.LOGIN, old.source, stream.source):
            await preflight.refuse_unresolved_logins(self._cluster, stream, self._aliases)
        if not keeps_login(deployed, adoption.PRODUCER_LOGIN, old.destination, stream.destination):
            await self._to(ids).refuse_unresolved_logins(stream)
        try:
            source = await source_facts.look(self._sessions, stream)
        except EngineUnavailable:
            if known is None or not table_changes.keeps_data(known.stream, stream):
                raise
            return Facts(None, side, ids, None, {})
        printed = await source_facts.refuse_unfit(self._sessions, stream, source)
        facts = Facts(source, side, ids, None, printed)
        if known is not None and self.moves(known, ids):
            _refuse_start_elsewhere(stream)
        if known is None or self.moves(known, ids):
            objects = await self._refuse_creation(stream, facts, claimed, deployed)
        else:
            objects = await self._refuse_change(facts, known, stream)
        try:
            planned = self._planned(stream, facts, deployed)
            await self._to(ids).refuse_unfit(planned, source, deployed.record if deployed else None, claimed)
        except EngineUnavailable:
            if known is None or not table_changes.keeps_data(known.stream, stream):
                raise
        return facts._replace(objects=objects)

    def _planned(self, stream: Stream, facts: Facts, deployed: DeployedStream | None) -> StreamRecord:
        """Return the record that a change would write, as far as the checks before it need one."""
        details = self._details(stream, facts, deployed.record if deployed else None)
        return facts.ids.model_copy(update={"stream": stream, "side": facts.side, "details": details.wire()})

    async def _refuse_creation(
        self, stream: Stream, facts: Facts, claimed: Sequence[StreamRecord], deployed: DeployedStream | None
    ) -> FoundObjects | None:
        assert facts.source is not None
        if stream.mode is Mode.SNAPSHOT:
            return None
        details = self._details(stream, facts, deployed.record if deployed else None)
        found = await self._objects.refuse_foreign(stream, details)
        if found.publication is None:
            await self._objects.refuse_unable(stream, details, facts.source.tables.values())
        _refuse_bookmarks(stream, facts.source.server, found, new=len(stream.bookmarks))
        if found.slot is None:
            server = facts.source.server.identity.partition("/")[0]
            beside = {
                slot_of(record): len(record.stream.bookmarks)
                for record in claimed
                if (record.source_cluster or "").partition("/")[0] == server and record.stream.mode is not Mode.SNAPSHOT
            }
            there = await slots.look(self._objects.owner(stream), beside) if beside else {}
            unmade = beside.keys() - there.keys()
            count = len(stream.bookmarks) + sum(beside[name] for name in unmade)
            source_facts.refuse_full(facts.source.server, len(unmade), bookmarks=count)
        elif stream.bookmarks and not details.slot_made:
            source_facts.refuse_full(facts.source.server, 0, streams=0, bookmarks=len(stream.bookmarks))
        has_helpers = found.publication is None or found.is_ours(details.claim) or found.has_helpers
        _refuse_blind_wait(stream, has_helpers=has_helpers)
        return found

    async def _refuse_change(self, facts: Facts, known: StreamRecord, stream: Stream) -> FoundObjects | None:
        details = self._details(stream, facts, known)
        if stream.mode is Mode.SNAPSHOT:
            return None
        found = await self._objects.refuse_foreign(stream, details)
        if found.slot is not None and found.is_elsewhere:
            raise slots.in_use(found.slot)
        again = table_changes.read_again(details_of(known), details)
        if again and adoption.keeps_columns(known):
            adoption.refuse_kept_columns(known, again[0])
        has_helpers = details.has_helpers or found.has_helpers
        _refuse_blind_wait(stream, has_helpers=has_helpers)
        if facts.source is not None:
            new = len(set(stream.bookmarks) - details.bookmarks.keys())
            _refuse_bookmarks(stream, facts.source.server, found, new=new)
            if new:
                source_facts.refuse_full(facts.source.server, 0, streams=0, bookmarks=new)
        if found.is_ours(details.claim) and facts.source is not None:
            before = details_of(known).tables
            if joining := [table for name, table in facts.source.tables.items() if str(name) not in before]:
                await self._objects.refuse_unable(stream, details, joining)
        if again and not has_helpers:
            raise SourceSetup(
                f"{again[0]} is to be read while the stream runs, and the stream has no table for signals",
                property="include",
                fix="give the table a stream of its own; or let a database administrator run: "
                + "; ".join(helpers_setup(stream, found.publication, facts.source.role.name if facts.source else "")),
            )
        return found

    async def validate(self, stream: Stream, facts: Facts, deployed: DeployedStream | None) -> None:
        if facts.source is None:
            return
        record = self._planned(stream, facts, deployed)
        config = self.parts(record).main
        if deployed is not None and not self.moves(deployed.record, record):
            config = carry_over(deployed, self.parts(deployed.record).main, config, self.kept_together).config
        await preflight.refuse_invalid(self._cluster, config, stream)
        await self._to(record).validate(record)

    async def warnings(
        self, stream: Stream, facts: Facts, claim: StreamRecord, deployed: DeployedStream | None
    ) -> list[Finding]:
        if facts.source is None:
            text = "the source does not answer; this change does not need it, and the stream continues when it does"
            return [
                Finding(severity=Severity.WARNING, code=EngineUnavailable.code, message=text, property="source.uri")
            ]
        known = deployed.record if deployed else None
        details = self._details(stream, facts, known)
        found = [*_hidden_rows(stream, facts.source)]
        destination = self._to(claim)
        if known is not None and not known.creating and self.moves(known, claim):
            found += bookmarks.changes_told(known, stream.model_copy(update={"bookmarks": ()}))
        if known is None or known.creating or self.moves(known, claim):
            found += await destination.warnings(stream, facts.source, list(facts.source.tables))
            there = facts.objects
            foreign = there is not None and there.publication is not None and not there.is_ours(details.claim)
            if there is not None and foreign and not there.has_helpers:
                found.append(no_heartbeat(stream))
            return found
        before = details_of(known).tables
        found += bookmarks.changes_told(known, stream)
        if stream.desired_state is DesiredState.PAUSED and known.stream.desired_state is DesiredState.RUNNING:
            found += pause_cost(await self._source_status(known))
        found += await destination.warnings(
            stream, facts.source, [table for table in facts.source.tables if str(table) not in before]
        )
        property = "include" if row_filter(known.stream) == row_filter(stream) else "filter"
        for table in table_changes.read_again(details_of(known), details):
            rows = facts.source.tables[table].rows
            count = "an unknown number of rows" if rows is None else f"about {rows} rows, as of the last ANALYZE"
            passing = "; those that pass the filter are sent" if stream.filter else ""
            text = f"{table} is read while the stream runs: {count}{passing}"
            found.append(Finding(severity=Severity.WARNING, code=CopiesAgain.code, message=text, property=property))
        for name in sorted(details_of(known).tables.keys() - details.tables.keys()):
            text = f"{name} leaves the stream: what the destination has of it stays as it is, and gets no more changes"
            found.append(Finding(severity=Severity.WARNING, code=InvalidStream.code, message=text, property="include"))
        return found

    def positioned(self, deployed: DeployedStream) -> Sequence[Connector]:
        return deployed.all

    async def refuse_gap(self, record: StreamRecord) -> None:
        stream = record.stream
        if stream.mode is Mode.SNAPSHOT:
            return
        try:
            objects = await self._objects.look(stream, details_of(record))
        except EngineUnavailable as error:
            raise preflight.unseen_gap(stream.name, error) from error
        progress = await self.positions(record)
        marked = await bookmarks.look(self._objects.streaming(stream), record) if details_of(record).bookmarks else {}
        if lost := lost_position(record, progress.source, objects.slot, marked):
            raise lost
        if lost := lost_publication(record, objects.publication):
            raise lost
        await self._to(record).refuse_gap(record, progress)

    async def refuse_return(self, record: StreamRecord, stream: Stream) -> None:
        pass  # a table that returns is read again

    # --- changes -----------------------------------------------------------------------------------------------------

    async def record(self, stream: Stream, facts: Facts, deployed: DeployedStream | None) -> StreamRecord:
        known = deployed.record if deployed else None
        details = self._details(stream, facts, known)
        if known is not None and facts.objects is not None:
            usable = facts.objects.is_ours(details.claim) or facts.objects.has_helpers
            usable = usable and not adoption.keeps_columns(known)
            details = details.model_copy(update={"has_helpers": details.has_helpers or usable})
        if known is not None and facts.source is not None and known.creating and self.moves(known, facts.ids):
            details = table_changes.leaving(details, known)
        return StreamRecord(
            stream=stream,
            source_cluster=facts.ids.source_cluster,
            destination_cluster=facts.ids.destination_cluster,
            topics_cluster=facts.ids.topics_cluster,
            side=facts.side,
            topics=known.topics if known else {},
            replays=known.replays if known else (),
            details=details.wire(),
        )

    def _details(self, stream: Stream, facts: Facts, known: StreamRecord | None) -> DebeziumDetails:
        """Return what the record is to keep of the source; a table that is new in a stream is read once more."""
        before = details_of(known) if known is not None and known.details else None
        if facts.source is None:
            assert before is not None
            return before
        tables = {
            str(table): TableDetails(
                oid=found.oid, condition=facts.printed.get(table), partitioned=found.is_partitioned
            )
            for table, found in facts.source.tables.items()
        }
        if before is None or known is None:
            return DebeziumDetails(claim=secrets.token_hex(16), tables=tables)
        reads = stream.mode is Mode.SNAPSHOT_THEN_CDC and not known.creating
        refiltered = row_filter(known.stream) != row_filter(stream)
        holds_rows = self._to(facts.ids).holds_rows

        def entry(table: Table, now: TableDetails) -> TableDetails:
            old = before.tables.get(str(table))
            assert facts.source is not None
            wider = holds_rows and table_changes.gets_columns(known.stream, stream, facts.source, table)
            again = reads and (old is None or old.oid != now.oid or refiltered or wider)
            return now.model_copy(update={"snapshots": (old.snapshots if old else 0) + again})

        return before.model_copy(
            update={"tables": {name: entry(read_table(name), table) for name, table in tables.items()}}
        )

    async def find_start(self, stream: Stream) -> int | None:
        if stream.start_from is None:
            return None
        found = await self._objects.look(stream, DebeziumDetails(claim=""))
        return await kept_bookmark.start_of(self._objects.streaming(stream), stream, found)

    async def prepare(self, record: StreamRecord, start: int | None) -> Prepared:
        await self._forget_kept_offsets(record)
        source = await source_facts.look(self._sessions, record.stream)
        record, _ = await self._to(record).prepare(record, source, fresh=True)
        listed = frozenset((await self._cluster.listing()).keys())
        record = await self._objects.make(record)
        if start is not None:
            await self._go_on_after(record.stream, start)
        return Prepared(record, listed)

    async def _go_on_after(self, stream: Stream, lsn: int) -> None:
        """Let Debezium send what was committed after an LSN, and take no first snapshot."""
        stored = Offset(partition={"server": topic_prefix(stream)}, offset={"lsn": lsn})
        await self._cluster.alter_offsets(stream.name, [stored])

    async def _forget_kept_offsets(self, record: StreamRecord) -> None:
        """Remove positions that Connect kept of a connector of the same name: they are of another slot."""
        if details_of(record).slot_made:
            return
        if await self._cluster.offsets(record.stream.name):
            await self._cluster.reset_offsets(record.stream.name)

    async def moved(self, record: StreamRecord, before: StreamRecord) -> StreamRecord:
        details = table_changes.leaving(details_of(record), before)
        if record.destination_cluster != before.destination_cluster:
            details = details.model_copy(
                update={"left_destinations": (*details_of(before).left_destinations, before.stream.destination)}
            )
        return with_details(record, details).model_copy(update={"topics": before.topics})

    def starts_idle(self, record: StreamRecord) -> bool:
        return False

    async def may_idle(self, deployed: DeployedStream, connector: str) -> bool:
        return False

    # --- objects outside Connect -------------------------------------------------------------------------------------

    def is_writable(self, facts: Facts) -> bool:
        return facts.source is not None

    def must_stop(self, old: StreamRecord, new: StreamRecord) -> bool:
        before, after = details_of(old), details_of(new)
        has_sink = bool(self._to(new).parts(new))  # whose consumer group takes offsets only while it does not run
        sink_differs = has_sink and before.tables.keys() != after.tables.keys()
        return sink_differs or bool(table_changes.read_again(before, after))

    async def alter(self, old: StreamRecord, new: StreamRecord) -> StreamRecord:
        source = await source_facts.look(self._sessions, new.stream)
        new = with_details(new, table_changes.renewed(new, source))
        try:
            new, made = await self._to(new).prepare(new, source, fresh=False)
        except EngineUnavailable:
            if not table_changes.keeps_data(old.stream, new.stream):
                raise
            made = frozenset()
        new = with_details(new, table_changes.filled(details_of(old), new, made))
        if new.stream.mode is not Mode.SNAPSHOT:
            await self._objects.set_tables(new)
            new = await self._objects.set_bookmarks(new)
        return new

    async def follow_up(self, record: StreamRecord) -> None:
        """Signal each snapshot that the record has; one that was signalled before is not signalled again."""
        stream, details = record.stream, details_of(record)
        due = {name: table for name, table in details.tables.items() if table.snapshots}
        if not due or not details.has_helpers:
            return
        facts = await source_facts.look(self._sessions, stream)
        await self._signal(
            stream,
            {
                f"{at.oid}-{at.snapshots}": found
                for table, found in facts.tables.items()
                if (at := due.get(str(table))) is not None
            },
        )
        with suppress(EngineUnavailable):  # then they are read once more by the next change
            await self._to(record).settled(record)

    async def _signal(self, stream: Stream, snapshots: Mapping[str, TableFacts]) -> None:
        """Tell the connector to read tables again, each once for its id."""
        condition = row_filter(stream)
        async with self._objects.streaming(stream).transaction() as connection:
            for id, found in snapshots.items():
                data = json.dumps(_signal(found, condition))
                await connection.execute(
                    f"INSERT INTO {signal_table(stream).sql} (id, type, data) VALUES (%s, 'execute-snapshot', %s) "  # noqa: S608
                    "ON CONFLICT (id) DO NOTHING".encode(),
                    (id, data),
                )

    async def ready(self, record: StreamRecord) -> bool:
        return await self._to(record).ready(record)

    async def refuse_removal(self, record: StreamRecord) -> None:
        try:
            await self._objects.look(record.stream, details_of(record))
        except ReplicatorError as error:
            raise type(error)(
                f"its slot cannot be dropped, and would hold WAL forever: {error.message}",
                stream=record.stream.name,
                property=error.property,
                fix=f"{error.fix}; or, if the database is gone for good, delete the connector {record.stream.name} "
                "yourself, after which the stream counts as removed",
            ) from error
        await self._to(record).refuse_removal(record)
        if self._leaves_bookmark(record):
            await self._refuse_keeping(record)

    async def _refuse_keeping(self, record: StreamRecord) -> None:
        """Raise if a stream that goes on from the slot would lack something."""
        stream = record.stream
        if (await self._objects.look(stream, details_of(record))).is_kept:
            return  # by a delete that was interrupted, and may have reset the position since
        position, why = (await self.positions(record)).source, None
        if bookmarks.rewinds_to(record) is not None:
            why, fix = "a replay was interrupted", f"run replicator resume {stream_id(stream)}"
        elif position.in_snapshot or (position.lsn is None and stream.mode is Mode.SNAPSHOT_THEN_CDC):
            why, fix = "the stream is still reading its tables", "wait until its state is no longer snapshot"
        if why:
            raise ReplayRefused(
                f"no bookmark can be left: {why}",
                stream=stream.name,
                property="onDelete",
                fix=f"{fix}, and delete it then; or apply onDelete: remove first",
            )

    def _leaves_bookmark(self, record: StreamRecord) -> bool:
        """Tell whether a delete leaves the slot. What an unfinished creation has taken is left as it was."""
        if record.creating and not details_of(record).slot_made:
            return record.stream.start_from is not None
        return record.stream.on_delete is OnDelete.KEEP_BOOKMARK

    async def drain(self, deployed: DeployedStream) -> None:
        await self._to(deployed.record).drain(deployed)

    async def dispose(self, record: StreamRecord, *, undone: bool = False) -> None:
        # A creation that took a bookmark gives it back.
        leaves = record.stream.start_from is not None if undone else self._leaves_bookmark(record)
        if not (leaves and await self._objects.keep(record)):
            await self._objects.remove(record)
        await self._to(record).dispose(record)

    # --- reads -------------------------------------------------------------------------------------------------------

    def as_found(self, deployed: DeployedStream) -> Stream:
        stream, parts = deployed.record.stream, self.parts(deployed.record)
        found = foreign_settings(deployed.connector, parts.main, {*RECORD_KEYS, *deployed.record.kept})
        for other in deployed.others:
            own = foreign_settings(other, parts.others.get(other.name, {}), ())
            found |= {f"{other.name}: {key}": value for key, value in own.items()}
        return stream.model_copy(update={"options": {**stream.options, **found}}) if found else stream

    def outline(self, deployed: DeployedStream, error: ReplicatorError | None = None) -> Description:
        return Description(
            stream=self.as_found(deployed),
            status=outline_of(deployed, error),
            engine_objects=self._engine_objects(deployed),
        )

    async def measure(self, streams: Sequence[DeployedStream]) -> list[Description]:
        seen = await source_status.look(self._sessions, [deployed.record for deployed in streams])
        read = await asyncio.gather(*(answer_or_error(self.positions(deployed.record)) for deployed in streams))
        found = []
        for deployed, at in zip(streams, read, strict=True):
            if isinstance(at, Progress):
                found.append(self._described(deployed, at, seen[deployed.name]))
            elif at is not None:
                found.append(self.outline(deployed, at))
        return found

    def _described(
        self, deployed: DeployedStream, progress: Progress, source: SourceStatus | ReplicatorError
    ) -> Description:
        at = progress.source
        slot = source.slot if isinstance(source, SourceStatus) else None
        seen = slot if deployed.record.stream.mode is not Mode.SNAPSHOT else None
        half = Description(
            stream=self.as_found(deployed),
            status=status_of(deployed, at, source),
            engine_objects=self._engine_objects(deployed),
            source_end={"wal": seen.end} if seen else {},
            reached={"wal": at.lsn or 0} if seen else {},
            findings=tuple(findings_of(deployed, at, source)),
        )
        return self._to(deployed.record).described(deployed, progress, half)

    def _engine_objects(self, deployed: DeployedStream) -> dict[str, object]:
        record = deployed.record
        details = details_of(record)
        found: dict[str, object] = {
            "connectors": [connector.name for connector in deployed.all],
            "topics": topics_of(record),
        }
        if details.slot_made:
            found |= {"slot": slot_of(record), "publication": publication_of(record)}
        if details.bookmarks:
            found["bookmarks"] = {name: known.lsn for name, known in details.bookmarks.items()}
        if record.source_cluster:
            found["sourceDatabase"] = record.source_cluster
        return found | dict(self._to(record).engine_objects(record))

    async def _listing(self) -> Look:
        connectors = await self._cluster.listing()
        return Look(connectors, sort(connectors.values(), BACKEND))

    # --- replays -----------------------------------------------------------------------------------------------------

    async def positions(self, record: StreamRecord) -> Progress:
        stream = record.stream
        at = read_position(await self._cluster.offsets(stream.name), topic_prefix(stream), stream.name)
        return await self._to(record).progress(record, at)

    def is_done(self, record: StreamRecord, replay: ReplayRecord, positions: Progress) -> bool:
        if replay.progress.finished_at is not None:
            return True
        if replay.progress.method is ReplayMethod.SINK_REWIND:
            return replay.applied and sink_replay.is_done(replay, positions)
        reached = positions.reached
        return (
            replay.applied
            and reached is not None
            and reached >= read_lsn(replay.until)
            and not positions.source.in_snapshot
        )

    async def resolve(
        self, deployed: DeployedStream, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[ResolvedReplay, Progress]:
        record, stream, destination = deployed.record, deployed.record.stream, self._to(deployed.record)
        source = await self._seen_source(record)
        progress = await self.positions(record)
        if method is ReplayMethod.AUTO and start.lsn in details_of(record).bookmarks:
            method = ReplayMethod.LOG_REWIND
        start = log_rewind.named(record, start)
        if source.slot is not None and not sink_replay.is_offsets(start):
            replay_planner.refuse_the_future(start, source.slot, stream.name)
        found = await destination.resolve(deployed, progress, start, method, target)
        if found is None:
            session = self._objects.streaming(stream)
            found = replay_planner.resolve(
                record,
                await source_facts.look(self._sessions, stream),
                progress.source,
                source,
                start,
                await log_rewind.lsn_at(session, stream, start, details_of(record).bookmarks.values()),
                method=method,
                target=target,
                leftovers=destination.leftovers,
            )
        return found, progress

    async def _seen_source(self, record: StreamRecord) -> SourceStatus:
        found = await self._source_status(record)
        if isinstance(found, ReplicatorError):
            raise found
        return found

    async def _source_status(self, record: StreamRecord) -> SourceStatus | ReplicatorError:
        (found,) = (await source_status.look(self._sessions, [record])).values()
        return found

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> tuple[StreamRecord, ReplayRecord]:
        stream = record.stream
        record = await self._to(record).set_back(record, replay)
        if replay.progress.method is ReplayMethod.SINK_REWIND:
            return record, replay
        if replay.progress.method is ReplayMethod.LOG_REWIND:
            return record, await self._rewind(record, replay)
        facts = await source_facts.look(self._sessions, stream)
        key = hashlib.sha256(replay.progress.key.encode()).hexdigest()[:32]
        await self._signal(stream, {f"replay-{key}-{found.oid}": found for found in facts.tables.values()})
        slot = (await self._seen_source(record)).slot
        if slot is None:
            raise _no_slot(record)
        return record, replay.model_copy(update={"until": write_lsn(slot.end)})

    async def _rewind(self, record: StreamRecord, replay: ReplayRecord) -> ReplayRecord:
        """Let the slot send changes again; return the replay as failed if it has confirmed them meanwhile."""
        at, bookmark = log_rewind.read_start(replay.start)
        slot = (await self._seen_source(record)).slot
        try:
            if bookmark is not None:
                await self._objects.go_back(record, bookmark)
                slot = (await self._seen_source(record)).slot
        except SourcePosition as error:
            if slot is None or slot.is_lost:
                raise
            return given_up(replay, error.message)
        if slot is None:
            raise _no_slot(record)
        if (slot.confirmed or 0) > at:
            return given_up(
                replay,
                f"the slot has been confirmed up to {write_lsn(slot.confirmed or 0)} since the replay was requested",
            )
        await self._go_on_after(record.stream, at)
        return replay.model_copy(update={"until": write_lsn(slot.end)})

    async def aclose(self) -> None:
        await self._recent.settled()
        await self._sessions.aclose()
        await self._cluster.aclose()


def _no_slot(record: StreamRecord) -> SourcePosition:
    return SourcePosition(
        f"the replication slot {slot_of(record)} does not exist",
        stream=record.stream.name,
        property="source.uri",
        fix=AGAIN,
    )


def _refuse_blind_wait(stream: Stream, *, has_helpers: bool) -> None:
    if stream.wait_for is WaitFor.CAUGHT_UP and stream.mode is not Mode.SNAPSHOT and not has_helpers:
        raise InvalidStream(
            "whether it has caught up is unknown: it has no table for heartbeats, and a quiet source sends nothing",
            property="waitFor",
            fix="name a role that may make tables with source.adminAuthRef; or write waitFor: running",
        )


def _refuse_start_elsewhere(stream: Stream) -> None:
    if stream.start_from is not None:
        raise InvalidStream(
            "applies to a new stream only; in another database or cluster, or with another topic.prefix, the stream "
            "gets a new slot",
            property="startFrom",
            fix="remove startFrom from the program",
        )


def _refuse_bookmarks(stream: Stream, server: Server, found: FoundObjects, *, new: int) -> None:
    """Raise if a bookmark may fill the disk of the server, or if no replay could go back to it.

    :param new: the number of bookmarks that are to be made.
    """
    keeps = stream.on_delete is OnDelete.KEEP_BOOKMARK
    if new:
        source_facts.refuse_unbounded(server, "bookmarks")
    if keeps:
        source_facts.refuse_unbounded(server, "onDelete")
    if (
        found.publication is not None
        and found.note is None
        and (keeps or (new and (stream.filter or not found.has_helpers)))
    ):
        raise SourceSetup(
            f"an administrator created the publication {found.publication.name}: the stream cannot record in it since "
            "when its filter applies, or has no helper tables, and a replay needs both",
            property="onDelete" if keeps else "bookmarks",
            fix="leave it out; or let the stream create its publication, with a role in source.adminAuthRef that may",
        )


def _hidden_rows(stream: Stream, facts: SourceFacts) -> list[Finding]:
    hidden = [str(table) for table, found in facts.tables.items() if found.hides_rows]
    if not hidden or stream.mode is Mode.CDC:
        return []
    text = (
        f"row-level security of {hidden[0]} applies to the role {facts.role.name}: a snapshot has the rows that its "
        "policies show, and the changes are those of all rows"
    )
    return [Finding(severity=Severity.WARNING, code=SourceSetup.code, message=text, property="source.authRef")]


def _signal(found: TableFacts, condition: str | None) -> dict[str, object]:
    """Return the signal that reads one table again.

    A task cannot go on with an incremental snapshot of a table whose name needs quotes: it fails for ever (seen on
    Debezium 3.7). Nor can that read a table without a key. So changes wait for a blocking snapshot of such a table,
    whose filter is a whole query.
    """
    table = found.table
    incremental = bool(found.key) and str(table) == f"{table.schema}.{table.name}"
    signal: dict[str, object] = {
        "data-collections": [table.sql],
        "type": "incremental" if incremental else "blocking",
    }
    if condition is not None:
        text = condition if incremental else snapshot_select(table, condition)
        signal["additional-conditions"] = [{"data-collection": table.sql, "filter": text}]
    return signal
