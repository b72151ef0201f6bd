"""Row filters: one SQL condition over the columns of a table, in the limits that a publication sets."""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot
from sqlglot import exp

from replicator.errors import InvalidStream

_WHAT = "write one SQL condition over the columns of a table, such as region = 'eu' AND total > 10"
_REFUSED: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.Query, "holds a subquery, and a publication filters a row by its own columns"),
    (exp.AggFunc, "holds an aggregate, and a publication filters one row at a time"),
    (exp.Window, "holds a window function, and a publication filters one row at a time"),
    (exp.Parameter, "holds a parameter, and nothing gives its value"),
    (exp.Placeholder, "holds a parameter, and nothing gives its value"),
    (exp.Star, "holds *, which is no column"),
)
_SYSTEM = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})


@dataclass(frozen=True, slots=True)
class Predicate:
    """A row filter.

    :param sql: in one spelling, without comments.
    :param columns: the columns that it reads.
    """

    sql: str
    columns: frozenset[str]


def read_predicate(text: str, property: str = "filter") -> Predicate:
    """Read a row filter without a database; raise `InvalidStream` for what no publication takes.

    Whether its columns and types exist, and whether its functions are immutable, only the database can tell.
    """
    condition = _condition(text, property)
    for kind, problem in _REFUSED:
        if condition.find(kind) is not None:
            raise InvalidStream(problem, property=property, fix=_WHAT)
    columns = set()
    for column in condition.find_all(exp.Column):
        if column.table:
            raise InvalidStream(
                f"names the column {column.sql(dialect='postgres')} with its table, and the filter is for every table "
                "of the stream",
                property=property,
                fix=f"write {column.this.sql(dialect='postgres')}",
            )
        columns.add(column.name if column.this.args.get("quoted") else column.name.lower())
    if system := sorted(columns & _SYSTEM):
        raise InvalidStream(f"reads the system column {system[0]}", property=property, fix=_WHAT)
    if not columns:
        raise InvalidStream("reads no column, so it is the same for every row", property=property, fix=_WHAT)
    return Predicate(condition.sql(dialect="postgres", comments=False), frozenset(columns))


def is_same_filter(one: str | None, other: str | None) -> bool:
    """Tell whether two conditions are the same but for parentheses and casts of constants, which PostgreSQL adds."""
    if one is None or other is None:
        return one is other
    return _bare(one) == _bare(other)


def _condition(text: str, property: str) -> exp.Expr:
    if not text.strip():
        raise InvalidStream("is empty", property=property, fix=f"{_WHAT}; or leave it out")
    try:
        statements = sqlglot.parse(f"SELECT 1 WHERE\n{text}\n", read="postgres")
    except sqlglot.errors.SqlglotError:
        raise InvalidStream("is no SQL condition", property=property, fix=_WHAT) from None
    (first, *more) = statements
    clauses = {key for key, value in first.args.items() if value} if first is not None else set()
    if more or not isinstance(first, exp.Select) or clauses != {"expressions", "where"}:
        raise InvalidStream("holds more than one SQL condition", property=property, fix=_WHAT)
    condition = first.args["where"].this.unnest()
    assert isinstance(condition, exp.Expr)
    return condition


def _bare(text: str) -> exp.Expr:
    condition = _condition(text, "filter")

    def simpler(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Paren) or (isinstance(node, exp.Cast) and isinstance(node.this, exp.Literal)):
            inner: exp.Expr = node.this
            return inner.transform(simpler)
        return node

    return condition.transform(simpler)
