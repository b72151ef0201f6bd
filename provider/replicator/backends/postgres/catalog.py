"""What a database tells about itself: server, roles, tables, and what is left of its limits. Reads only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from replicator.backends.postgres.identifiers import Table
from replicator.backends.postgres.session import Row, Session


@dataclass(frozen=True, slots=True)
class Server:
    """A server and one of its databases.

    :param identity: the same for as long as it is this database of this server, or of a standby that was promoted.
    :param wal_level: `logical` where changes can be decoded.
    :param free_slots: replication slots that can still be made.
    :param free_senders: connections for replication that can still be opened.
    :param free_connections: connections that an ordinary role can still open.
    :param bounds_slots: `max_slot_wal_keep_size` limits what a slot can hold.
    """

    identity: str
    version: int
    wal_level: str
    is_standby: bool
    free_slots: int
    free_senders: int
    free_connections: int
    bounds_slots: bool


@dataclass(frozen=True, slots=True)
class Role:
    """What a role may do in the database.

    :param replicates: it may stream changes and make slots, by its own attribute or as a member of Amazon RDS's role.
    """

    name: str
    replicates: bool


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table as the catalog has it.

    :param oid: another one means another table of the same name.
    :param columns: in order.
    :param key: the columns of its primary key.
    :param identity: the columns that an update or a delete carries of the old row; `None` for all of them.
    :param is_partition: it is a part of another table.
    :param is_partitioned: it has parts.
    :param readable: the streaming role may select from it.
    :param owned: the asking role owns it.
    :param hides_rows: row-level security applies to the streaming role.
    :param rows: as of the last `ANALYZE`; `None` if there was none.
    """

    table: Table
    oid: int
    columns: tuple[str, ...]
    key: tuple[str, ...]
    identity: tuple[str, ...] | None
    is_partition: bool
    is_partitioned: bool
    readable: bool
    owned: bool
    hides_rows: bool
    rows: int | None

    @property
    def has_identity(self) -> bool:
        """Tell whether an update or a delete can say which row it is of."""
        return self.identity is None or bool(self.identity)


_SERVER = """
SELECT (SELECT system_identifier FROM pg_control_system()) AS system,
       (SELECT oid FROM pg_database WHERE datname = current_database()) AS database,
       current_setting('server_version_num')::int AS version,
       current_setting('wal_level') AS wal_level,
       pg_is_in_recovery() AS standby,
       current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots) AS slots,
       current_setting('max_wal_senders')::int
         - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender') AS senders,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       current_setting('max_slot_wal_keep_size') <> '-1' AS bounded
"""

_ROLE = """
SELECT rolname AS name,
       rolsuper OR rolreplication OR EXISTS (
         SELECT FROM pg_roles managed
         WHERE managed.rolname = 'rds_replication' AND pg_has_role(r.oid, managed.oid, 'MEMBER')
       ) AS replicates
FROM pg_roles r WHERE rolname = %(role)s
"""

_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, c.oid::bigint AS oid, c.relispartition AS partition,
       c.relkind = 'p' AS partitioned,
       has_schema_privilege(%(role)s, n.oid, 'USAGE') AND has_table_privilege(%(role)s, c.oid, 'SELECT') AS readable,
       pg_has_role(c.relowner, 'USAGE') AS owned,
       c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(%(role)s, c.relowner, 'USAGE'))
         AND NOT (SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = %(role)s) AS hides,
       c.relreplident::text AS identity, nullif(c.reltuples, -1)::bigint AS rows,
       ARRAY(SELECT attname::text FROM pg_attribute
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS columns,
       ARRAY(SELECT a.attname::text FROM pg_index i
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
             WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY a.attnum) AS key,
       ARRAY(SELECT a.attname::text FROM pg_index i
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
             WHERE i.indrelid = c.oid AND i.indisreplident ORDER BY a.attnum) AS index
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
ORDER BY 1, 2
"""


async def server(session: Session) -> Server:
    """Return the facts of the server."""
    (row,) = await session.rows(_SERVER)
    return Server(
        identity=f"{row['system']}/{row['database']}",
        version=row["version"] // 10000,
        wal_level=row["wal_level"],
        is_standby=row["standby"],
        free_slots=row["slots"],
        free_senders=row["senders"],
        free_connections=row["connections"],
        bounds_slots=row["bounded"],
    )


async def role(session: Session, name: str) -> Role | None:
    """Return what a role may do; `None` if it does not exist."""
    rows = await session.rows(_ROLE, {"role": name})
    return Role(rows[0]["name"], rows[0]["replicates"]) if rows else None


async def tables(session: Session, role: str, *, without: Collection[str] = ()) -> dict[Table, TableFacts]:
    """Return every ordinary or partitioned table that is logged.

    :param role: the role that streams.
    :param without: schemas to leave out.
    """
    rows = await session.rows(_TABLES, {"role": role})
    return {found.table: found for row in rows if row["schema"] not in without for found in (_facts(row),)}


def _facts(row: Row) -> TableFacts:
    identities: dict[str, tuple[str, ...] | None] = {
        "d": tuple(row["key"]),
        "i": tuple(row["index"]),
        "n": (),
        "f": None,
    }
    return TableFacts(
        table=Table(row["schema"], row["name"]),
        oid=row["oid"],
        columns=tuple(row["columns"]),
        key=tuple(row["key"]),
        identity=identities[row["identity"]],
        is_partition=row["partition"],
        is_partitioned=row["partitioned"],
        readable=row["readable"],
        owned=row["owned"],
        hides_rows=row["hides"],
        rows=row["rows"],
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    :param type: as SQL has it, such as `numeric(10,2)` or `app.mood`.
    :param base: the name of the type behind a domain, without its length, `int4[]` for an array; `enum` for any
        enumeration, and empty for types that are no single value, and for those of extensions but `citext`.
    :param dimensions: how many dimensions an array was declared with.
    :param required: it refuses null.
    :param given: an insert may leave it out: it has a default, or is an identity.
    :param generated: computed from other columns, so that no insert may name it.
    :param assigned: an identity that is `GENERATED ALWAYS`, so that no insert may name it.
    :param outside: its values may be stored out of line (TOAST).
    """

    name: str
    type: str
    base: str
    dimensions: int
    required: bool
    given: bool
    generated: bool
    assigned: bool
    outside: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns of a table, and what an insert into it meets.

    :param keys: the columns of each unique index that holds for all rows.
    :param references: names of foreign keys of the table, or to it, that are checked with each statement or commit.
    :param triggers: names of triggers that run when an ordinary session writes.
    :param owned: the asked role owns it, and may add columns.
    :param writable: the asked role may read, insert, update, delete and truncate.
    :param limited: row-level security applies to the asked role.
    """

    columns: tuple[Column, ...]
    keys: frozenset[frozenset[str]]
    references: tuple[str, ...]
    triggers: tuple[str, ...]
    owned: bool
    writable: bool
    limited: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of its columns, in order."""
        return tuple(column.name for column in self.columns)


_SHAPES = """
SELECT n.nspname AS schema, c.relname AS name,
  (SELECT json_agg(json_build_object(
     'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'required', a.attnotnull,
     'dimensions', a.attndims,
     'outside', a.attstorage IN ('x', 'e', 'm') AND (c.relkind = 'p' OR c.reltoastrelid <> 0),
     'given', a.atthasdef OR a.attidentity <> '', 'generated', a.attgenerated <> '',
     'assigned', a.attidentity = 'a', 'base', CASE
       WHEN e.typnamespace = 'pg_catalog'::regnamespace THEN e.typname || '[]'
       WHEN e.oid IS NOT NULL THEN ''
       WHEN b.typtype = 'e' THEN 'enum'
       WHEN b.typname = 'citext' THEN b.typname
       WHEN b.typtype IN ('b', 'r') AND b.typnamespace = 'pg_catalog'::regnamespace THEN b.typname
       ELSE '' END) ORDER BY a.attnum)
   FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
   JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
   LEFT JOIN pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
  ARRAY(SELECT (SELECT json_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY(i.indkey))
        FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
          AND NOT (0 = ANY(i.indkey)) AND i.indimmediate) AS keys,
  ARRAY(SELECT k.conname::text FROM pg_constraint k
        WHERE k.contype = 'f' AND c.oid IN (k.conrelid, k.confrelid) ORDER BY 1) AS references,
  ARRAY(SELECT t.tgname::text FROM pg_trigger t
        WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') ORDER BY 1) AS triggers,
  pg_has_role(%(role)s, c.relowner, 'USAGE') AS owned,
  has_schema_privilege(%(role)s, n.oid, 'USAGE') AND has_table_privilege(%(role)s, c.oid, 'SELECT')
    AND has_table_privilege(%(role)s, c.oid, 'INSERT') AND has_table_privilege(%(role)s, c.oid, 'UPDATE')
    AND has_table_privilege(%(role)s, c.oid, 'DELETE')
    AND has_table_privilege(%(role)s, c.oid, 'TRUNCATE') AS writable,
  c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(%(role)s, c.relowner, 'USAGE'))
    AND NOT (SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = %(role)s) AS limited
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN unnest(%(schemas)s::text[], %(tables)s::text[]) AS asked(schema, name)
  ON asked.schema = n.nspname AND asked.name = c.relname
WHERE c.relkind IN ('r', 'p')
"""


async def shapes(session: Session, role: str, tables: Collection[Table]) -> dict[Table, Shape]:
    """Return those of some tables that exist.

    :param role: the role that writes to them.
    """
    asked = {"role": role, "schemas": [table.schema for table in tables], "tables": [table.name for table in tables]}
    rows = await session.rows(_SHAPES, asked) if tables else []
    return {Table(row["schema"], row["name"]): _shape(row) for row in rows}


def _shape(row: Row) -> Shape:
    return Shape(
        columns=tuple(Column(**column) for column in row["columns"] or ()),
        keys=frozenset(frozenset(names) for names in row["keys"]),
        references=tuple(row["references"]),
        triggers=tuple(row["triggers"]),
        owned=row["owned"],
        writable=row["writable"],
        limited=row["limited"],
    )
