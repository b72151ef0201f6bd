"""Names of tables and columns, and the globs that choose them.

A glob has the parts of a name with dots between them: `public.orders`, `public.order_*`, `public.orders.note`. As in
`psql`, a part without quotes is folded to lower case and may hold `*` and `?`, and a part in double quotes stands for
itself: `"Sales"."Order.2026"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from replicator.errors import InvalidStream

_PART = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z0-9_$*?\u0080-\U0010ffff]+)')
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


class Table(NamedTuple):
    """A table by name; as text with quotes where they are needed."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{shown(self.schema)}.{shown(self.name)}"

    @property
    def sql(self) -> str:
        """Return the name as SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A glob over tables, or over columns of tables.

    :param text: as the program has it.
    :param parts: regular expressions for schema, table and, if it names columns, column.
    :param is_name: it matches one name only.
    """

    text: str
    parts: tuple[re.Pattern[str], ...]
    is_name: bool

    @property
    def names_columns(self) -> bool:
        return len(self.parts) > 2

    def matches(self, table: Table) -> bool:
        """Tell whether it matches a table, or columns of it."""
        return all(part.fullmatch(name) for part, name in zip(self.parts, table, strict=False))

    def matches_column(self, table: Table, column: str) -> bool:
        """Tell whether it matches one column of a table."""
        return self.names_columns and self.matches(table) and self.parts[2].fullmatch(column) is not None


def read_pattern(text: str, property: str) -> NamePattern:
    """Read a glob; raise `InvalidStream` if it has another form."""
    parts = list(_parts(text))
    if None in parts or not 2 <= len(parts) <= 3:
        raise InvalidStream(
            f"{text!r} names no table",
            property=property,
            fix='write schema.table, or schema.table.column; * and ? stand for other characters, and "Quotes" keep '
            "capitals and dots",
        )
    bare = re.sub(r'"(?:[^"]|"")*"', "", text)
    return NamePattern(text, tuple(part for part in parts if part is not None), not set(bare) & set("*?"))


def read_table(text: str) -> Table:
    """Return the table that a text names, as `str(table)` writes it."""
    schema, name = (match[1].replace('""', '"') if match[1] else match[2] for match in _PART.finditer(text))
    return Table(schema, name)


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def shown(name: str) -> str:
    """Return a name as a person writes it, with quotes where SQL needs them."""
    return name if _PLAIN.fullmatch(name) else quoted(name)


def literal(text: str) -> str:
    """Return a text as an SQL literal, whatever `standard_conforming_strings` is."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'" if "\\" not in text else "E'" + escaped.replace("\\", "\\\\") + "'"


def chosen(tables: Iterable[Table], include: Iterable[NamePattern], exclude: Iterable[NamePattern]) -> list[Table]:
    """Return the tables that globs choose, in order; all of them where nothing is included."""
    included, excluded = list(include), [pattern for pattern in exclude if not pattern.names_columns]
    return sorted(
        table
        for table in tables
        if (not included or any(pattern.matches(table) for pattern in included))
        and not any(pattern.matches(table) for pattern in excluded)
    )


def _parts(text: str) -> Iterator[re.Pattern[str] | None]:
    at = 0
    while True:
        match = _PART.match(text, at)
        if match is None:
            yield None
            return
        yield re.compile(re.escape(match[1].replace('""', '"')) if match[1] else _regex(match[2].lower()))
        if match.end() == len(text):
            return
        if text[match.end()] != ".":
            yield None
            return
        at = match.end() + 1


def _regex(glob: str) -> str:
    return re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".")
