"""A connector that was created manually becomes a stream; its offsets, slot, publication and settings stay."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import pytest
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.debezium.adoption import refuse_unstarted
from replicator.backends.kafka_connect.debezium.positions import Position
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.errors import (
    EngineRefused,
    EngineUnavailable,
    InvalidStream,
    NotOurs,
    ReplicatorError,
    SourcePosition,
    SourceSetup,
    Unsupported,
)
from replicator.model import DesiredState, Mode, Owner, Stream, StreamState
from replicator.replicator import EndHints, Proposal

from tests.backends.kafka_connect.debezium.builders import declare
from tests.backends.kafka_connect.debezium.conftest import OpenBed
from tests.backends.kafka_connect.debezium.debezium_env import ORDERS, PASSWORD, URN, DebeziumEnv
from tests.backends.kafka_connect.debezium.manual import by_hand, manual
from tests.kafka import unique
from tests.waiting import until
from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine

RECORD = {"replicator.stream", "replicator.record"}


def hints(bed: DebeziumEnv) -> tuple[EndHints, EndHints]:
    """The provider's own logins, and the brokers, which the configuration of a connector does not have."""
    return (
        EndHints(auth_ref=f"file://{bed.login}#password", admin_auth_ref=f"file://{bed.admin}"),
        EndHints(uri=f"kafka://{bed.side.bootstrap}"),
    )


async def proposed(bed: DebeziumEnv, name: str) -> Proposal:
    """The plan for a connector; it waits until Connect has stored a position, which the plan needs."""

    async def plan() -> Proposal | None:
        try:
            return await bed.driver.propose(name, *hints(bed))
        except EngineRefused as error:
            if "no position yet" not in error.message:
                raise
            return None

    return await until(plan, timeout=30, what="there is a plan")


async def arrived(bed: DebeziumEnv, prefix: str, count: int, table: str = "app.orders") -> list[tuple[str, Any, Any]]:
    """Wait until a topic has so many changes, and give them."""

    async def there() -> list[tuple[str, Any, Any]]:
        found = await asyncio.to_thread(bed.changes, prefix, table)
        return found if len(found) >= count else []

    return await until(there, timeout=60, what=f"{count} changes of {table}")


def tables(bed: DebeziumEnv, publication: str = "dbz_publication") -> None:
    bed.execute(ORDERS)
    bed.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    bed.execute("INSERT INTO orders SELECT n FROM generate_series(1, 5) n")
    bed.sql(f"CREATE PUBLICATION {publication} FOR ALL TABLES")


def owned(stream: Stream) -> Stream:
    """The declaration with an owner, as an import and the next update give it."""
    return stream.model_copy(update={"owner": Owner(urn=URN, token="t", claim=True)})


async def test_a_connector_becomes_a_stream_and_goes_on(bed: DebeziumEnv) -> None:
    tables(bed)
    name = unique("m").replace("_", "-")
    config = manual(bed, name, **{"table.include.list": r"app\.orders"})
    slot = config["slot.name"]
    with by_hand(bed, config):
        await arrived(bed, name, 5)
        assert name in [item.name for item in await bed.driver.unmanaged()]
        with pytest.raises(NotOurs, match="no stream made it"):
            await bed.driver.upsert_stream(bed.stream(name=name))
        before, held = bed.connector(name), bed.slot(slot)
        found = await proposed(bed, name)
        stream = found.stream
        assert (stream.include, stream.mode, stream.filter) == (("app.orders",), Mode.SNAPSHOT_THEN_CDC, None)
        assert stream.options["decimal.handling.mode"] == "string"
        assert {"database.password", "table.include.list"} <= set(found.kept)
        assert PASSWORD not in found.model_dump_json()
        assert not (await bed.driver.adopt_stream(stream, dry_run=True)).known
        assert bed.connector(name) == before

        assert not (await bed.driver.adopt_stream(stream)).known
        assert (await bed.driver.adopt_stream(stream)).known
        after = bed.connector(name)
        assert {key: value for key, value in after.items() if key not in RECORD} == before
        assert after.keys() >= RECORD
        assert PASSWORD not in after["replicator.stream"]
        assert name not in [item.name for item in await bed.driver.unmanaged()]
        bed.execute("UPDATE orders SET note = 'later' WHERE id = 3")
        bed.execute("INSERT INTO orders VALUES (6)")
        changes = await arrived(bed, name, 7)
        assert [op for op, *_ in changes] == ["r"] * 5 + ["u", "c"]  # no second snapshot
        described = await bed.described(name)
        assert described.stream == stream.recorded()
        assert (described.status.state, described.engine_objects["slot"]) == (StreamState.RUNNING, slot)
        now = bed.slot(slot)
        assert held is not None and now is not None and now["restart_lsn"] >= held["restart_lsn"]

        await bed.driver.upsert_stream(owned(stream))  # what an import and the next update do
        assert {key: value for key, value in bed.connector(name).items() if key not in RECORD} == before
        await bed.driver.pause(name)
        bed.execute("INSERT INTO orders VALUES (7)")
        await bed.another().resume(name)
        assert [op for op, *_ in await arrived(bed, name, 8)] == ["r"] * 5 + ["u", "c", "c"]

        await bed.driver.delete_stream(name)
        assert (bed.slot(slot), bed.publications()) == (None, {"dbz_publication"})
        assert name not in bed.connectors()


async def test_what_the_declaration_changes_is_no_longer_kept(bed: DebeziumEnv) -> None:
    tables(bed)
    name = unique("m").replace("_", "-")
    config = manual(bed, name, **{"table.include.list": r"app\.orders", "tombstones.on.delete": "false"})
    with by_hand(bed, config):
        await arrived(bed, name, 5)
        found = await proposed(bed, name)
        await bed.driver.adopt_stream(found.stream)
        wider = found.stream.model_copy(update={"include": ("app.orders", "app.users")})
        bed.execute("INSERT INTO users VALUES (0, 'before')")
        with pytest.raises(SourceSetup, match="has no table for signals") as refused:
            await bed.driver.upsert_stream(owned(wider))
        for statement in str(refused.value.fix).partition("administrator run: ")[2].split("; "):
            bed.sql(statement)
        await bed.driver.upsert_stream(owned(wider))
        after = bed.connector(name)
        assert after["table.include.list"] == r"(?-i:app\.orders),(?-i:app\.users)"
        assert after["database.password"] == PASSWORD
        bed.execute("INSERT INTO users VALUES (1, 'a')")
        assert {row["id"] for _, _, row in await arrived(bed, name, 2, "app.users")} == {0, 1}
        login = {**wider.source.wire(), "authRef": f"file://{bed.login}", "uri": bed.uri}
        await bed.driver.upsert_stream(owned(Stream.model_validate({**wider.wire(), "source": login})))
        assert bed.connector(name)["database.password"].startswith("${file:")
        bed.execute("INSERT INTO users VALUES (2, 'b')")
        await arrived(bed, name, 3, "app.users")
        assert [op for op, *_ in bed.changes(name)] == ["r"] * 5
        await bed.driver.delete_stream(name)


async def test_a_paused_connector_stays_paused_and_a_filter_is_read_from_the_publication(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.sql("CREATE PUBLICATION high FOR TABLE app.orders WHERE (id > 10)")
    name = unique("m").replace("_", "-")
    config = manual(bed, name, **{"publication.name": "high", "snapshot.mode": "no_data"})
    with by_hand(bed, config):
        await until(lambda: asyncio.to_thread(lambda: bed.slot(config["slot.name"])), what="its slot exists")
        with closing(bed.rest()) as rest:
            rest.put(f"/connectors/{name}/pause").raise_for_status()
        bed.execute("INSERT INTO orders VALUES (1), (11)")
        found = await proposed(bed, name)
        stream = found.stream
        assert (stream.filter, stream.include, stream.mode) == ("id > 10", ("app.orders",), Mode.CDC)
        assert stream.desired_state is DesiredState.PAUSED
        assert "not filtered" in " ".join(item.message for item in found.findings)
        await bed.driver.adopt_stream(stream)
        assert (await bed.described(name)).status.state is StreamState.PAUSED
        await bed.driver.resume(name)
        assert [after["id"] for _, _, after in await arrived(bed, name, 1)] == [11]
        await bed.driver.delete_stream(name)
        assert bed.publications() == {"high"}


async def test_two_processes_adopt_one_connector(bed: DebeziumEnv) -> None:
    tables(bed)
    name = unique("m").replace("_", "-")
    config = manual(bed, name)
    with by_hand(bed, config):
        await arrived(bed, name, 5)
        drivers = [bed.driver, bed.another(), bed.another()]
        await proposed(bed, name)
        found = [await driver.propose(name, *hints(bed)) for driver in drivers]
        await asyncio.gather(*(driver.adopt_stream(each.stream) for driver, each in zip(drivers, found, strict=True)))
        assert (await bed.described(name)).stream == found[0].stream.recorded()
        bed.execute("INSERT INTO orders VALUES (6)")
        assert [op for op, *_ in await arrived(bed, name, 6)] == ["r"] * 5 + ["c"]
        await bed.driver.delete_stream(name)


async def test_a_connector_that_changes_during_the_checks_is_left_alone(
    bed: DebeziumEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables(bed)
    name = unique("m").replace("_", "-")
    config = manual(bed, name)
    with by_hand(bed, config), closing(bed.rest()) as rest:
        await arrived(bed, name, 5)
        found = await proposed(bed, name)
        validate = ConnectCluster.validate

        async def meanwhile(*given: Any) -> Any:
            answer = await validate(*given)
            rest.put(f"/connectors/{name}/config", json={**config, "max.batch.size": "500"}).raise_for_status()
            return answer

        monkeypatch.setattr(ConnectCluster, "validate", meanwhile)
        with pytest.raises(EngineRefused, match="was changed while the adoption was checked"):
            await bed.driver.adopt_stream(found.stream)
        after = bed.connector(name)
        assert after["max.batch.size"] == "500"
        assert RECORD.isdisjoint(after)


async def test_another_database_gets_objects_of_the_streams_own(bed: DebeziumEnv, open_bed: Any, kafka: Any) -> None:
    tables(bed)
    other = open_bed(bed.server, kafka.west)
    other.execute(ORDERS)
    other.execute("INSERT INTO orders VALUES (100)")
    name = unique("m").replace("_", "-")
    config = manual(bed, name, **{"table.include.list": r"app\.orders"})
    with by_hand(bed, config):
        await arrived(bed, name, 5)
        found = await proposed(bed, name)
        await bed.driver.adopt_stream(found.stream)
        source = other.stream(name=name).source
        await bed.driver.upsert_stream(owned(found.stream.model_copy(update={"source": source})))
        assert bed.slot(config["slot.name"]) is None
        assert bed.publications() == {"dbz_publication"}
        assert (other.slot(name) or {})["slot_name"] == name.replace("-", "_")
        after = bed.connector(name)
        assert after["publication.name"] == name.replace("-", "_")
        assert after["database.password"].startswith("${file:")
        assert [(op, row["id"]) for op, _, row in await arrived(other, name, 6)][5:] == [("r", 100)]
        await bed.driver.delete_stream(name)


async def test_a_slot_that_lost_the_position_is_refused(bed: DebeziumEnv) -> None:
    tables(bed)
    name = unique("m").replace("_", "-")
    config = manual(bed, name)
    with by_hand(bed, config):
        await arrived(bed, name, 5)
        bed.execute("INSERT INTO orders VALUES (6)")
        await arrived(bed, name, 6)
        with closing(bed.rest()) as rest:
            rest.put(f"/connectors/{name}/stop").raise_for_status()
            await until(lambda: asyncio.to_thread(lambda: not rest.get(f"/connectors/{name}/tasks").json()))
        bed.sql("SELECT pg_drop_replication_slot(%s)", config["slot.name"])
        bed.execute("INSERT INTO orders VALUES (7)")
        bed.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", config["slot.name"])
        with pytest.raises(SourcePosition, match="was made again"):
            await proposed(bed, name)
        assert RECORD.isdisjoint(bed.connector(name))


BAD: dict[str, tuple[dict[str, str], str]] = {
    "drops": ({"slot.drop.on.stop": "true"}, "each restart drops its replication slot"),
    "always": ({"snapshot.mode": "always"}, "snapshot.mode is always"),
    "plugin": ({"plugin.name": "decoderbufs"}, "it decodes with decoderbufs"),
    "mode": ({"snapshot.mode": "custom"}, "snapshot.mode is custom"),
    "regex": ({"table.include.list": "app.(orders"}, "its table.include.list cannot be read"),
    "no table": ({"schema.include.list": "nowhere"}, "its lists choose no table"),
    "no publication": ({"publication.name": "missing"}, "the publication missing does not exist"),
    "none": ({"publication.name": "mixed", "table.include.list": r"app\.parts"}, "has none of the tables"),
    "filters": ({"publication.name": "mixed"}, "filters the rows of its tables differently"),
    "partition": ({"table.include.list": r"app\.parts_1", "publication.name": "parts"}, "under the name of the part"),
}


async def test_what_no_stream_can_stand_for_is_refused_and_stays_as_it_is(bed: DebeziumEnv) -> None:
    tables(bed)
    bed.sql("CREATE PUBLICATION mixed FOR TABLE app.orders WHERE (id > 10), app.users")
    bed.execute("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    bed.execute("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)")
    bed.sql("CREATE PUBLICATION parts FOR TABLE app.parts")
    for changes, text in BAD.values():
        name = unique("m").replace("_", "-")
        # A connector that is stopped never checks what it is given.
        config = {**manual(bed, name), **changes}
        with closing(bed.rest()) as rest:
            body = {"name": name, "config": config, "initial_state": "STOPPED"}
            made = rest.post("/connectors", json=body)
        if made.status_code == 400:
            continue  # Debezium's own validation refuses it first
        try:
            with pytest.raises(ReplicatorError) as refused:
                await proposed(bed, name)
            assert text in str(refused.value)
            assert (refused.value.stream, PASSWORD in str(refused.value)) == (name, False)
            assert RECORD.isdisjoint(bed.connector(name))
        finally:
            with closing(bed.rest()) as rest:
                rest.delete(f"/connectors/{name}")


async def test_two_connectors_of_one_slot_are_refused(bed: DebeziumEnv) -> None:
    tables(bed)
    names = [unique("m").replace("_", "-") for _ in range(2)]
    first, second = (manual(bed, name, **{"slot.name": names[0].replace("-", "_")}) for name in names)
    with by_hand(bed, first), closing(bed.rest()) as rest:
        await arrived(bed, names[0], 5)
        stopped = {"name": names[1], "config": second, "initial_state": "STOPPED"}
        rest.post("/connectors", json=stopped).raise_for_status()
        try:
            for name, other in zip(names, reversed(names), strict=True):
                with pytest.raises(NotOurs, match=f"the connector '{other}' has the same replication slot"):
                    await bed.driver.propose(name, *hints(bed))
        finally:
            rest.delete(f"/connectors/{names[1]}")


async def test_a_slot_of_another_database_is_refused(bed: DebeziumEnv, open_bed: OpenBed, kafka: Pair) -> None:
    tables(bed)
    other = open_bed(bed.server, kafka.west)
    name = unique("m").replace("_", "-")
    config = manual(bed, name)
    other.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", config["slot.name"])
    with closing(bed.rest()) as rest:
        rest.post("/connectors", json={"name": name, "config": config, "initial_state": "STOPPED"}).raise_for_status()
        try:
            with pytest.raises(SourceSetup, match=f"in the database {other.database}"):
                await bed.driver.propose(name, *hints(bed))
        finally:
            rest.delete(f"/connectors/{name}")
            other.sql("SELECT pg_drop_replication_slot(%s)", config["slot.name"])


async def test_a_wrong_destination_is_refused(bed: DebeziumEnv, kafka: Pair) -> None:
    tables(bed)
    name = unique("m").replace("_", "-")
    with by_hand(bed, manual(bed, name)):
        await arrived(bed, name, 5)
        await proposed(bed, name)
        source, _ = hints(bed)
        with pytest.raises(NotOurs, match="writes to the Kafka cluster of its worker") as refused:
            await bed.driver.propose(name, source, EndHints(uri=f"kafka://{kafka.east.bootstrap}"))
        assert refused.value.property == "destination.uri"
        with pytest.raises(EngineUnavailable):
            await bed.driver.propose(name, source, EndHints(uri="kafka://127.0.0.1:1"))


async def test_lists_of_the_connector_hide_nothing_that_joins(bed: DebeziumEnv) -> None:
    tables(bed)
    bed.execute(f'CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO "{bed.role}"')
    bed.execute("CREATE TABLE other.items (id int PRIMARY KEY)")
    bed.execute(f'GRANT SELECT ON other.items TO "{bed.role}"')
    name = unique("m").replace("_", "-")
    lists = {"schema.include.list": "app", "publication.autocreate.mode": "all_tables", "snapshot.mode": "no_data"}
    with by_hand(bed, manual(bed, name, **lists)):
        await until(lambda: asyncio.to_thread(lambda: bed.slot(f"by_hand_{name}")), what="its slot exists")
        found = await proposed(bed, name)
        assert found.stream.include == ("app.orders", "app.users")
        await bed.driver.adopt_stream(found.stream)
        after = bed.connector(name)
        assert (after["schema.include.list"], after["publication.autocreate.mode"]) == ("app", "disabled")
        wider = found.stream.model_copy(update={"include": (*found.stream.include, "other.items")})
        await bed.driver.upsert_stream(owned(wider))
        assert "schema.include.list" not in bed.connector(name)
        bed.execute("INSERT INTO other.items VALUES (1)")
        bed.execute("INSERT INTO app.users VALUES (1, 'a')")
        await arrived(bed, name, 1, "other.items")
        await arrived(bed, name, 1, "app.users")
        await bed.driver.delete_stream(name)


async def test_columns_that_the_connector_chooses_keep_tables_from_joining(bed: DebeziumEnv) -> None:
    tables(bed)
    name = unique("m").replace("_", "-")
    lists = {"table.include.list": r"app\.orders", "column.include.list": r"app\.orders\.(id|note)"}
    with by_hand(bed, manual(bed, name, **lists)):
        await arrived(bed, name, 5)
        found = await proposed(bed, name)
        assert "decides which columns are sent" in " ".join(item.message for item in found.findings)
        await bed.driver.adopt_stream(found.stream)
        wider = found.stream.model_copy(update={"include": ("app.orders", "app.users")})
        with pytest.raises(InvalidStream, match=r"column\.include\.list stays as it was") as refused:
            await bed.driver.upsert_stream(owned(wider))
        assert refused.value.property == "include"
        columns = wider.model_copy(update={"include": ("app.orders.id", "app.orders.note")})
        await bed.driver.upsert_stream(owned(columns))
        assert bed.connector(name)["column.include.list"].startswith("(?-i:app")
        bed.execute("INSERT INTO orders VALUES (6, 'eu', 'x')")
        assert (await arrived(bed, name, 6))[-1][2] == {"id": 6, "note": "x"}
        await bed.driver.delete_stream(name)


async def test_the_sql_for_a_publication_leaves_what_others_read(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE items (id int PRIMARY KEY)")
    bed.sql("CREATE PUBLICATION dbz_publication FOR TABLE app.orders, app.users WHERE (id > 3)")
    name = unique("m").replace("_", "-")
    config = manual(bed, name, **{"table.include.list": r"app\.orders", "snapshot.mode": "no_data"})
    with by_hand(bed, config):
        await until(lambda: asyncio.to_thread(lambda: bed.slot(config["slot.name"])), what="its slot exists")
        found = await proposed(bed, name)
        await bed.driver.adopt_stream(found.stream)
        wider = found.stream.model_copy(update={"include": ("app.orders", "app.items")})
        with pytest.raises(SourceSetup, match=r"it lacks app\.items") as refused:
            await bed.driver.upsert_stream(owned(wider))
        for statement in str(refused.value.fix).partition("owner run: ")[2].split("; "):
            bed.sql(statement)
        assert bed.published("dbz_publication") == {"app.orders": None, "app.users": "(id > 3)", "app.items": None}
        await bed.driver.upsert_stream(owned(wider))
        bed.execute("INSERT INTO items VALUES (1)")
        await arrived(bed, name, 1, "app.items")
        await bed.driver.delete_stream(name)


@pytest.mark.parametrize(
    ("position", "has_slot", "mode", "text"),
    [
        (Position(lsn=5, in_snapshot=True), True, "snapshot_then_cdc", "it is reading its tables"),
        (Position(), True, "snapshot_then_cdc", "no position yet"),
        (Position(), False, "cdc", "no position yet"),
        (Position(), True, "cdc", None),
        (Position(lsn=5), True, "snapshot_then_cdc", None),
    ],
)
def test_a_connector_whose_restart_would_read_its_tables_is_refused(
    position: Position, has_slot: bool, mode: str, text: str | None
) -> None:
    record = StreamRecord(stream=declare(mode=mode))
    if text is None:
        refuse_unstarted(record, position, has_slot=has_slot)
    else:
        with pytest.raises(EngineRefused, match=text):
            refuse_unstarted(record, position, has_slot=has_slot)


async def test_a_name_that_no_stream_can_have_is_refused(bed: DebeziumEnv) -> None:
    tables(bed)
    prefix = unique("m")
    with (
        by_hand(bed, manual(bed, prefix), name=f"Orders_{prefix}") as name,
        pytest.raises(Unsupported, match="no stream can have this name"),
    ):
        await proposed(bed, name)
