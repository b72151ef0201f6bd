"""What a destination must have and must not have: refused in a preview and in a change alike, with what to run."""

from __future__ import annotations

import asyncio
import re

import pytest
from replicator.errors import (
    DestinationInUse,
    DestinationSetup,
    InvalidConfig,
    InvalidStream,
    ReplicatorError,
    SecretNotFound,
    Unsupported,
)
from replicator.model import Stream

from tests.backends.kafka_connect.debezium.debezium_env import PASSWORD
from tests.backends.kafka_connect.debezium.sink_env import ORDERS, SinkEnv
from tests.kafka import unique
from tests.postgres import make_role

pytestmark = pytest.mark.engine

THERE = "CREATE SCHEMA app; CREATE TABLE app.orders (id int PRIMARY KEY, region text, note text"

TABLES = [
    ("CREATE SCHEMA app; CREATE TABLE app.orders (id int, region text, note text)", "no unique index on id"),
    (f"{THERE}); CREATE TABLE app.lines (o int REFERENCES app.orders)", "has a foreign key, lines_o_fkey"),
    (f"{THERE}, more int NOT NULL)", "app.orders.more at the destination refuses null"),
    (f"{THERE}); ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "row-level security"),
    (
        "CREATE SCHEMA app; CREATE TABLE app.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, region text, "
        "note text)",
        "app.orders.id at the destination is GENERATED ALWAYS AS IDENTITY",
    ),
    (
        "CREATE SCHEMA app; CREATE TABLE app.orders (id int PRIMARY KEY, region text, "
        "note text GENERATED ALWAYS AS (region || 'x') STORED)",
        "app.orders.note is a generated column at the destination",
    ),
]


@pytest.mark.parametrize(("made", "told"), TABLES, ids=[told.split()[0] + told.split()[-1] for _, told in TABLES])
async def test_a_table_that_does_not_fit_is_refused_and_fits_after_the_sql_of_the_fix(
    sinks: SinkEnv, made: str, told: str
) -> None:
    bed = sinks
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders (id, note) VALUES (1, 'one')")
    with bed.target() as session:
        session.execute(made.encode())
    stream = bed.stream()
    error = await bed.refused(stream)
    assert isinstance(error, DestinationSetup) and told in error.message
    assert error.fix is not None
    found = re.search(r"(ALTER TABLE|ALTER ROLE|CREATE UNIQUE INDEX)[^;]*?(?=, or of|;|$)", error.fix)
    assert found is not None
    bed.target_sql("ALTER TABLE app.lines DROP CONSTRAINT lines_o_fkey" if "lines" in told else found[0])
    await bed.driver.upsert_stream(stream)
    if "GENERATED ALWAYS AS (" not in made:
        await bed.same(stream.name)


async def test_rights_at_the_destination(sinks: SinkEnv) -> None:
    """Where no role may make anything, an administrator runs what the error prints, and the sink's role only writes."""
    bed = sinks
    bed.execute(ORDERS)
    bed.target_sql(f'ALTER DATABASE "{bed.target_database}" OWNER TO postgres')
    stream = bed.stream()
    error = await bed.refused(stream)
    assert isinstance(error, DestinationSetup) and error.property == "destination.adminAuthRef"
    assert error.message == f'the role "{bed.writer}" may not create the schema app; nor create the schema replicator'
    assert error.fix is not None
    for statement in error.fix.partition("administrator run: ")[2].split("; "):
        bed.target_sql(statement)
    stream = await bed.made(name=stream.name)
    bed.execute("INSERT INTO orders (id, note) VALUES (1, 'one'); TRUNCATE orders; INSERT INTO orders (id) VALUES (2)")
    await bed.same(stream.name)


async def test_a_table_has_one_writer_and_rows_do_not_go_round(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    stream = await bed.made()
    taken = await bed.refused(bed.stream())
    assert isinstance(taken, DestinationInUse)
    assert taken.message == f"the stream {stream.name!r} writes to app.orders of this database"

    back = Stream.model_validate(
        {
            **bed.stream().wire(),
            "source": {"kind": "postgres", "uri": bed.target_uri, "authRef": f"file://{bed.target_login}"},
            "destination": {"kind": "postgres", "uri": bed.uri, "authRef": f"file://{bed.admin}"},
        }
    )
    bed.target_sql(f'ALTER ROLE "{bed.writer}" REPLICATION')
    round_ = await bed.refused(back)
    assert isinstance(round_, InvalidStream)
    assert round_.message.startswith("rows of app.orders come to the source from this database")

    same = bed.stream(destination={"uri": bed.uri, "authRef": f"file://{bed.admin}"})
    assert "is the database of the source" in (await bed.refused(same)).message

    await bed.driver.delete_stream(stream.name, owner=stream.owner)
    bed.target_sql("ALTER TABLE app.orders REPLICA IDENTITY FULL")
    await bed.driver.upsert_stream(back)  # nothing of the first one is left that would forbid it
    await bed.driver.delete_stream(back.name, owner=(await bed.described(back.name)).stream.owner)


async def test_of_two_streams_made_at_once_one_writes(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders (id) VALUES (1)")
    streams, drivers = [bed.stream(), bed.stream()], [bed.driver, bed.another()]
    drivers[1]._claims = type(drivers[1]._claims)(1, 1)  # as in another process, which knows nothing of the first
    tried = await asyncio.gather(
        *(driver.upsert_stream(stream) for driver, stream in zip(drivers, streams, strict=True)), return_exceptions=True
    )
    errors = [item for item in tried if isinstance(item, BaseException)]
    assert len(errors) == 1 and isinstance(errors[0], DestinationInUse), tried
    (made,) = [stream for stream, item in zip(streams, tried, strict=True) if item is None]
    assert bed.target_sql("SELECT stream FROM replicator.table_writers") == [(made.name,)]
    await bed.same(made.name)


async def test_what_has_no_key_no_login_or_no_brokers(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute("CREATE TABLE heap (id int); ALTER TABLE heap REPLICA IDENTITY FULL")
    assert isinstance(await bed.refused(bed.stream("app.heap")), Unsupported)
    bed.execute(ORDERS)
    absent = bed.stream(destination={"authRef": "file:///nowhere.properties"})
    found = [item for item in await bed.driver.preflight(absent) if item.severity.value == "error"]
    assert [(item.code, item.property) for item in found] == [(SecretNotFound.code, "destination.authRef")]

    for kafka, told in (
        (None, "the configuration does not name its brokers"),
        ("kafka://127.0.0.1:1", "did not answer"),
    ):
        bed._settings["kafka"] = kafka
        with pytest.raises(ReplicatorError, match=told) as raised:
            await bed.another().upsert_stream(bed.stream(name=unique("s").replace("_", "-")))
        assert raised.value.property is None
        assert isinstance(raised.value, InvalidConfig) == (kafka is None)


async def test_topics_with_records_of_another_are_not_taken(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders (id) VALUES (1)")
    first = await bed.made()
    other = SinkEnv(bed.server, bed.side)
    try:
        other.execute(ORDERS)
        error = await other.refused(other.stream(options={"topic.prefix": first.name}))
        assert isinstance(error, DestinationInUse)
        assert error.property == "options.topic.prefix"
    finally:
        await other.remove()


async def test_a_role_that_may_not_read_which_streams_write_is_told_the_rights(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    await bed.made()
    bed.execute("CREATE TABLE items (id int PRIMARY KEY)")
    role = make_role(bed.target_server, unique("second"), PASSWORD, replication=False)
    login = bed.side.secrets / f"{role}.properties"
    login.write_text(f"username={role}\npassword={PASSWORD}\n")
    bed.target_sql(f'GRANT CREATE ON DATABASE "{bed.target_database}" TO "{role}"')
    bed.target_sql(f'GRANT USAGE, CREATE ON SCHEMA app TO "{role}"')
    stream = bed.stream("app.items", destination={"authRef": f"file://{login}"})
    error = await bed.refused(stream)
    assert isinstance(error, DestinationSetup) and "may not see which streams write to this database" in error.message
    assert error.property == "destination.authRef" and error.fix is not None
    bed.target_sql(error.fix.partition("run: ")[2])
    await bed.driver.upsert_stream(stream)
    bed.execute("INSERT INTO items VALUES (1)")
    await bed.same(stream.name, "app.items")
