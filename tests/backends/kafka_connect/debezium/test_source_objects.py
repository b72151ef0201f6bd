"""Slots, publications and helper tables: made and removed by their stream, and never taken from anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from replicator.backends.kafka_connect.debezium import source_objects
from replicator.errors import (
    EngineUnavailable,
    InvalidStream,
    ReplicatorError,
    SourceLimit,
    SourceMissing,
    SourceSetup,
    WaitTimeout,
)
from replicator.model import StreamState, WaitFor

from tests.backends.kafka_connect.debezium.conftest import OpenBed
from tests.backends.kafka_connect.debezium.debezium_env import ORDERS, PASSWORD, DebeziumEnv
from tests.kafka import unique
from tests.postgres import make_role
from tests.waiting import until
from tools.kafka.pair import Pair
from tools.postgres import Postgres, find_program

pytestmark = pytest.mark.engine


async def test_a_slot_of_another_database_is_left_alone(bed: DebeziumEnv, open_bed: OpenBed, kafka: Pair) -> None:
    bed.execute(ORDERS)
    stream = await bed.made()
    await bed.caught_up(stream.name)
    name = stream.name.replace("-", "_")
    with closing(bed.rest()) as rest:
        rest.put(f"/connectors/{stream.name}/stop").raise_for_status()
    await until(lambda: asyncio.to_thread(lambda: not (bed.slot(name) or {})["active"]), what="the slot is not active")
    bed.sql("SELECT pg_drop_replication_slot(%s)", name)
    other = open_bed(bed.server, kafka.west)
    other.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", name)
    error = await bed.refused(stream.model_copy(update={"include": ("app.*",)}))
    assert isinstance(error, SourceSetup)
    assert f"in the database {other.database}" in error.message
    await bed.driver.delete_stream(stream.name)
    assert other.slot(name) is not None
    other.sql("SELECT pg_drop_replication_slot(%s)", name)


async def test_what_a_role_may_not_make_a_dba_makes(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders VALUES (1)")
    stream = bed.stream(source={"adminAuthRef": None})
    with pytest.raises(SourceSetup) as refused:
        await bed.driver.upsert_stream(stream)
    error = refused.value
    assert error.property == "source.adminAuthRef"
    assert (bed.slot(stream.name), bed.publications(), stream.name in bed.connectors()) == (None, set(), False)
    assert error.fix is not None
    bed.sql(error.fix.partition("run: ")[2])

    assert await bed.warned(stream) == []
    await bed.driver.upsert_stream(stream)
    found = await bed.caught_up(stream.name)
    assert found.status.lag_seconds is not None
    bed.execute("INSERT INTO orders VALUES (2)")
    await bed.caught_up(stream.name)
    assert set(bed.state(stream)) == {1, 2}
    await bed.driver.delete_stream(stream.name)
    assert bed.slot(stream.name) is None
    slot = stream.name.replace("-", "_")
    assert (bed.publications(), bed.helpers()) == ({slot}, {f"heartbeat_{slot}", f"signal_{slot}"}), (
        "they are the DBA's"
    )


async def test_a_publication_without_heartbeats_is_used_and_warned_of(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    stream = bed.stream(source={"adminAuthRef": None})
    slot = stream.name.replace("-", "_")
    bed.execute(f"CREATE PUBLICATION {slot} FOR TABLE orders WITH (publish_via_partition_root = true)")
    (warning,) = await bed.warned(stream)
    assert warning.code == "RPL-SOURCE-SETUP"
    assert "no table for heartbeats" in warning.message
    error = await bed.refused(stream.model_copy(update={"wait_for": WaitFor.CAUGHT_UP}))
    assert error.property == "waitFor"
    await bed.driver.upsert_stream(stream)
    bed.execute("INSERT INTO orders VALUES (1)")
    found = await bed.described(stream.name)
    assert found.status.lag_seconds is None
    assert "no table for heartbeats" in [item.message for item in found.findings][-1]
    wider = stream.model_copy(update={"include": ("app.*",)})
    bed.execute("CREATE TABLE more (id int PRIMARY KEY)")
    error = await bed.refused(wider)
    assert "the publication" in error.message and "it lacks app.more" in error.message


async def test_what_others_have_is_neither_taken_nor_dropped(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("CREATE TABLE more (id int PRIMARY KEY)")
    stream = bed.stream()
    slot = stream.name.replace("-", "_")
    bed.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot)
    error = await bed.refused(stream)
    assert isinstance(error, SourceSetup)
    assert f"the server has a slot of pgoutput in the database {bed.database}, not active" in error.message
    assert bed.slot(stream.name) is not None
    assert bed.publications() == set()
    bed.sql("SELECT pg_drop_replication_slot(%s)", slot)

    bed.execute(f"CREATE PUBLICATION {slot} FOR TABLE more")
    error = await bed.refused(stream)
    assert f"of the role {bed.owner}, and does not fit this stream" in error.message
    assert "it lacks app.orders" in error.message
    bed.execute(f"DROP PUBLICATION {slot}")

    bed.sql(f"CREATE PUBLICATION {slot} FOR ALL TABLES WITH (publish_via_partition_root = true)")
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    filtered = stream.model_copy(update={"filter": "region = 'eu'"})
    error = await bed.refused(filtered)
    assert "app.orders has no row filter, and the stream (region = 'eu'::text)" in error.message
    await bed.driver.upsert_stream(stream)
    await bed.driver.delete_stream(stream.name)
    assert bed.publications() == {slot}


async def test_of_two_connect_clusters_one_gets_the_name(bed: DebeziumEnv, kafka: Pair, open_bed: OpenBed) -> None:
    """They know nothing of each other; the database decides."""
    bed.execute(ORDERS)
    other = open_bed(bed.server, kafka.east)
    here = bed.stream()
    there = other.stream(name=here.name, source={"uri": bed.uri, **bed.logins_at(kafka.east)})
    results = await asyncio.gather(
        bed.driver.upsert_stream(here), other.driver.upsert_stream(there), return_exceptions=True
    )
    failed = [error for error in results if error is not None]
    assert len(failed) == 1, results
    assert isinstance(failed[0], ReplicatorError)
    assert bed.slot(here.name) is not None
    winner = bed if results[0] is None else other
    bed.execute("INSERT INTO orders VALUES (1)")
    await winner.caught_up(here.name)
    for env in (bed, other):
        assert (here.name in env.connectors()) is (env is winner), repr(failed[0])


async def test_a_delete_leaves_what_another_stream_made_of_the_same_name(
    bed: DebeziumEnv, kafka: Pair, open_bed: OpenBed
) -> None:
    """Somebody removed the objects of the first one, and a stream of another Connect cluster took the name."""
    bed.execute(ORDERS)
    first = await bed.made()
    await bed.caught_up(first.name)
    with bed.rest() as rest:
        rest.put(f"/connectors/{first.name}/stop").raise_for_status()
    slot = first.name.replace("-", "_")
    await until(lambda: _is_free(bed, first.name), timeout=20, what="the slot is free")
    bed.sql("SELECT pg_drop_replication_slot(%s)", slot)
    bed.sql(f"DROP PUBLICATION {slot}; DROP SCHEMA replicator CASCADE")
    other = open_bed(bed.server, kafka.east)
    there = other.stream(name=first.name)
    taken = there.model_copy(update={"source": there.source.model_copy(update={"uri": bed.uri})})
    bed.sql(f'GRANT ALL ON SCHEMA app TO "{other.role}", "{other.owner}"; GRANT "{bed.owner}" TO "{other.owner}"')
    bed.sql(
        f'GRANT SELECT ON app.orders TO "{other.role}"; GRANT CREATE ON DATABASE "{bed.database}" TO "{other.owner}"'
    )
    await other.driver.upsert_stream(taken)
    await other.caught_up(first.name)

    found = await bed.described(first.name)
    assert found.status.state is StreamState.FAILED
    with pytest.raises(ReplicatorError):
        await bed.driver.resume(first.name)
    await bed.driver.delete_stream(first.name)
    assert (bed.slot(first.name) is not None, bed.publications(), len(bed.helpers())) == (True, {slot}, 2)
    bed.execute("INSERT INTO orders VALUES (1)")
    await other.caught_up(first.name)
    assert set(other.state(taken)) == {1}


async def _is_free(bed: DebeziumEnv, name: str) -> bool:
    slot = bed.slot(name)
    return slot is not None and not slot["active"]


async def test_many_at_once_share_the_schema_of_helpers(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    streams = [bed.stream() for _ in range(6)]
    await asyncio.gather(*map(bed.driver.upsert_stream, streams))
    assert len(bed.helpers()) == 12
    await asyncio.gather(*(bed.driver.delete_stream(stream.name) for stream in streams))
    assert (bed.helpers(), bed.publications()) == (set(), set())
    assert bed.sql("SELECT 1 FROM pg_namespace WHERE nspname = 'replicator'") == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Postgres]:
    """A server for two streams."""
    with Postgres(tmp_path / "small", settings={"max_replication_slots": "2"}) as server:
        yield server


async def test_the_streams_of_a_program_are_counted_together(kafka: Pair, small: Postgres, open_bed: OpenBed) -> None:
    bed = open_bed(small, kafka.west)
    bed.execute(ORDERS)
    first = await bed.made()
    second, third = bed.stream(), bed.stream()
    assert await bed.warned(second) == []
    (error,) = await bed.driver.preflight(third)
    assert (error.severity.value, error.code, error.property) == ("error", "RPL-SOURCE-LIMIT", "source.uri")
    assert error.message == (
        "the server has 1 replication slots left, and this stream and the 1 that are made with it need 2"
    )
    await bed.driver.upsert_stream(second)
    with pytest.raises(SourceLimit):
        await bed.driver.upsert_stream(third)
    assert third.name not in bed.connectors()
    assert await bed.warned(first) == []


async def test_what_the_source_lacks_is_told_with_its_sql(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("CREATE TABLE keyless (id int)")
    error = await bed.refused(bed.stream("app.*"))
    assert error.fix == 'ALTER TABLE "app"."keyless" REPLICA IDENTITY FULL; or exclude it'
    bed.execute('ALTER TABLE "app"."keyless" REPLICA IDENTITY FULL')
    bed.sql(f'REVOKE SELECT ON app.keyless FROM "{bed.role}"')
    error = await bed.refused(bed.stream("app.*"))
    assert f"the role {bed.role!r}" in error.message.replace('"', "'")
    assert error.fix is not None
    bed.sql(error.fix)
    bed.sql(f'ALTER ROLE "{bed.role}" NOREPLICATION')
    error = await bed.refused(bed.stream("app.*"))
    assert "may not stream changes" in error.message
    assert error.fix is not None
    bed.sql(error.fix)
    stream = await bed.made("app.*")
    await bed.caught_up(stream.name)
    bed.execute("INSERT INTO keyless VALUES (1)")
    bed.execute("UPDATE keyless SET id = 2")
    await bed.caught_up(stream.name)
    assert [(op, after["id"]) for op, _, after in bed.changes(stream, "app.keyless")] == [("c", 1), ("u", 2)]


WRONG: dict[str, tuple[dict[str, Any], type[ReplicatorError], str, str]] = {
    "no such table": ({"include": ["app.none"]}, SourceMissing, "include", "the database has no table 'app.none'"),
    "nothing chosen": ({"include": ["none.*"]}, SourceMissing, "include", "no table of the database is chosen"),
    "capitals": ({"include": ["app.Upper"]}, SourceMissing, "include", "the database has no table 'app.Upper'"),
    "no such column": ({"exclude": ["app.orders.none"]}, SourceMissing, "exclude", "no table has a column"),
    "the key": ({"exclude": ["app.orders.id"]}, InvalidStream, "exclude", "app.orders would lose its key column id"),
    "without the key": (
        {"include": ["app.orders.note"]},
        InvalidStream,
        "include",
        "app.orders would lose its key column id",
    ),
    "one topic": ({"include": ['app."o r"', "app.o_r"]}, InvalidStream, "include", "to the same topic"),
    "a partition": ({"include": ["app.parts_1"]}, ReplicatorError, "include", "app.parts_1 is a partition"),
    "a dead server": ({"source": {"uri": "postgres://127.0.0.1:1/db"}}, EngineUnavailable, "source.uri", "not answer"),
    "no such database": (
        {"source": {"uri": "/none"}},
        SourceMissing,
        "source.uri",
        "does not exist",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_declaration_that_does_not_fit_the_database(bed: DebeziumEnv, case: str) -> None:
    given, kind, property, message = WRONG[case]
    bed.execute(ORDERS)
    bed.execute('CREATE TABLE "Upper" (id int PRIMARY KEY); CREATE TABLE "o r" (id int PRIMARY KEY)')
    bed.execute("CREATE TABLE o_r (id int PRIMARY KEY)")
    bed.execute("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    bed.execute("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)")
    changes = dict(given)
    include = changes.pop("include", ["app.orders"])
    if changes.get("source", {}).get("uri") == "/none":
        changes["source"] = {"uri": f"postgres://{bed.server.host}:{bed.server.port}/{unique('none')}"}
    error = await bed.refused(bed.stream(*include, **changes))
    assert isinstance(error, kind)
    assert (error.property, message in error.message) == (property, True), error
    assert bed.publications() == set()


async def test_capitals_dots_columns_and_partitions(bed: DebeziumEnv) -> None:
    bed.execute('CREATE TABLE "Or.der" ("Id" int PRIMARY KEY, "Secret" text, note text)')
    bed.execute("CREATE TABLE parts (id int PRIMARY KEY, secret text) PARTITION BY RANGE (id)")
    for n in range(2):
        bed.execute(f"CREATE TABLE parts_{n} PARTITION OF parts FOR VALUES FROM ({n * 10}) TO ({n * 10 + 10})")
    bed.execute("""INSERT INTO "Or.der" VALUES (1, 's', 'n'); INSERT INTO parts VALUES (1, 's'), (11, 's')""")
    stream = await bed.made('app."Or.der"', "app.parts", exclude=['app."Or.der"."Secret"', "app.parts.secret"])
    assert stream.include == ('app."Or.der"', "app.parts")
    bed.execute("""INSERT INTO "Or.der" VALUES (2, 's', 'n'); INSERT INTO parts VALUES (2, 's'), (12, 's')""")
    bed.execute("UPDATE parts SET id = 13 WHERE id = 2")
    await bed.caught_up(stream.name)
    odd = bed.changes(stream, "app.Or.der")
    assert [(op, after) for op, _, after in odd] == [
        ("r", {"Id": 1, "note": "n"}),
        ("c", {"Id": 2, "note": "n"}),
    ]
    parts = bed.state(stream, "app.parts")
    assert parts == {id: {"id": id} for id in (1, 11, 12, 13)}
    assert (await bed.described(stream.name)).status.state is StreamState.RUNNING


@pytest.mark.parametrize("own", [True, False])
async def test_a_consumer_that_outlives_its_connector_is_ended_if_it_is_ours(
    bed: DebeziumEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.setattr(source_objects, "_LEFT_WITHIN", 4.0)
    bed.execute(ORDERS)
    stream = await bed.made()
    await bed.caught_up(stream.name)
    with bed.rest() as rest:
        rest.put(f"/connectors/{stream.name}/stop").raise_for_status()
    await until(lambda: _is_free(bed, stream.name), timeout=20, what="the slot is free")
    role = bed.role if own else make_role(bed.server, unique("other"), PASSWORD)
    slot = stream.name.replace("-", "_")
    reader = await asyncio.create_subprocess_exec(
        *(str(find_program("pg_recvlogical")), "--start", "--no-loop", "--file", str(tmp_path / "read")),
        *("--slot", slot, "--option", "proto_version=1", "--option", f"publication_names={slot}"),
        *("--host", bed.server.host, "--port", str(bed.server.port), "--username", role, "--dbname", bed.database),
        env={"PGPASSWORD": PASSWORD},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: _is_read(bed, stream.name), timeout=20, what="somebody reads from the slot")
        if own:
            await bed.driver.delete_stream(stream.name)
            assert bed.slot(stream.name) is None
            assert await asyncio.wait_for(reader.wait(), 10) != 0
        else:
            with pytest.raises(WaitTimeout, match="is still read by process"):
                await bed.driver.delete_stream(stream.name)
            assert reader.returncode is None
    finally:
        with suppress(ProcessLookupError):
            reader.kill()
        await reader.wait()


async def _is_read(bed: DebeziumEnv, name: str) -> bool:
    found = bed.slot(name)
    return found is not None and found["active"]
