"""Names, globs, conditions, positions and URIs of PostgreSQL, as tables; no server."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replicator.backends.postgres.endpoint import postgres_endpoint
from replicator.backends.postgres.identifiers import Table, chosen, literal, quoted, read_pattern, read_table
from replicator.backends.postgres.lsn import read_lsn, write_lsn
from replicator.backends.postgres.predicate import is_same_filter, read_predicate
from replicator.backends.postgres.publications import Publication
from replicator.errors import InvalidStream, ReplicatorError, SecretSyntax
from replicator.model import Endpoint

ORDERS, UPPER, DOTTED = Table("public", "orders"), Table("public", "Orders"), Table("My Schema", "Tab.le")
TABLES = (ORDERS, UPPER, DOTTED, Table("public", "orders_old"), Table("app", "orders"))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("public.orders", [ORDERS]),
        ("public.Orders", [ORDERS]),
        ('public."Orders"', [UPPER]),
        ('"My Schema"."Tab.le"', [DOTTED]),
        ("public.orders*", [ORDERS, TABLES[3]]),
        ("public.order?", [ORDERS]),
        ("*.orders", [TABLES[4], ORDERS]),
        ("public.*", sorted([ORDERS, UPPER, TABLES[3]])),
        ('public."orders*"', []),
        ("public.orders.note", [ORDERS]),
    ],
)
def test_a_glob_chooses_tables_as_psql_does(pattern: str, expected: list[Table]) -> None:
    assert chosen(TABLES, [read_pattern(pattern, "include")], []) == expected


@pytest.mark.parametrize(
    "text", ["orders", "", ".", "a.", ".b", "a.b.c.d", 'a."b', "a b.c", 'a."b"c', "a..b", "a.b;c", "a.(b)"]
)
def test_what_names_no_table_is_refused(text: str) -> None:
    with pytest.raises(InvalidStream, match="names no table"):
        read_pattern(text, "include")


def test_excluded_columns_exclude_no_table() -> None:
    exclude = [read_pattern("public.orders.note", "exclude"), read_pattern("public.orders_*", "exclude")]
    assert chosen(TABLES, [read_pattern("public.o*", "include")], exclude) == [ORDERS]
    assert exclude[0].matches_column(ORDERS, "note") and not exclude[0].matches_column(ORDERS, "notes")


names = st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), min_size=1, max_size=12)


@given(names, names)
def test_a_table_is_read_as_it_was_written(schema: str, name: str) -> None:
    table = Table(schema, name)
    assert read_table(str(table)) == table
    assert read_pattern(f"{quoted(schema)}.{quoted(name)}", "include").matches(table)
    assert not read_pattern(f"{quoted(schema)}.{quoted(name)}", "include").matches(Table(schema, name + "x"))


@pytest.mark.parametrize(
    ("text", "sql"), [("it's", "'it''s'"), ("a\\b", "E'a\\\\b'"), ("a\\'b", "E'a\\\\''b'"), ("", "''")]
)
def test_a_text_as_a_literal(text: str, sql: str) -> None:
    assert literal(text) == sql


@pytest.mark.parametrize(
    ("text", "number"), [("0/0", 0), ("16/B374D848", 0x16B374D848), ("FFFFFFFF/FFFFFFFF", 2**64 - 1)]
)
def test_a_position_is_a_number_of_bytes(text: str, number: int) -> None:
    assert (read_lsn(text), write_lsn(number)) == (number, text)


@pytest.mark.parametrize("text", ["", "16", "16/", "/1", "x/1", "123456789/0", "0/1 0", "-1/0"])
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(InvalidStream, match="is no LSN"):
        read_lsn(text)


# --- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sql", "columns"),
    [
        ("region = 'eu'", "region = 'eu'", {"region"}),
        ("Region = 'eu' -- ours", "Region = 'eu'", {"region"}),
        ("\"Region\" = 'eu'", "\"Region\" = 'eu'", {"Region"}),
        ("a > 1 or b is null", "a > 1 OR b IS NULL", {"a", "b"}),
        ("id % 4 = 0", "id % 4 = 0", {"id"}),
        ("data ->> 'region' = 'eu'", "data ->> 'region' = 'eu'", {"data"}),
        ("note like '50%' and not deleted", "note LIKE '50%' AND NOT deleted", {"note", "deleted"}),
    ],
)
def test_a_condition_in_one_spelling(text: str, sql: str, columns: set[str]) -> None:
    found = read_predicate(text)
    assert (found.sql, set(found.columns)) == (sql, columns)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("region = 'eu') OR (1 = 1", "is no SQL condition"),
        ("region = 'eu'; DROP TABLE orders", "holds more than one SQL condition"),
        ("region = 'eu' ORDER BY 1", "holds more than one SQL condition"),
        ("region = 'eu' UNION SELECT 1", "holds more than one SQL condition"),
        ("region = 'eu' LIMIT 1", "holds more than one SQL condition"),
        ("id IN (SELECT id FROM others)", "holds a subquery"),
        ("EXISTS (SELECT 1)", "holds a subquery"),
        ("count(*) > 1", "holds an aggregate"),
        ("row_number() OVER () = 1", "holds a window function"),
        ("id = $1", "holds a parameter"),
        ("1 = 1", "reads no column"),
        ("orders.region = 'eu'", "with its table"),
        ("xmin = 1", "reads the system column xmin"),
        ("region = 'eu", "is no SQL condition"),
    ],
)
def test_what_no_publication_takes(text: str, problem: str) -> None:
    with pytest.raises(InvalidStream, match=re.escape(problem)) as refused:
        read_predicate(text)
    assert refused.value.property == "filter"
    assert refused.value.fix is not None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("(region = 'eu'::text)", "region = 'eu'", True),
        ("((a > 1) AND (b = 'x'::text))", "a > 1 AND b = 'x'", True),
        ("(region = 'us'::text)", "region = 'eu'", False),
        (None, None, True),
        (None, "a = 1", False),
        ("((a OR b) AND c)", "a OR (b AND c)", False),
        ("((a OR b) AND c)", "(a OR b) AND c", True),
        ("((a = 1) AND (b = 2) AND (c = 3))", "a = 1 AND b = 2 AND c = 3", True),
    ],
)
def test_conditions_are_compared_by_meaning(one: str | None, other: str | None, *, same: bool) -> None:
    assert is_same_filter(one, other) is same


def test_what_a_publication_lacks_is_told() -> None:
    publication = Publication(
        name="p",
        owner="dba",
        owned=False,
        comment=None,
        tables={ORDERS: "(id > 1)"},
        names_tables=True,
        takes_all=False,
        is_whole=False,
        via_root=False,
        version="1",
    )
    assert publication.lacks({ORDERS: "id > 2", DOTTED: None}, via_root=True) == [
        "it does not publish inserts, updates and deletes",
        "it has not publish_via_partition_root",
        'it lacks "My Schema"."Tab.le"',
        "public.orders has (id > 1), and the stream id > 2",
    ]


# --- URIs ------------------------------------------------------------------------------------------------------------


def endpoint(uri: str, **refs: str) -> Endpoint:
    return Endpoint.model_validate({"kind": "postgres", "uri": uri, **refs})


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("postgres://app@db/shop", "postgres://app@db:5432/shop"),
        ("postgresql://app@DB.example:5433/shop", "postgres://app@db.example:5433/shop"),
        ("postgres://a%40b@[::1]/my%20db", "postgres://a%40b@[::1]:5432/my%20db"),
        (
            "postgres://app@db/shop?sslrootcert=/etc/ca.pem&sslmode=verify-full",
            "postgres://app@db:5432/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        ),
    ],
)
def test_a_database_in_one_spelling(uri: str, canonical: str) -> None:
    found = postgres_endpoint(endpoint(uri), "source")
    assert found.uri == canonical
    assert postgres_endpoint(endpoint(canonical), "source") == found


@pytest.mark.parametrize(
    ("uri", "refs", "property", "message"),
    [
        ("postgres://app@/shop", {}, "source.uri", "names no host"),
        ("postgres://app@db", {}, "source.uri", "names no database"),
        ("postgres://app@db/shop/orders", {}, "source.uri", "names no database"),
        ("postgres://app@a,b/shop", {}, "source.uri", "names several hosts"),
        ("postgres://app@db:99999/shop", {}, "source.uri", "names a port"),
        ("postgres://app@db/shop?connect_timeout=1", {}, "source.uri", "has the parameter connect_timeout"),
        ("postgres://app@db/shop?sslmode=never", {}, "source.uri", "sslmode has an unknown value"),
        ("postgres://app@db/shop?sslmode=require&sslrootcert=/ca", {}, "source.uri", "does not verify the server"),
        ("postgres://app@db/shop?sslmode=verify-ca&sslrootcert=ca", {}, "source.uri", "is no absolute path"),
        ("postgres://app@db/shop#x", {}, "source.uri", "has a part after #"),
        ("postgres://app@db/shop?sslmode=verify-full", {}, "source.uri", "nothing names the authority's certificate"),
        ("postgres://db/shop", {}, "source.uri", "names no role, and nothing names credentials"),
        ("postgres://db/shop", {"authRef": "env://PG_PASSWORD"}, "source.authRef", "names one value"),
    ],
)
def test_what_is_no_database(uri: str, refs: dict[str, str], property: str, message: str) -> None:
    with pytest.raises(ReplicatorError) as refused:
        postgres_endpoint(endpoint(uri, **refs), "source")
    assert (refused.value.property, message in refused.value.message) == (property, True), refused.value
    with pytest.raises(SecretSyntax) as unreadable:
        postgres_endpoint(endpoint("postgres://app@db/shop", authRef="nope"), "source")
    assert unreadable.value.property == "source.authRef"


@pytest.mark.parametrize(
    ("uri", "ref", "user", "needed"),
    [
        ("postgres://app@db/shop", None, "app", ()),
        ("postgres://app@db/shop", "env://PG_PASSWORD", "app", ("password",)),
        ("postgres://app@db/shop", "env://PG_*", "app", ("password",)),
        ("postgres://db/shop", "env://PG_*", None, ("username", "password")),
    ],
)
def test_who_logs_in(uri: str, ref: str | None, user: str | None, needed: tuple[str, ...]) -> None:
    found = postgres_endpoint(endpoint(uri, **({"authRef": ref} if ref else {})), "source")
    assert (found.user, found.needed) == (user, needed)


def test_another_role_makes_objects() -> None:
    given = endpoint("postgres://app@db/shop", authRef="env://PG_PASSWORD", adminAuthRef="env://PG_ADMIN_*")
    admin = postgres_endpoint(given, "source", admin=True)
    assert (admin.user, admin.needed, admin.ref_property) == (None, ("username", "password"), "source.adminAuthRef")
    assert postgres_endpoint(given, "source").user == "app"
