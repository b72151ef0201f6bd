"""The recipe of a Debezium stream: what PostgreSQL adds to the life cycle of connectors."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from replicator.authref import Redactor
from replicator.backends.kafka_connect.cluster import RECENT, ConnectCluster, Connector
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.backends.kafka_connect.debezium import preflight, replay_planner, source_facts, source_status
from replicator.backends.kafka_connect.debezium.connector_config import BACKEND, build, snapshot_select
from replicator.backends.kafka_connect.debezium.declarations import is_same_place, topic_prefix
from replicator.backends.kafka_connect.debezium.details import (
    DebeziumDetails,
    LeftSource,
    TableDetails,
    details_of,
    row_filter,
    signal_table,
    slot_name,
    with_details,
)
from replicator.backends.kafka_connect.debezium.positions import Position, read_position
from replicator.backends.kafka_connect.debezium.preflight import Side
from replicator.backends.kafka_connect.debezium.source_facts import SourceFacts, topic_part
from replicator.backends.kafka_connect.debezium.source_objects import FoundObjects, SourceObjects
from replicator.backends.kafka_connect.debezium.source_status import SourceStatus
from replicator.backends.kafka_connect.debezium.status import (
    AGAIN,
    findings_of,
    lost_position,
    lost_publication,
    no_heartbeat,
    outline_of,
    status_of,
)
from replicator.backends.kafka_connect.deployed import DeployedStream, Listed, Parts, foreign_settings, sort
from replicator.backends.kafka_connect.recipe import Prepared, ResolvedReplay, answer_or_error
from replicator.backends.kafka_connect.record import RECORD_KEYS, ReplayRecord, StreamRecord
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.backends.postgres import catalog, slots
from replicator.backends.postgres.catalog import TableFacts
from replicator.backends.postgres.identifiers import Table
from replicator.backends.postgres.lsn import read_lsn, write_lsn
from replicator.backends.postgres.session import Sessions
from replicator.backends.postgres.slots import Slot
from replicator.backends.shared.declarations import canonical
from replicator.backends.shared.single_flight import SingleFlight
from replicator.errors import (
    CopiesAgain,
    EngineUnavailable,
    InvalidStream,
    ReplicatorError,
    SourcePosition,
    SourceSetup,
)
from replicator.model import Checkpoint, Mode, Stream, WaitFor
from replicator.replicator import Description, Finding, ReplayMethod, Severity


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
    :param claims: the streams that this process is changing, in any cluster.
    :param environ: the environment for `env://` references of the provider's own connections.
    """

    kind = BACKEND
    has_objects = True

    def __init__(
        self,
        cluster: ConnectCluster,
        *,
        aliases: Mapping[str, str],
        redactor: Redactor,
        claims: PendingChanges,
        environ: Mapping[str, str],
    ) -> None:
        self._cluster = cluster
        self._aliases = aliases
        self._claims = claims
        self._ends = ClusterClients(environ, redactor)
        self._sessions = Sessions(environ, redactor)
        self._objects = SourceObjects(self._sessions)
        self._recent = SingleFlight(self._listing, RECENT)

    # --- a declaration as connectors ---------------------------------------------------------------------------------

    def part_names(self, name: str) -> Sequence[str]:
        return ()

    def parts(self, record: StreamRecord) -> Parts:
        return build(record, self._aliases)

    def moves(self, old: StreamRecord, new: StreamRecord) -> bool:
        """Tell whether the stream gets a new slot and a first snapshot: for another database, prefix or cluster."""
        was, now = old.stream, new.stream
        one_copy = (was.mode is Mode.SNAPSHOT) != (now.mode is Mode.SNAPSHOT)
        return (
            one_copy
            or topic_prefix(was) != topic_prefix(now)
            or any(
                _is_another(known[0], known[1], same)
                for known, same in (
                    ((old.source_cluster, new.source_cluster), is_same_place(was.source, now.source, "source")),
                    (
                        (old.destination_cluster, new.destination_cluster),
                        is_same_place(was.destination, now.destination, "destination"),
                    ),
                )
            )
        )

    def needs_start(self, stream: Stream) -> bool:
        return True

    # --- checks before a change --------------------------------------------------------------------------------------

    async def recent(self) -> Listed:
        return (await self._recent.get()).listed

    def forget_errors(self) -> None:
        self._recent.forget_error()

    async def claim(self, stream: Stream, deployed: DeployedStream | None) -> StreamRecord:
        known = deployed.record if deployed and _keeps_ends(deployed.record.stream, stream) else None
        source, destination = await asyncio.gather(self._source_id(stream, known), self._destination_id(stream, known))
        return StreamRecord(
            stream=stream,
            source_cluster=source,
            destination_cluster=destination,
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

    async def _destination_id(self, stream: Stream, known: StreamRecord | None) -> str | None:
        try:
            return (await (await self._ends.brokers(stream, "destination")).cluster()).id
        except EngineUnavailable:
            if known is None:
                raise
            return known.destination_cluster

    async def look(self, stream: Stream, claimed: Sequence[StreamRecord], deployed: DeployedStream | None) -> Facts:
        known = deployed.record if deployed is not None and not deployed.record.creating else None
        ids = await self.claim(stream, deployed)
        worker = (await self._cluster.recent_identity.get()).kafka_cluster_id
        side: Side = "destination" if ids.destination_cluster == worker else "source"
        seen = await self._recent.get()
        others = [*(item.record for item in seen.listed.streams.values()), *claimed]
        others = [record for record in others if not self._claims.is_removed(record.stream.owner)]
        preflight.refuse_same_topics(stream, ids.destination_cluster, others, seen.connectors.values())
        await preflight.refuse_unresolved_logins(self._cluster, stream, self._aliases)
        try:
            source = await source_facts.look(self._sessions, stream)
        except EngineUnavailable:
            if known is None or not _keeps_data(known.stream, stream):
                raise
            return Facts(None, side, ids, None, {})
        printed = await source_facts.refuse_unfit(self._sessions, stream, source)
        facts = Facts(source, side, ids, None, printed)
        if known is None or self.moves(known, ids):
            objects = await self._refuse_creation(stream, facts, claimed, deployed)
        else:
            objects = await self._refuse_change(facts, known, stream)
        return facts._replace(objects=objects)

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
        if found.slot is None:
            server = facts.source.server.identity.partition("/")[0]
            beside = {
                slot_name(record.stream)
                for record in claimed
                if (record.source_cluster or "").partition("/")[0] == server and record.stream.mode is not Mode.SNAPSHOT
            }
            there = await slots.look(self._objects.owner(stream), beside) if beside else {}
            source_facts.refuse_full(facts.source.server, len(beside - there.keys()))
        has_helpers = found.publication is None or found.is_ours(details.claim) or found.has_helpers
        _refuse_blind_wait(stream, has_helpers=has_helpers)
        return found

    async def _refuse_change(self, facts: Facts, known: StreamRecord, stream: Stream) -> FoundObjects | None:
        details = self._details(stream, facts, known)
        _refuse_blind_wait(stream, has_helpers=details.has_helpers)
        if stream.mode is Mode.SNAPSHOT:
            return None
        found = await self._objects.refuse_foreign(stream, details)
        if found.is_ours(details.claim) and facts.source is not None:
            before = details_of(known).tables
            if joining := [table for name, table in facts.source.tables.items() if str(name) not in before]:
                await self._objects.refuse_unable(stream, details, joining)
        if (again := _read_again(details_of(known), details)) and not details.has_helpers:
            raise SourceSetup(
                f"{again[0]} is to be read while the stream runs, and the stream has no table for signals",
                property="include",
                fix="give the table a stream of its own; or name a role that may make tables with adminAuthRef, remove "
                "the stream, and make it again",
            )
        return found

    async def validate(self, stream: Stream, facts: Facts) -> None:
        if facts.source is None:
            return
        record = facts.ids.model_copy(
            update={"stream": stream, "side": facts.side, "details": self._details(stream, facts, None).wire()}
        )
        await preflight.refuse_invalid(self._cluster, self.parts(record).main, stream)

    async def warnings(
        self, stream: Stream, facts: Facts, claim: StreamRecord, deployed: DeployedStream | None
    ) -> list[Finding]:
        if facts.source is None:
            text = "the source does not answer; this change does not need it, and the stream goes on when it does"
            return [
                Finding(severity=Severity.WARNING, code=EngineUnavailable.code, message=text, property="source.uri")
            ]
        known = deployed.record if deployed else None
        details = self._details(stream, facts, known)
        found = [*_hidden_rows(stream, facts.source)]
        if known is None or known.creating or self.moves(known, claim):
            prefix = topic_prefix(stream)
            found += await preflight.topics_there(
                self._ends, stream, [f"{prefix}.{topic_part(table)}" for table in facts.source.tables]
            )
            there = facts.objects
            foreign = there is not None and there.publication is not None and not there.is_ours(details.claim)
            if there is not None and foreign and not there.has_helpers:
                found.append(no_heartbeat(stream))
            return found
        property = "include" if row_filter(known.stream) == row_filter(stream) else "filter"
        for table in _read_again(details_of(known), details):
            rows = facts.source.tables[table].rows
            count = "an unknown number of rows" if rows is None else f"about {rows} rows, as of the last ANALYZE"
            passing = "; those that pass the filter are sent" if stream.filter else ""
            text = f"{table} is read while the stream runs: {count}{passing}"
            found.append(Finding(severity=Severity.WARNING, code=CopiesAgain.code, message=text, property=property))
        for name in sorted(details_of(known).tables.keys() - details.tables.keys()):
            text = f"{name} leaves the stream: its topic stays as it is, and gets no more changes"
            found.append(Finding(severity=Severity.WARNING, code=InvalidStream.code, message=text, property="include"))
        return found

    async def refuse_gap(self, record: StreamRecord) -> None:
        stream = record.stream
        if stream.mode is Mode.SNAPSHOT:
            return
        try:
            objects = await self._objects.look(stream)
        except EngineUnavailable as error:
            raise EngineUnavailable(
                f"whether it can go on without a gap cannot be seen: {error.message}",
                stream=stream.name,
                property=error.property,
                fix=error.fix,
            ) from error
        if lost := lost_position(record, await self.positions(stream), objects.slot):
            raise lost
        if lost := lost_publication(record, objects.publication):
            raise lost

    async def refuse_return(self, record: StreamRecord, stream: Stream) -> None:
        pass  # a table that returns is read again

    # --- changes -----------------------------------------------------------------------------------------------------

    async def record(self, stream: Stream, facts: Facts, deployed: DeployedStream | None) -> StreamRecord:
        known = deployed.record if deployed else None
        details = self._details(stream, facts, known)
        if known is not None and facts.objects is not None:
            usable = facts.objects.is_ours(details.claim) or facts.objects.has_helpers
            details = details.model_copy(update={"has_helpers": details.has_helpers or usable})
        if known is not None and facts.source is not None and known.creating and self.moves(known, facts.ids):
            details = _leaving(details, known)
        return StreamRecord(
            stream=stream,
            source_cluster=facts.ids.source_cluster,
            destination_cluster=facts.ids.destination_cluster,
            side=facts.side,
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
            str(table): TableDetails(oid=found.oid, condition=facts.printed.get(table))
            for table, found in facts.source.tables.items()
        }
        if before is None or known is None:
            return DebeziumDetails(claim=secrets.token_hex(16), tables=tables)
        reads = stream.mode is Mode.SNAPSHOT_THEN_CDC and not known.creating
        refiltered = row_filter(known.stream) != row_filter(stream)

        def entry(name: str, table: TableDetails) -> TableDetails:
            old = before.tables.get(name)
            count = old.snapshots if old else 0
            again = reads and (old is None or old.oid != table.oid or refiltered)
            return table.model_copy(update={"snapshots": count + again})

        return before.model_copy(update={"tables": {name: entry(name, table) for name, table in tables.items()}})

    async def find_start(self, stream: Stream) -> None:
        return None

    async def prepare(self, record: StreamRecord, start: None) -> Prepared:
        await self._forget_kept_offsets(record)
        return Prepared(await self._objects.make(record), frozenset())

    async def _forget_kept_offsets(self, record: StreamRecord) -> None:
        """Remove positions that Connect kept of a connector of the same name: they are of another slot."""
        if details_of(record).slot_made:
            return
        if await self._cluster.offsets(record.stream.name):
            await self._cluster.reset_offsets(record.stream.name)

    async def moved(self, record: StreamRecord, before: StreamRecord) -> StreamRecord:
        return with_details(record, _leaving(details_of(record), before))

    def starts_idle(self, record: StreamRecord) -> bool:
        return False

    async def may_idle(self, deployed: DeployedStream, connector: str) -> bool:
        return False

    # --- objects outside Connect -------------------------------------------------------------------------------------

    def is_writable(self, facts: Facts) -> bool:
        return facts.source is not None

    def must_stop(self, old: StreamRecord, new: StreamRecord) -> bool:
        return bool(_read_again(details_of(old), details_of(new)))

    async def alter(self, old: StreamRecord, new: StreamRecord) -> None:
        if new.stream.mode is Mode.SNAPSHOT:
            return
        await self._objects.set_tables(new)

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

    async def _signal(self, stream: Stream, snapshots: Mapping[str, TableFacts]) -> None:
        """Tell the connector to read tables again, each once for its id."""
        condition = row_filter(stream)
        async with self._objects.owner(stream).transaction() as connection:
            for id, found in snapshots.items():
                data = json.dumps(_signal(found, condition))
                await connection.execute(
                    f"INSERT INTO {signal_table(stream).sql} (id, type, data) VALUES (%s, 'execute-snapshot', %s) "  # noqa: S608
                    "ON CONFLICT (id) DO NOTHING".encode(),
                    (id, data),
                )

    async def refuse_removal(self, record: StreamRecord) -> None:
        try:
            await self._objects.look(record.stream)
        except ReplicatorError as error:
            raise type(error)(
                f"its slot cannot be dropped, and would hold WAL for ever: {error.message}",
                stream=record.stream.name,
                property=error.property,
                fix="let the database answer; or, if it is gone for good, delete the connector "
                f"{record.stream.name} yourself, after which the stream counts as removed",
            ) from error

    async def dispose(self, record: StreamRecord) -> None:
        await self._objects.remove(record)

    # --- reads -------------------------------------------------------------------------------------------------------

    def as_found(self, deployed: DeployedStream) -> Stream:
        stream, config = deployed.record.stream, build(deployed.record, self._aliases).main
        found = foreign_settings(deployed.connector, config, RECORD_KEYS)
        return stream.model_copy(update={"options": {**stream.options, **found}}) if found else stream

    def outline(self, deployed: DeployedStream, error: ReplicatorError | None = None) -> Description:
        return Description(
            stream=self.as_found(deployed), status=outline_of(deployed, error), engine_objects=_engine_objects(deployed)
        )

    async def measure(self, streams: Sequence[DeployedStream]) -> list[Description]:
        seen = await source_status.look(self._sessions, [deployed.record.stream for deployed in streams])
        read = await asyncio.gather(*(answer_or_error(self.positions(deployed.record.stream)) for deployed in streams))
        found = []
        for deployed, at in zip(streams, read, strict=True):
            if isinstance(at, Position):
                found.append(self._described(deployed, at, seen[deployed.name]))
            elif at is not None:
                found.append(self.outline(deployed, at))
        return found

    def _described(self, deployed: DeployedStream, at: Position, source: SourceStatus | ReplicatorError) -> Description:
        slot = source.slot if isinstance(source, SourceStatus) else None
        seen = slot if deployed.record.stream.mode is not Mode.SNAPSHOT else None
        return Description(
            stream=self.as_found(deployed),
            status=status_of(deployed, at, source),
            engine_objects=_engine_objects(deployed),
            source_end={"wal": seen.end} if seen else {},
            reached={"wal": at.lsn or 0} if seen else {},
            findings=tuple(findings_of(deployed, at, source)),
        )

    async def _listing(self) -> Look:
        connectors = await self._cluster.listing()
        return Look(connectors, sort(connectors.values(), BACKEND))

    # --- replays -----------------------------------------------------------------------------------------------------

    async def positions(self, stream: Stream) -> Position:
        return read_position(await self._cluster.offsets(stream.name), topic_prefix(stream), stream.name)

    def is_done(self, replay: ReplayRecord, positions: Position) -> bool:
        if replay.progress.finished_at is not None:
            return True
        return (
            replay.applied
            and positions.lsn is not None
            and positions.lsn >= read_lsn(replay.until)
            and not positions.in_snapshot
        )

    async def resolve(
        self, deployed: DeployedStream, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[ResolvedReplay, Position]:
        stream = deployed.record.stream
        facts = await source_facts.look(self._sessions, stream)
        slot = await self._slot(stream)
        at = await self.positions(stream)
        return replay_planner.resolve(deployed.record, facts, at, slot, start, method=method, target=target), at

    async def _slot(self, stream: Stream) -> Slot | None:
        (found,) = (await source_status.look(self._sessions, [stream])).values()
        if isinstance(found, ReplicatorError):
            raise found
        return found.slot

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> ReplayRecord:
        stream = record.stream
        facts = await source_facts.look(self._sessions, stream)
        key = hashlib.sha256(replay.progress.key.encode()).hexdigest()[:32]
        await self._signal(stream, {f"replay-{key}-{found.oid}": found for found in facts.tables.values()})
        slot = await self._slot(stream)
        if slot is None:
            raise _no_slot(stream)
        return replay.model_copy(update={"until": write_lsn(slot.end)})

    async def aclose(self) -> None:
        await self._recent.settled()
        await self._sessions.aclose()
        await self._cluster.aclose()


def _leaving(details: DebeziumDetails, before: StreamRecord) -> DebeziumDetails:
    """Return the details of a stream that leaves its source, whose objects are then removed."""
    was = details_of(before)
    left = (*was.left, LeftSource(source=before.stream.source, slot_made=was.slot_made))
    return details.model_copy(
        update={"claim": was.claim, "left": left, "slot_made": False, "owns_publication": False, "has_helpers": False}
    )


def _is_another(was: str | None, now: str | None, same_place: bool) -> bool:
    """Tell whether an end is another one, by its identity, or by its address if that is unknown."""
    return was != now if was and now else not same_place


def _read_again(old: DebeziumDetails, new: DebeziumDetails) -> list[Table]:
    """Return the tables that are read while the stream runs, for a change of the declaration."""
    return [
        table
        for table in new.names
        if new.tables[str(table)].snapshots > (old.tables[str(table)].snapshots if str(table) in old.tables else 0)
    ]


def _keeps_ends(old: Stream, new: Stream) -> bool:
    return canonical(old).source == canonical(new).source and canonical(old).destination == canonical(new).destination


def _keeps_data(old: Stream, new: Stream) -> bool:
    """Tell whether a change needs nothing of the source, such as a pause."""
    same = (old.include, old.exclude, old.mode, row_filter(old)) == (
        new.include,
        new.exclude,
        new.mode,
        row_filter(new),
    )
    return same and _keeps_ends(old, new)


def _no_slot(stream: Stream) -> SourcePosition:
    return SourcePosition(
        f"the replication slot {slot_name(stream)} does not exist", stream=stream.name, property="source.uri", fix=AGAIN
    )


def _refuse_blind_wait(stream: Stream, *, has_helpers: bool) -> None:
    if stream.wait_for is WaitFor.CAUGHT_UP and stream.mode is not Mode.SNAPSHOT and not has_helpers:
        raise InvalidStream(
            "whether it has caught up cannot be seen: it has no table for heartbeats, and a quiet source sends nothing",
            property="waitFor",
            fix="name a role that may make tables with source.adminAuthRef; or write waitFor: running",
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


def _engine_objects(deployed: DeployedStream) -> dict[str, object]:
    record = deployed.record
    details = details_of(record)
    prefix = topic_prefix(record.stream)
    found: dict[str, object] = {
        "connectors": [deployed.name],
        "topics": [f"{prefix}.{topic_part(table)}" for table in details.names],
    }
    if details.slot_made:
        found |= {"slot": slot_name(record.stream), "publication": slot_name(record.stream)}
    if record.source_cluster:
        found["sourceDatabase"] = record.source_cluster
    if record.destination_cluster:
        found["destinationCluster"] = record.destination_cluster
    return found
