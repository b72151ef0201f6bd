"""Values of every type that is accepted, unchanged values out of line, and keys that change: equal at both ends."""

from __future__ import annotations

import random

import pytest
from replicator.errors import DestinationSetup, SourceSetup, Unsupported

from tests.backends.kafka_connect.debezium.sink_env import SinkEnv

pytestmark = pytest.mark.engine

VALUES = {
    "smallint": ["-32768", "7"],
    "integer": ["-2147483648", "7"],
    "bigint": ["9223372036854775807", "-1"],
    "numeric": ["12345678901234567890.123456789012345000", "NaN"],
    "numeric(10,2)": ["-99999999.99", "0.10"],
    "real": ["1.5", "-3.25e+30"],
    "double precision": ["0.1", "1e-300"],
    "text": ["", "back\\slash 'quote' \"double\" ünï ☃ 𝄞 $x ${y} {z}\n\ttab"],
    "character varying(20)": ["a", "b  "],
    "character(5)": ["ab", "abcde"],
    "boolean": ["true", "false"],
    "bytea": ["\\x00ff10", "\\x"],
    "date": ["2026-02-28", "0044-03-15 BC"],
    "time": ["23:59:59.999999", "00:00:00"],
    "time with time zone": ["12:34:56.123456+00", "00:00:00+00"],
    "timestamp": ["1999-12-31 23:59:59.999999", "0001-01-01 00:00:00"],
    "timestamp(3)": ["2026-11-29 10:00:00.123", "1500-06-01 00:00:00"],
    "timestamp with time zone": ["2026-11-29 10:00:00.123456+00", "infinity"],
    "interval": ["1 year 2 mons 3 days 04:05:06.789012", "-1 days"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"],
    "json": ['{"b": 1,  "a": [null, "ü"]}', "null"],
    "jsonb": ['{"a": {"b": [1, 2.50]}}', '"text"'],
    "inet": ["192.168.0.1/24", "::1"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "macaddr": ["08:00:2b:01:02:03", "00:00:00:00:00:00"],
    "macaddr8": ["08:00:2b:01:02:03:04:05", "00:00:00:00:00:00:00:00"],
    "xml": ["<a>ü</a>", "<b/>"],
    "public.citext": ["Ä b", ""],
    "app.mood": ["happy", 'it\'s "ok"'],
    "app.price": ["10", "0"],
    "bit(1)": ["1", "0"],
    "bit(8)": ["10101010", "00000000"],
    "money": ["-12.34", "0"],
    "tsvector": ["'cat':3 'fat':2", ""],
    "int4range": ["[1,5)", "empty"],
    "int8range": ["(,10)", "[1,)"],
    "numrange": ["[1.5,2.50]", "(,)"],
    "daterange": ["[2026-01-01,2026-02-01)", "empty"],
    "tsrange": ['["2026-01-01 00:00:00","2026-01-02 00:00:00")', "empty"],
    "tstzrange": ['["2026-01-01 00:00:00+00","2026-01-02 00:00:00+00")', "empty"],
    "smallint[]": ["{1,NULL,-3}", "{}"],
    "integer[]": ["{1,NULL,2}", "{}"],
    "bigint[]": ["{9223372036854775807}", "{}"],
    "text[]": ['{a,NULL,"b,c","q\\"uote"}', "{}"],
    "character varying(5)[]": ["{ab,NULL}", "{}"],
    "uuid[]": ["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "{}"],
    "boolean[]": ["{t,f,NULL}", "{}"],
}
TYPES = "CREATE TYPE app.mood AS ENUM ('happy', 'it''s \"ok\"'); CREATE DOMAIN app.price AS integer CHECK (VALUE >= 0)"
COLUMNS = {kind: f"c{number}" for number, kind in enumerate(VALUES)}


async def test_every_accepted_type_arrives_as_it_is(sinks: SinkEnv) -> None:
    """Each column has a default too, over which a null wins."""
    bed = sinks
    bed.sql("CREATE EXTENSION citext")
    bed.target_sql("CREATE EXTENSION citext")
    bed.execute(TYPES)
    columns = ", ".join(
        f"{name} {kind} DEFAULT '{VALUES[kind][1].replace(chr(39), chr(39) * 2)}'" for kind, name in COLUMNS.items()
    )
    bed.execute(f"CREATE TABLE kinds (id int PRIMARY KEY, {columns}); ALTER TABLE kinds REPLICA IDENTITY FULL")
    row = ", ".join(f"%s::{kind}" for kind in VALUES)

    def insert(id: int, which: int | None) -> None:
        given = [None if which is None else texts[which] for texts in VALUES.values()]
        bed.execute(f"INSERT INTO kinds VALUES ({id}, {row})", *given)

    for id, which in enumerate((0, 1, None)):
        insert(id, which)
    stream = bed.stream("app.kinds")
    missing = await bed.refused(stream)
    assert isinstance(missing, DestinationSetup) and "the type app.mood of app.kinds." in missing.message
    with bed.target() as session:
        session.execute("CREATE SCHEMA app")
        session.execute(TYPES)
    await bed.driver.upsert_stream(stream)
    for id, which in enumerate((0, 1, None), start=10):
        insert(id, which)
    sets = ", ".join(f"{name} = source.{name}" for name in COLUMNS.values())
    for id, other in ((10, 11), (11, 12), (12, 10), (0, 2), (1, 0)):
        bed.execute(f"UPDATE kinds SET {sets} FROM kinds source WHERE kinds.id = {id} AND source.id = {other}")
    bed.execute("INSERT INTO kinds (id) VALUES (20)")
    await bed.same(stream.name, "app.kinds")


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("v point", "is of the type point, whose values the JDBC sink refuses or changes"),
        ("v numeric[]", "is of the type numeric[]"),
        ("v timestamptz[]", "is of the type timestamp with time zone[]"),
        ("v int[][]", "is of the type integer[][]"),
        ("v varbit(12)", "is of the type bit varying(12)"),
        ("v int4multirange", "is of the type int4multirange"),
        ("v app.pair", "is of the type app.pair"),
        ("v app.mood[]", "is of the type app.mood[]"),
        ("v int GENERATED ALWAYS AS (id + 1) STORED", "is a generated column"),
    ],
)
async def test_a_type_whose_values_do_not_arrive_is_refused_and_can_be_excluded(
    sinks: SinkEnv, column: str, told: str
) -> None:
    bed = sinks
    bed.execute("CREATE TYPE app.pair AS (a int, b int); CREATE TYPE app.mood AS ENUM ('x')")
    bed.execute(f"CREATE TABLE odd (id int PRIMARY KEY, {column})")
    error = await bed.refused(bed.stream("app.odd"))
    assert isinstance(error, Unsupported) and error.message.startswith("app.odd.v ") and told in error.message
    assert error.fix is not None and error.fix.startswith("exclude 'app.odd.v'")
    assert await bed.warned(bed.stream("app.odd", exclude=["app.odd.v"]))


async def test_a_name_with_a_double_quote_is_refused(sinks: SinkEnv) -> None:
    sinks.execute('CREATE TABLE odd (id int PRIMARY KEY, "v""x" int)')
    error = await sinks.refused(sinks.stream("app.odd"))
    assert error.message == 'app.odd."v""x" has a double quote in its name, which the JDBC sink does not escape'


@pytest.mark.parametrize("by", ["identity", "reading"])
async def test_values_out_of_line_and_keys_that_change(sinks: SinkEnv, by: str) -> None:
    """By random operations, some of them while nothing runs, so that a row is gone before its values are read again."""
    bed, chance = sinks, random.Random("sink")
    bed.execute("CREATE TABLE big (b text, a int, body text, doc jsonb, raw bytea, tags text[], PRIMARY KEY (b, a))")
    bed.execute("ALTER TABLE big ALTER body SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL")
    bed.execute('CREATE TABLE "My Table.x" ("Id" int PRIMARY KEY, "Some Col" text)')
    refused = await bed.refused(bed.stream("app.big", 'app."My Table.x"'))
    assert isinstance(refused, SourceSetup) and refused.fix is not None and "REPLICA IDENTITY FULL" in refused.fix
    if by == "identity":
        bed.execute('ALTER TABLE big REPLICA IDENTITY FULL; ALTER TABLE "My Table.x" REPLICA IDENTITY FULL')
    options = {} if by == "identity" else {"reselector.reselect.unavailable.values": True}
    stream = await bed.made("app.big", 'app."My Table.x"', options=options)
    wide = "repeat(md5(random()::text), 400)"

    def operate() -> None:
        key = (chance.choice("xyz"), chance.randrange(6))
        match chance.randrange(6):
            case 0 | 1:
                bed.execute(
                    f"INSERT INTO big VALUES (%s, %s, {wide}, jsonb_build_object('v', {wide}), decode({wide}, 'hex'), "
                    f"ARRAY[{wide}, 'b']) ON CONFLICT DO NOTHING",
                    *key,
                )
            case 2:
                bed.execute("UPDATE big SET tags = '{}' WHERE b = %s", key[0])
            case 3:
                bed.execute(f"UPDATE big SET body = {wide} WHERE b = %s AND a = %s", *key)
            case 4:
                bed.execute("DELETE FROM big WHERE b = %s AND a = %s", *key)
            case 5:
                bed.execute(
                    "UPDATE big SET a = a + 100 WHERE b = %s AND a = %s AND NOT EXISTS "
                    "(SELECT FROM big WHERE b = %s AND a = %s + 100)",
                    *key,
                    *key,
                )
        number = chance.randrange(5)
        change = 'ON CONFLICT ("Id") DO UPDATE SET "Some Col" = %s'
        bed.execute(f'INSERT INTO "My Table.x" VALUES (%s, %s) {change}', number, "a", "b")

    for _ in range(2):
        for _ in range(60):
            operate()
        await bed.same(stream.name, "app.big", 'app."My Table.x"')
        await bed.driver.pause(stream.name)
        for _ in range(60):
            operate()
        await bed.driver.resume(stream.name)
    await bed.same(stream.name, "app.big", 'app."My Table.x"')
