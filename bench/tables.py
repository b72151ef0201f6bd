"""Twenty tables on the real CLI, PostgreSQL and Kafka Connect, over bare loops of the same statements and calls."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from bench import floor_plugin
from bench.bare_connect import BareConnect
from bench.goals import GOALS
from bench.measure import Result, judge
from bench.stacks import Stack, program, stack
from tests.kafka import consume, plain
from tests.pulumi import SCRIPTS
from tools.kafka.jars import collect
from tools.kafka.pair import Side, running_pair
from tools.postgres import SUPERUSER, Postgres

AT_ONCE = 8
_HEAP = "2g"
_ROWS = 10  # in each table
_LIMIT = 60.0  # seconds until a slot is free, or a row is there
_ROLE = "streams"
_JSON = "org.apache.kafka.connect.json.JsonConverter"


def tables(folder: Path, laps: int, count: int) -> list[Result]:
    """Up, refresh and destroy of streams of one table each, and the time until a stream's first row, `laps` times."""
    nothing = floor_plugin.install(folder / "nothing")
    plugins = (collect("debezium-postgres"),)
    server = Postgres(folder / "postgres", settings={"max_replication_slots": "64", "max_wal_senders": "64"})
    with server, running_pair(folder / "kafka", plugins=plugins, worker_heap=_HEAP) as pair:
        side = pair.west
        bare = BareTables(server, BareConnect(side.connect))
        bare.make_tables(count + 1)
        (side.secrets / "streams.properties").write_text(f"username={_ROLE}\npassword=bench\n")
        many = [_stream(server, side, number) for number in range(count)]
        one = [_stream(server, side, count)]
        stacks = {
            f"{name}-{what}": Stack(
                stack(folder / f"{name}-{what}", where, program({"debezium": {"address": side.connect}}, streams)),
                len(streams),
            )
            for what, streams in (("many", many), ("one", one))
            for name, where in (("floor", nothing), ("value", SCRIPTS))
        }
        return _measured(laps, side, bare, stacks)


def _measured(laps: int, side: Side, bare: BareTables, stacks: dict[str, Stack]) -> list[Result]:
    values: dict[str, list[float]] = defaultdict(list)
    floors: dict[str, list[float]] = defaultdict(list)
    floor, value, floor_one, value_one = (
        stacks[name] for name in ("floor-many", "value-many", "floor-one", "value-one")
    )
    value.run("up")  # warms the worker, and shows which configurations and statements the bare loops repeat
    configs = bare.remember()
    value.run("destroy")
    value_one.run("up")
    single = bare.remember()
    value_one.run("destroy")
    bare.first_row(side, single)
    for _ in range(laps):
        floors["debezium_20"].append(floor.run("up") + bare.create(configs, AT_ONCE))
        looked = bare.look(configs, side.bootstrap)
        floors["debezium_20_noop"].append(floor.run("refresh") + looked)
        removed = bare.delete(configs, AT_ONCE)
        floors["debezium_20_destroy"].append(floor.run("destroy") + removed)
        values["debezium_20"].append(value.run("up", "--parallel", str(AT_ONCE)))
        value.expect_full()
        values["debezium_20_noop"].append(value.run("refresh"))
        values["debezium_20_destroy"].append(value.run("destroy", "--parallel", str(AT_ONCE)))
        if left := bare.left():
            raise RuntimeError(f"destroy left {left}")
        bare.forget_topics(side, single)
        began = floor_one.run("up") + bare.create(single, 1)
        floors["debezium_first_row"].append(began + bare.first_row(side, single))
        bare.delete(single, 1)
        floor_one.run("destroy")
        bare.forget_topics(side, single)
        began = value_one.run("up")
        values["debezium_first_row"].append(began + bare.first_row(side, single))
        value_one.run("destroy")
    return [judge(GOALS[name], values[name], floors[name]) for name in values]


@dataclass(frozen=True)
class BareTables:
    """What the streams need of the database and of the workers, in bare loops."""

    server: Postgres
    connect: BareConnect

    def make_tables(self, count: int) -> None:
        with self._session() as session:
            session.execute(f"CREATE ROLE {_ROLE} LOGIN SUPERUSER REPLICATION PASSWORD 'bench'")
            session.execute("CREATE SCHEMA app")
            for number in range(count):
                session.execute(f"CREATE TABLE app.t{number} (id int PRIMARY KEY, note text)".encode())
                rows = f"INSERT INTO app.t{number} SELECT n, 'note' FROM generate_series(1, {_ROWS}) n"
                session.execute(rows.encode())

    def remember(self) -> dict[str, dict[str, str]]:
        """Return the configurations of all connectors, each with the statements that its objects need."""
        configs = self.connect.configs()
        with self._session() as session:
            for config in configs.values():
                rows = session.execute(
                    "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s ORDER BY 1, 2",
                    (config["publication.name"],),
                ).fetchall()
                config["bench.tables"] = ",".join(f"{schema}.{name}" for schema, name in rows)
        return configs

    def create(self, configs: dict[str, dict[str, str]], at_once: int) -> float:
        """Make slots, publications, helper tables and connectors, until all run; the seconds that this took."""
        began = time.perf_counter()
        with self._session() as session:
            session.execute("CREATE SCHEMA IF NOT EXISTS replicator")
        _each(self._make, configs.values(), at_once)
        return time.perf_counter() - began + self.connect.create(configs, at_once)

    def _make(self, config: dict[str, str]) -> None:
        with self._session() as session:
            for table in config["bench.tables"].split(","):
                if ".heartbeat_" in table:
                    columns = "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, lsn pg_lsn"
                    session.execute(f"CREATE TABLE {table} ({columns})".encode())
                if ".signal_" in table:
                    session.execute(f"CREATE TABLE {table} (id text PRIMARY KEY, type text, data text)".encode())
            name = sql.Identifier(config["publication.name"])
            members = sql.SQL(config["bench.tables"])
            session.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(name, members))
            session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (config["slot.name"],))

    def delete(self, configs: dict[str, dict[str, str]], at_once: int) -> float:
        """Delete connectors, slots, publications and helper tables; the seconds that this took."""
        taken = self.connect.delete(configs, at_once)
        began = time.perf_counter()
        _each(self._drop, configs.values(), at_once)
        return taken + time.perf_counter() - began

    def _drop(self, config: dict[str, str]) -> None:
        deadline = time.monotonic() + _LIMIT
        with self._session() as session:
            while time.monotonic() < deadline:
                try:
                    session.execute("SELECT pg_drop_replication_slot(%s)", (config["slot.name"],))
                    break
                except psycopg.errors.ObjectInUse:
                    time.sleep(0.05)
            session.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(config["publication.name"])))
            for table in config["bench.tables"].split(","):
                if table.startswith("replicator."):
                    session.execute(f"DROP TABLE {table}".encode())

    def look(self, configs: Iterable[str], bootstrap: str) -> float:
        """One listing, the offsets of each connector, and one question about all slots."""
        began = time.perf_counter()
        with self._session() as session:
            session.execute("SELECT * FROM pg_replication_slots").fetchall()
        return time.perf_counter() - began + self.connect.look({}, bootstrap)

    def first_row(self, side: Side, configs: dict[str, dict[str, str]]) -> float:
        """Wait for the first row in the topic of the only stream; the seconds that this took."""
        (config,) = configs.values()
        began = time.perf_counter()
        while time.perf_counter() - began < _LIMIT:
            try:
                if consume(plain(side.bootstrap), _topic(config)):
                    return time.perf_counter() - began
            except LookupError:
                pass
            time.sleep(0.05)
        raise TimeoutError(f"no row came to {_topic(config)}")

    def forget_topics(self, side: Side, configs: dict[str, dict[str, str]]) -> None:
        """Remove the topic of the only stream."""
        from tests.backends.kafka_connect.mirror.mirror_env import delete_topic, topics

        (config,) = configs.values()
        if _topic(config) in topics(side):
            delete_topic(side, _topic(config))

    def left(self) -> list[str]:
        """What a destroy should have removed."""
        with self._session() as session:
            slots = session.execute("SELECT slot_name FROM pg_replication_slots").fetchall()
        return [*self.connect.configs(), *(str(name) for (name,) in slots)]

    def _session(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=self.server.host,
            port=self.server.port,
            dbname="postgres",
            user=SUPERUSER,
            password=self.server.password,
            autocommit=True,
        )


def _topic(config: dict[str, str]) -> str:
    table = next(name for name in config["bench.tables"].split(",") if name.startswith("app."))
    return f"{config['topic.prefix']}.{table}"


def _each(one: Callable[[dict[str, str]], None], configs: Iterable[dict[str, str]], at_once: int) -> None:
    with ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(one, configs):
            pass


def _stream(server: Postgres, side: Side, number: int) -> dict[str, Any]:
    return {
        "backend": "debezium",
        "source": {"kind": "postgres", "uri": server.uri(), "authRef": f"file://{side.secrets}/streams.properties"},
        "destination": {"kind": "kafka", "uri": f"kafka://{side.bootstrap}"},
        "include": [f"app.t{number}"],
        "options": {
            "topic.creation.default.replication.factor": 1,
            **{
                f"{end}.converter{key}": value
                for end in ("key", "value")
                for key, value in (("", _JSON), (".schemas.enable", False))
            },
        },
    }
