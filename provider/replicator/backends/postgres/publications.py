"""Publications: which tables, and which of their rows, a slot's consumer gets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from replicator.backends.postgres.identifiers import Table, literal, quoted
from replicator.backends.postgres.predicate import is_same_filter
from replicator.backends.postgres.session import Session

VERSION = """
(SELECT md5(string_agg(x.at, ' ' ORDER BY x.at)) FROM (
  SELECT p.xmin::text UNION ALL SELECT r.prrelid || ':' || r.xmin FROM pg_publication_rel r WHERE r.prpubid = p.oid
  UNION ALL SELECT s.pnnspid || '-' || s.xmin FROM pg_publication_namespace s WHERE s.pnpubid = p.oid
) x(at))
""".strip()
"""What the state of the publication `p` is called: a transaction that changes it gives it another name, for good."""

_PUBLICATIONS = f"""
SELECT p.pubname AS publication, p.puballtables AS everything, p.pubviaroot AS via_root,
       p.pubinsert AND p.pubupdate AND p.pubdelete AS whole,
       pg_get_userbyid(p.pubowner) AS owner, pg_has_role(p.pubowner, 'USAGE') AS owned,
       obj_description(p.oid, 'pg_publication') AS comment,
       EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid) AS schemas,
       {VERSION} AS version
FROM pg_publication p WHERE p.pubname = ANY(%(names)s)
"""  # noqa: S608 - no text of a person is in it
VERSION_OF = f"SELECT {VERSION} AS version FROM pg_publication p WHERE p.pubname = %(name)s"  # noqa: S608
_MEMBERS = """
SELECT pubname AS publication, schemaname AS schema, tablename AS name, rowfilter AS filter
FROM pg_publication_tables WHERE pubname = ANY(%(names)s)
"""


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication as the catalog has it.

    :param owned: the asking role may change it.
    :param tables: its tables, each with its row filter as PostgreSQL prints it.
    :param names_tables: it has neither all tables nor those of a schema.
    :param takes_all: it has every table of the database, also those that are created later.
    :param is_whole: it publishes inserts, updates and deletes.
    :param via_root: changes of a partition have the name of the whole table.
    :param version: another one after each change, also after one that was taken back.
    """

    name: str
    owner: str
    owned: bool
    comment: str | None
    tables: Mapping[Table, str | None]
    names_tables: bool
    takes_all: bool
    is_whole: bool
    via_root: bool
    version: str

    def holds(self, tables: Collection[Table]) -> bool:
        """Tell whether it publishes all of these tables, whatever the filter."""
        return all(table in self.tables for table in tables)

    def refilters(self, wanted: Mapping[Table, str | None]) -> bool:
        """Tell whether a table that it has would get another row filter."""
        return any(
            table in self.tables and not is_same_filter(self.tables[table], condition)
            for table, condition in wanted.items()
        )

    def lacks(self, wanted: Mapping[Table, str | None], *, via_root: bool) -> list[str]:
        """Return how it falls short of these tables and filters, in words; more tables than these are no harm."""
        found = []
        if not self.is_whole:
            found.append("it does not publish inserts, updates and deletes")
        if via_root and not self.via_root:
            found.append("it has not publish_via_partition_root")
        if missing := sorted(table for table in wanted if table not in self.tables):
            found.append(f"it lacks {', '.join(map(str, missing))}")
        for table, condition in sorted(wanted.items()):
            if table in self.tables and not is_same_filter(self.tables[table], condition):
                now = self.tables[table] or "no row filter"
                found.append(f"{table} has {now}, and the stream {condition or 'no filter'}")
        return found


async def look(session: Session, names: Collection[str]) -> dict[str, Publication]:
    """Return the publications of the session's database that exist, in two questions."""
    rows = await session.rows(_PUBLICATIONS, {"names": list(names)})
    members = await session.rows(_MEMBERS, {"names": list(names)}) if rows else []
    tables: dict[str, dict[Table, str | None]] = {}
    for member in members:
        table = Table(member["schema"], member["name"])
        tables.setdefault(member["publication"], {})[table] = member["filter"]
    return {
        row["publication"]: Publication(
            name=row["publication"],
            owner=row["owner"],
            owned=row["owned"],
            comment=row["comment"],
            tables=tables.get(row["publication"], {}),
            names_tables=not row["everything"] and not row["schemas"],
            takes_all=row["everything"],
            is_whole=row["whole"],
            via_root=row["via_root"],
            version=row["version"],
        )
        for row in rows
    }


def create_sql(name: str, tables: Mapping[Table, str | None]) -> str:
    """Return the statement that makes a publication.

    :param tables: each with its row filter.
    """
    members = _members(tables.items())
    return f"CREATE PUBLICATION {quoted(name)} FOR TABLE {members} WITH (publish_via_partition_root = true)"


def alter_sql(name: str, tables: Mapping[Table, str | None]) -> list[str]:
    """Return the statements that give a publication these tables and no others, and every change of their rows."""
    return [f"ALTER PUBLICATION {quoted(name)} SET TABLE {_members(tables.items())}", set_sql(name)]


def add_sql(name: str, tables: Mapping[Table, str | None]) -> list[str]:
    """Return the statement that gives a publication more tables; none for no tables."""
    return [f"ALTER PUBLICATION {quoted(name)} ADD TABLE {_members(tables.items())}"] if tables else []


def set_sql(name: str) -> str:
    """Return the statement by which a publication has every change of its rows, under the name of the whole table."""
    return (
        f"ALTER PUBLICATION {quoted(name)} SET (publish = 'insert, update, delete, truncate', "
        "publish_via_partition_root = true)"
    )


def comment_sql(name: str, text: str) -> str:
    """Return the statement that gives a publication a comment."""
    return f"COMMENT ON PUBLICATION {quoted(name)} IS {literal(text)}"


def drop_sql(name: str) -> str:
    """Return the statement that removes a publication."""
    return f"DROP PUBLICATION IF EXISTS {quoted(name)}"


def _members(tables: Iterable[tuple[Table, str | None]]) -> str:
    return ", ".join(
        f"{table.sql} WHERE ({condition})" if condition else table.sql for table, condition in sorted(tables)
    )
