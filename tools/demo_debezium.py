"""The main job of debezium, narrated: a table that goes on, streamed to a topic, filtered, watched and paused.

A PostgreSQL server and a Kafka cluster with a Connect worker live in one temporary folder and on 127.0.0.1, and are
gone at the end.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone

from tests.kafka import consume, plain
from tools.kafka.cluster import Broker, Worker
from tools.kafka.jars import collect
from tools.kafka.process import find_jars
from tools.postgres import SUPERUSER, Postgres
from tools.stage import Stage, Writer, find_cli, lag, note, say, show

NAME = "orders"
TOPIC = "orders.shop.orders"
EU = "region = 'eu'"
JSON = "org.apache.kafka.connect.json.JsonConverter"
SETUP = """
CREATE ROLE debezium LOGIN REPLICATION PASSWORD 'demo';
CREATE ROLE shop LOGIN PASSWORD 'demo';
GRANT CREATE ON DATABASE postgres TO shop;
CREATE SCHEMA shop AUTHORIZATION shop;
GRANT USAGE ON SCHEMA shop TO debezium;
ALTER DEFAULT PRIVILEGES FOR ROLE shop IN SCHEMA shop GRANT SELECT ON TABLES TO debezium;
"""
IDENTITY = "ALTER TABLE shop.orders REPLICA IDENTITY FULL"
TABLE = "CREATE TABLE shop.orders (id int PRIMARY KEY, region text NOT NULL, item text)"


class Orders(Writer):
    """A program that inserts orders into a table; it changes every tenth one."""

    def __init__(self, server: Postgres) -> None:
        super().__init__()
        self._server = server

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], object]]:
        with connect(self._server, "shop") as session:

            def write(number: int) -> None:
                region = "eu" if number % 2 else "us"
                session.execute("INSERT INTO shop.orders VALUES (%s, %s, 'tea')", (number, region))
                if number % 10 == 0:
                    session.execute("UPDATE shop.orders SET item = 'coffee' WHERE id = %s", (number - 5,))

            yield write


class Demo(Stage):
    """One run in one folder."""

    def __init__(self, folder: Path, server: Postgres, broker: Broker, worker: Worker, cli: Path) -> None:
        super().__init__(folder, cli)
        self.server, self.broker, self.worker = server, broker, worker
        self.options = ("--backend", "debezium", "--address", worker.url)
        for role in ("debezium", "shop"):
            (worker.secrets / f"{role}.properties").write_text(f"username={role}\npassword=demo\n")

    # --- the program -------------------------------------------------------------------------------------------------

    def declare(self, **more: Any) -> None:
        """Write Pulumi.yaml."""
        secrets = self.worker.secrets
        stream = {
            "name": NAME,
            "source": {
                "kind": "postgres",
                "uri": self.server.uri(),
                "authRef": f"file://{secrets}/debezium.properties",
                "adminAuthRef": f"file://{secrets}/shop.properties",
            },
            "destination": {"kind": "kafka", "uri": f"kafka://{self.broker.bootstrap}"},
            "include": ["shop.orders"],
            "checkpointInterval": "1s",
            "options": {
                f"{end}.converter{key}": value
                for end in ("key", "value")
                for key, value in (("", JSON), (".schemas.enable", False))
            },
            **more,
        }
        status = {"function": "replicator:index:getStreamStatus", "arguments": {"stream": "${orders.id}"}}
        program = {
            "resources": {
                "connect": {
                    "type": "pulumi:providers:replicator",
                    "properties": {"debezium": {"address": self.worker.url}},
                    "defaultProvider": True,
                },
                "orders": {"type": "replicator:index:Stream", "properties": stream},
            },
            "variables": {"now": {"fn::invoke": status}},
            "outputs": {
                "state": "${now.state}",
                "lagSeconds": "${now.lagSeconds}",
                "checkpoint": "${now.lastCheckpoint.lsn}",
            },
        }
        self.write("shop", program)

    # --- the story ---------------------------------------------------------------------------------------------------

    def tell(self, writer: Writer) -> None:
        say("A shop writes orders to the table shop.orders, some 40 a second.")
        writer.write()
        say("The program declares a stream of the orders of the EU to Kafka. What would happen?")
        self.declare(filter=EU)
        self.pulumi("stack", "init", "dev")
        show(self.pulumi("preview", check=False))
        say("With that filter, the shop's own UPDATE would fail. The preview has the SQL, and the owner runs it.")
        note(f"sql> {IDENTITY}")
        self.sql(IDENTITY)
        self.declare(filter=EU, waitFor="caught_up")
        show(self.pulumi("up", "--yes", "--skip-preview"))
        say("The shop keeps writing. The state and the lag, once a second, and a change as it arrives:")
        self.watch(writer, 3)
        self.latest()
        self.pause_and_resume(writer)
        self.widen()
        self.remove()

    def watch(self, writer: Writer, seconds: int) -> None:
        for _ in range(seconds):
            time.sleep(1)
            now = self.status(NAME, *self.options)
            note(f"{writer.orders:5d} orders   state {now['state']}   lag {lag(now)}")

    def latest(self) -> None:
        value = next(found for found in reversed(self.values()) if found["op"] == "u")
        note(json.dumps({key: value[key] for key in ("op", "before", "after")}))

    def pause_and_resume(self, writer: Writer) -> None:
        say("Pause it in code. The preview says what that costs.")
        self.declare(filter=EU, desiredState="paused")
        show(self.pulumi("up", "--yes", "--suppress-outputs"))
        say("The shop keeps writing, and the slot holds its changes.")
        self.watch(writer, 2)
        show(self.replicator("status", NAME, *self.options))
        writer.rest()
        say("Resume. It continues where it stopped.")
        self.declare(filter=EU, waitFor="caught_up")
        show(self.pulumi("up", "--yes", "--skip-preview"))
        self.compare(EU)

    def widen(self) -> None:
        say("The filter is removed. The preview says what becomes of the rows that are there already.")
        self.sql("ANALYZE shop.orders")
        self.declare(waitFor="caught_up")
        show(self.pulumi("up", "--yes", "--suppress-outputs"))
        self.compare("true")

    def remove(self) -> None:
        say("Remove it. Only the topic stays.")
        show(self.pulumi("destroy", "--yes", "--skip-preview"))
        left = self.sql(
            "SELECT 'slot ' || slot_name FROM pg_replication_slots UNION ALL "
            "SELECT 'publication ' || pubname FROM pg_publication UNION ALL "
            "SELECT 'table ' || tablename FROM pg_tables WHERE schemaname = 'replicator'"
        )
        note(f"{len(self.values())} records in {TOPIC}; in the database: {left or 'nothing'}")
        if left:
            sys.exit("something is left that should not be")

    # --- the data ----------------------------------------------------------------------------------------------------

    def sql(self, statement: str) -> list[str]:
        with connect(self.server, "shop") as session:
            cursor = session.execute(statement.encode())
            return [str(found) for (found,) in cursor.fetchall()] if cursor.description else []

    def values(self) -> list[dict[str, Any]]:
        """The changes in the topic, in their order."""
        found = (record.value for record in consume(plain(self.broker.bootstrap), TOPIC))
        return [json.loads(value) for value in found if value is not None]

    def compare(self, condition: str) -> None:
        """End the demo where a reader of the topic does not know the rows of the table, and no others."""
        wanted = {json.loads(row)["id"]: json.loads(row) for row in self.rows(condition)}
        known = self.known()
        same = "the same as" if known == wanted else "NOT THE SAME AS"
        note(f"{len(self.values())} records in {TOPIC}; their last state of each key is {same} {len(wanted)} rows")
        if known != wanted:
            sys.exit("the topic does not say what it should")

    def rows(self, condition: str) -> list[str]:
        return self.sql(f"SELECT row_to_json(o)::text FROM shop.orders o WHERE {condition}")

    def known(self) -> dict[int, Any]:
        """The row of each key that a reader knows in the end."""
        rows: dict[int, Any] = {}
        for value in self.values():
            if value["op"] == "d":
                rows.pop(value["before"]["id"], None)
            else:
                rows[value["after"]["id"]] = value["after"]
        return rows


def connect(server: Postgres, role: str, password: str = "demo") -> psycopg.Connection:
    return psycopg.connect(
        host=server.host, port=server.port, dbname="postgres", user=role, password=password, autocommit=True
    )


def main() -> None:
    """Set up, tell the story, clean up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cli = find_cli()
    for name in ("runtime", "debezium-postgres"):
        collect(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="replicator-demo-") as name:
        folder = Path(name)
        say("Start PostgreSQL, a Kafka broker, and a Connect worker with Debezium.")
        with (
            Postgres(folder / "postgres") as server,
            Broker(folder / "broker") as broker,
            Worker(folder / "worker", broker.bootstrap, plugins=[find_jars("debezium-postgres")]) as worker,
        ):
            with connect(server, SUPERUSER, server.password) as session:
                session.execute(SETUP.encode())
            with connect(server, "shop") as session:
                session.execute(TABLE.encode())
            writer = Orders(server)
            writer.start()
            try:
                Demo(folder, server, broker, worker, cli).tell(writer)
            finally:
                writer.end()
    say(f"Done in {time.monotonic() - began:.0f} s. Nothing is left running.")


if __name__ == "__main__":
    main()
