"""Adoption of connectors for PostgreSQL that were created manually: their slot, publication and offsets stay."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, NoReturn

from replicator.backends.kafka.endpoint import kafka_endpoint
from replicator.backends.kafka_connect.adoption import (
    RESTART,
    end_of,
    name_of,
    named,
    options_of,
    plain,
    refuse_class,
    told,
)
from replicator.backends.kafka_connect.connector import Connector
from replicator.backends.kafka_connect.debezium import source_facts
from replicator.backends.kafka_connect.debezium.connector_config import BACKEND, SOURCE_CLASS
from replicator.backends.kafka_connect.debezium.declarations import PREFIX, RETRIES, SINK_OPTIONS
from replicator.backends.kafka_connect.debezium.details import DebeziumDetails, TableDetails, own_name
from replicator.backends.kafka_connect.debezium.positions import Position
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.kafka_connect.validation import PLACEHOLDER
from replicator.backends.postgres import catalog, publications
from replicator.backends.postgres.endpoint import PORT, SSL_MODES, PostgresEndpoint, postgres_endpoint
from replicator.backends.postgres.helper_schema import SCHEMA
from replicator.backends.postgres.identifiers import Table
from replicator.backends.postgres.predicate import read_predicate
from replicator.backends.postgres.publications import Publication
from replicator.backends.postgres.session import Sessions
from replicator.capabilities import DEBEZIUM
from replicator.errors import (
    EngineRefused,
    InvalidStream,
    NotOurs,
    ReplicatorError,
    SourceMissing,
    SourceSetup,
    Unsupported,
)
from replicator.model import EndpointKind, Mode, Stream
from replicator.replicator import EndHints, Finding, Proposal

CLASSES = frozenset({SOURCE_CLASS})
LOGIN = ("database.user", "database.password")
PRODUCER_LOGIN = ("producer.override.sasl.jaas.config",)
_BROKERS = "producer.override.bootstrap.servers"
_SLOT = "debezium"  # Debezium's own defaults
_PUBLICATION = "dbz_publication"
_MODES = {
    "initial": Mode.SNAPSHOT_THEN_CDC,
    "when_needed": Mode.SNAPSHOT_THEN_CDC,
    "initial_only": Mode.SNAPSHOT,
    "no_data": Mode.CDC,
    "schema_only": Mode.CDC,
    "never": Mode.CDC,
}
_AS_DECLARED = ("initial", "initial_only", "no_data", "never", "schema_only")
TABLES = ("schema.include.list", "schema.exclude.list", "table.include.list", "table.exclude.list")
COLUMNS = ("column.include.list", "column.exclude.list")
NEVER_KEPT = ("publication.autocreate.mode",)  # Debezium would give the publication other tables, and no filter
_FINDINGS = (
    (
        r"column\.(include|exclude)\.list",
        "{} stays, and decides which columns are sent; no table can join before they "
        "are written into include or exclude",
    ),
    (r"(column\.(mask|truncate)\..*|message\.key\.columns)", "{} changes what records look like"),
    (r"transforms", "{} changes or routes records: the topics that the stream names may not be those that it writes"),
    (
        r"signal\.data\.collection",
        "a replay by resnapshot needs a table for signals of the stream's own, and {} is not",
    ),
    (r"heartbeat\..*", "{} is the connector's: lagSeconds needs heartbeats in a table of the stream's own"),
)
"""What is worth saying of settings that stay as they are: a pattern, and a text with their names."""

_OBJECTS = (
    "the stream continues with the replication slot {} and the publication {}; a delete of the stream drops the slot, "
    "and leaves the publication"
)


class Source(NamedTuple):
    """The source of a connector, as its database has it.

    :param missed: tables that the connector's lists choose, and that its publication does not publish.
    """

    tables: tuple[Table, ...]
    condition: str | None
    missed: tuple[Table, ...]


async def propose(
    sessions: Sessions, connector: Connector, source: EndHints, destination: EndHints, brokers: str | None
) -> Proposal:
    """Return the stream for a connector.

    :param brokers: what the configuration names as the brokers of the workers; `None` if it does not.
    """
    config = connector.config
    refuse_class(connector, CLASSES, BACKEND)
    name = name_of(connector)
    _refuse_unfit(connector)
    override = plain(config, _BROKERS)
    written = f"kafka://{override}" if override else brokers if _BROKERS not in config else None
    stream = Stream(
        name=name,
        backend=BACKEND,
        source=end_of(source, EndpointKind.POSTGRES, _uri(config), "source", "postgres://role@host:5432/database"),
        destination=end_of(destination, EndpointKind.KAFKA, written, "destination", "kafka://b1.example:9092"),
        mode=_mode(connector),
    )
    options = options_of(config, DEBEZIUM, without={*SINK_OPTIONS, RETRIES})
    if config.get(PREFIX) == name:
        options.pop(PREFIX, None)
    stream = named(stream, options, connector)
    found = await _look(sessions, connector, stream)
    stream = stream.model_copy(update={"include": tuple(map(str, sorted(found.tables))), "filter": found.condition})
    slot, publication = _names(config)
    return Proposal(
        stream=stream,
        findings=tuple(_findings(connector, stream, found)),
        effects=(
            RESTART,
            *([] if stream.mode is Mode.SNAPSHOT else [_OBJECTS.format(slot, publication)]),
            "the connector keeps its login; the provider reads the database with that of source.authRef",
        ),
    )


async def adopted(sessions: Sessions, connector: Connector, stream: Stream) -> StreamRecord:
    """Return the record of a stream that takes over a connector, before the checks of a change.

    :raises NotOurs: the connector is not the one that the declaration describes.
    """
    refuse_class(connector, CLASSES, BACKEND)
    _refuse_unfit(connector)
    _refuse_elsewhere(connector, stream)
    slot, publication = _names(connector.config)
    facts = await source_facts.look(sessions, stream)
    own = own_name(stream)
    tables = {
        str(table): TableDetails(oid=found.oid, partitioned=found.is_partitioned)
        for table, found in facts.tables.items()
    }
    # Two processes that adopt one connector write the same record.
    claim = hashlib.sha256("\0".join((facts.server.identity, slot, stream.name)).encode()).hexdigest()[:32]
    details = DebeziumDetails(
        claim=claim,
        tables=tables,
        slot=slot if slot != own else None,
        publication=publication if publication != own else None,
        slot_made=stream.mode is not Mode.SNAPSHOT,
    )
    return StreamRecord(stream=stream, details=details.wire())


def refuse_other_brokers(connector: Connector, stream: Stream, *, is_workers: bool) -> None:
    """Raise `NotOurs` if a connector writes to another Kafka cluster than a declaration says.

    :param is_workers: the destination is the Kafka cluster of the Connect workers.
    """
    given = connector.config.get(_BROKERS)
    named = set(kafka_endpoint(stream.destination, "destination").servers.split(","))
    if given is None and not is_workers:
        there = "it writes to the Kafka cluster of its worker, and this is another one"
    elif given is not None and PLACEHOLDER not in given and named.isdisjoint(given.lower().replace(" ", "").split(",")):
        there = f"it writes to {given}"
    else:
        return
    raise NotOurs(there, stream=stream.name, property="destination.uri", fix="name the brokers that it writes to")


def refuse_shared_slot(connector: Connector, others: Iterable[Connector]) -> None:
    """Raise `NotOurs` if another connector reads from the same slot: a delete of one would drop that of the other."""

    def slot(config: Mapping[str, str]) -> tuple[str, ...]:
        at = (config.get("database.hostname", "").lower(), config.get("database.port", str(PORT)))
        return (*at, config.get("database.dbname", ""), config.get("slot.name", _SLOT))

    for other in others:
        is_source = other.config.get("connector.class") in CLASSES
        if other.name != connector.name and is_source and slot(other.config) == slot(connector.config):
            raise NotOurs(
                f"the connector {other.name!r} has the same replication slot, {slot(connector.config)[-1]}",
                stream=connector.name,
                fix="delete one of the two, or give one of them a slot of its own",
            )


def refuse_unstarted(record: StreamRecord, position: Position, *, has_slot: bool) -> None:
    """Raise `EngineRefused` if a restart of the connector would begin a first snapshot, or begin it again."""
    if position.in_snapshot or (position.lsn is None and not (has_slot and record.stream.mode is Mode.CDC)):
        raise EngineRefused(
            "it is reading its tables"
            if position.in_snapshot
            else "it has no position yet: it has not run, or reads its tables",
            stream=record.stream.name,
            fix="wait until it sends changes; its restart would send every row again",
        )


def keeps_columns(record: StreamRecord) -> bool:
    """Tell whether columns are chosen by settings that stay: Debezium then drops columns of signals too."""
    return not set(COLUMNS).isdisjoint(record.kept)


def refuse_kept_columns(record: StreamRecord, table: Table) -> NoReturn:
    """Raise for a table that is to be read while the stream runs."""
    names = " and ".join(sorted(set(COLUMNS).intersection(record.kept)))
    raise InvalidStream(
        f"{table} cannot be read while the stream runs: {names} stays as it was when the connector was taken over, and "
        "drops columns of signals too",
        property="include",
        fix="write the columns into include or exclude first (schema.table.column), and let the table join in the next "
        "update",
    )


def _refuse_unfit(connector: Connector) -> None:
    if connector.config.get("slot.drop.on.stop", "false") == "true":
        raise Unsupported(
            "slot.drop.on.stop is true: each restart drops its replication slot, that of an adoption too",
            stream=connector.name,
            fix="set slot.drop.on.stop to false in the connector first, while nothing is written to the database",
        )
    plugin = connector.config.get("plugin.name", "decoderbufs")
    if plugin != "pgoutput":
        raise Unsupported(
            f"it decodes with {plugin}, and a stream with pgoutput and a publication",
            stream=connector.name,
            fix="set plugin.name to pgoutput in the connector first; the slot has to be made again for that",
        )


def _refuse_elsewhere(connector: Connector, stream: Stream) -> None:
    at, config = postgres_endpoint(stream.source, "source"), connector.config
    for key, wanted, default in (
        ("database.hostname", at.host, None),
        ("database.port", str(at.port), str(PORT)),
        ("database.dbname", at.database, None),
        (PREFIX, str(stream.options.get(PREFIX, stream.name)), None),
    ):
        there = config.get(key, default)
        if there is None or (PLACEHOLDER not in there and there.lower() != wanted.lower()):
            raise NotOurs(
                f"the connector has {key} {there}, and the declaration {wanted}",
                stream=stream.name,
                fix="take the declaration that replicator adopt --dry-run prints",
            )


def _names(config: Mapping[str, str]) -> tuple[str, str]:
    return config.get("slot.name", _SLOT), config.get("publication.name", _PUBLICATION)


def _uri(config: Mapping[str, str]) -> str | None:
    host, database = plain(config, "database.hostname"), plain(config, "database.dbname")
    port = plain({"database.port": str(PORT), **config}, "database.port")
    if host is None or database is None or port is None:
        return None
    user, mode = plain(config, "database.user"), plain(config, "database.sslmode")
    root = plain(config, "database.sslrootcert") if mode in ("verify-ca", "verify-full") else None
    known = mode if mode in SSL_MODES else None
    return PostgresEndpoint("source", host, int(port), database, user, sslmode=known, root_cert=root).uri


def _mode(connector: Connector) -> Mode:
    word = connector.config.get("snapshot.mode", "initial")
    if word not in _MODES:
        raise Unsupported(
            f"its snapshot.mode is {word}, and no mode of a stream is like it",
            stream=connector.name,
            fix="set snapshot.mode to initial or no_data in the connector first",
        )
    return _MODES[word]


async def _look(sessions: Sessions, connector: Connector, stream: Stream) -> Source:
    """Return what the connector reads: its lists are regular expressions over the names of that database's tables."""
    session = sessions.at(postgres_endpoint(stream.source, "source", admin=True))
    role = await sessions.role(postgres_endpoint(stream.source, "source"))
    there = await catalog.tables(session, role, without=(SCHEMA,))
    chosen = list(_chosen(connector, there))
    if not chosen:
        raise SourceMissing("its lists choose no table of the database", stream=connector.name)
    if stream.mode is Mode.SNAPSHOT:
        return Source(tuple(table for table in chosen if not there[table].is_partition), None, ())
    name = _names(connector.config)[1]
    published = (await publications.look(session, [name])).get(name)
    if published is None:
        raise SourceSetup(
            f"the publication {name} does not exist: the connector has not created it, or it was dropped",
            stream=connector.name,
            fix="let the connector run first",
        )
    taken = [table for table in chosen if table in published.tables]
    if not taken:
        raise SourceSetup(
            f"the publication {name} has none of the tables that the connector's lists choose",
            stream=connector.name,
            fix="add its tables to the publication, or correct its lists",
        )
    if parts := [table for table in taken if there[table].is_partition]:
        raise Unsupported(
            f"it sends the changes of {parts[0]} under the name of the partition, and a stream those of the whole "
            "table",
            stream=connector.name,
            fix=f"ALTER PUBLICATION {name} SET (publish_via_partition_root = true), and name the whole table in "
            "table.include.list",
        )
    missed = [table for table in chosen if table not in published.tables and not there[table].is_partition]
    return Source(tuple(taken), _condition(connector, published, taken), tuple(missed))


def _chosen(connector: Connector, tables: Iterable[Table]) -> Iterator[Table]:
    """Yield the tables that a connector's lists choose. Debezium matches whole names, and ignores case."""
    lists = {key: _regexes(connector, key) for key in TABLES}
    for table in tables:
        texts = {"schema": table.schema, "table": f"{table.schema}.{table.name}"}
        for kind, text in texts.items():
            included, excluded = lists[f"{kind}.include.list"], lists[f"{kind}.exclude.list"]
            if included and not any(one.fullmatch(text) for one in included):
                break
            if any(one.fullmatch(text) for one in excluded):
                break
        else:
            yield table


def _regexes(connector: Connector, key: str) -> list[re.Pattern[str]]:
    words = [word.strip() for word in re.split(r"(?<!\\),", connector.config.get(key, ""))]
    try:
        return [re.compile(word.replace("\\,", ","), re.IGNORECASE) for word in words if word]
    except re.error as error:
        raise Unsupported(f"its {key} cannot be read: {error}", stream=connector.name) from None


def _condition(connector: Connector, publication: Publication, tables: Iterable[Table]) -> str | None:
    """Return the row filter that all tables have; raise `Unsupported` where they differ."""
    conditions = {publication.tables[table] for table in tables}
    if len(conditions) > 1:
        raise Unsupported(
            f"the publication {publication.name} filters the rows of its tables differently, and a stream has one "
            "filter for all",
            stream=connector.name,
        )
    condition = next(iter(conditions), None)
    if condition is None:
        return None
    try:
        return read_predicate(condition).sql
    except ReplicatorError as error:
        raise Unsupported(
            f"the publication {publication.name} filters rows by {condition}, which no filter of a stream can be: "
            f"{error.message}",
            stream=connector.name,
        ) from None


def _findings(connector: Connector, stream: Stream, found: Source) -> Iterator[Finding]:
    config = connector.config
    word = config.get("snapshot.mode", "initial")
    if word not in _AS_DECLARED:
        yield told(f"its snapshot.mode stays {word}, and the declaration says {stream.mode}", "mode")
    if found.missed:
        more = f" and {len(found.missed) - 1} more" if found.missed[1:] else ""
        yield told(f"{found.missed[0]}{more}: the connector's lists choose it, and it is not published", "include")
    if not config.get("table.include.list") or re.search(r"[*+?|\[(]", config["table.include.list"]):
        yield told(
            "the lists of the connector may choose tables that are created later: it sends them once they are "
            "published, and include does not name them",
            "include",
        )
    if found.condition and not config.get("snapshot.select.statement.overrides"):
        yield told(
            "snapshots of the connector are not filtered: rows outside the filter may be in the topics", "filter"
        )
    for pattern, text in _FINDINGS:
        if names := sorted(key for key in config if re.fullmatch(pattern, key)):
            yield told(text.format(" and ".join(names)), "options")
