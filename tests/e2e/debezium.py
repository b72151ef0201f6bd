"""Databases and a Kafka cluster, and what somebody sees and does there who does not use Pulumi."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.agent.support import command
from tests.backends.kafka_connect.debezium.debezium_env import OPTIONS, DebeziumEnv
from tests.backends.kafka_connect.debezium.sink_env import BETWEEN, SinkEnv
from tests.backends.kafka_connect.mirror.mirror_env import topics
from tests.pulumi import Project
from tests.waiting import wait_until
from tools.kafka.pair import Side
from tools.postgres import Postgres

NOW = {"now": {"fn::invoke": {"function": "replicator:index:getStreamStatus", "arguments": {"stream": "${main.id}"}}}}
NUMBERS = {
    "state": "${now.state}",
    "lagSeconds": "${now.lagSeconds}",
    "checkpoint": "${now.lastCheckpoint.lsn}",
    "findings": "${now.findings}",
}


class World(DebeziumEnv):
    """The outside of a Pulumi project, whose streams have tables of the schema `app`."""

    @property
    def block(self) -> dict[str, str]:
        """`debezium` of the provider's configuration."""
        return {"address": self.connect}

    def inputs(self, name: str, *include: str, **changes: Any) -> dict[str, Any]:
        """A stream of some tables; of `app.NAME` if none is named. A property given as None is left out."""
        found = {
            "name": name,
            "source": {
                "kind": "postgres",
                "uri": self.uri,
                "authRef": f"file://{self.login}",
                "adminAuthRef": f"file://{self.admin}",
            },
            "destination": {"kind": "kafka", "uri": f"kafka://{self.side.bootstrap}"},
            "include": list(include or (f"app.{_table(name)}",)),
            "checkpointInterval": "1s",
            "options": OPTIONS,
            **changes,
        }
        return {key: value for key, value in found.items() if value is not None}

    def write(
        self,
        project: Project,
        inputs: Mapping[str, Any] | None,
        *,
        block: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> None:
        """Write a program with the stream `main`, if inputs are given.

        :param block: `debezium` of the provider's configuration; the world's own unless told.
        """
        provider = {
            "type": "pulumi:providers:replicator",
            "properties": {"debezium": dict(block or self.block)},
            "defaultProvider": True,
        }
        main = {"main": {"type": "replicator:index:Stream", "properties": dict(inputs)}} if inputs else {}
        project.write_yaml(
            {
                "variables": dict(variables or {}),
                "resources": {"connect": provider, **main},
                "outputs": dict(outputs or {}),
            }
        )

    def table(self, name: str, rows: int = 3) -> str:
        """A table of the schema `app` with rows, every second one of the region `us`; gives its name back."""
        table = _table(name)
        self.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, region text NOT NULL, note text)")
        self.insert(table, 0, rows)
        return table

    def insert(self, table: str, first: int, end: int) -> None:
        regions = "CASE mod(n, 2) WHEN 0 THEN 'eu' ELSE 'us' END"
        self.execute(
            f"INSERT INTO {table} SELECT n, {regions}, 'note ' || n FROM generate_series(%s::int, %s::int) n",
            first,
            end - 1,
        )

    def rows(self, table: str, condition: str = "true") -> dict[int, dict[str, Any]]:
        """What a table holds, by id."""
        found = self.execute(f"SELECT id, row_to_json(t) FROM {table} t WHERE {condition}")
        return dict(found)

    def arrives(self, name: str, table: str, condition: str = "true") -> None:
        """Wait until the topic of a table tells of these rows, and of no others."""
        wait_until(
            lambda: self.state(name, f"app.{table}") == self.rows(table, condition),
            f"the topic of {table} has its rows",
            timeout=40,
        )

    def command(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run `replicator` as an operator does; it has to end with one of the exit codes."""
        env = {**os.environ, "REPLICATOR_DEBEZIUM": json.dumps(self.block)}
        done = command(*arguments, "--backend", "debezium", env=env)
        assert done.returncode in codes, done.stderr
        return done.stdout

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.command("status", name, "--json", codes=(0, 1)))[0]
        return found


class SinkWorld(World, SinkEnv):
    """The same with a second database, which the streams write to."""

    def table(self, name: str, rows: int = 3) -> str:
        table = super().table(name, rows)
        self.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
        return table

    @property
    def block(self) -> dict[str, str]:
        return {**super().block, "kafka": f"kafka://{self.side.bootstrap}"}

    def inputs(self, name: str, *include: str, **changes: Any) -> dict[str, Any]:
        destination = {"kind": "postgres", "uri": self.target_uri, "authRef": f"file://{self.target_login}"}
        return super().inputs(name, *include, **{"destination": destination, "options": BETWEEN, **changes})

    def backwards(self, name: str, *include: str, **changes: Any) -> dict[str, Any]:
        """A stream from the second database to the first one."""
        source = {
            "kind": "postgres",
            "uri": self.target_uri,
            "authRef": f"file://{self.login}",
            "adminAuthRef": f"file://{self.target_login}",
        }
        destination = {"kind": "postgres", "uri": self.uri, "authRef": f"file://{self.admin}"}
        return self.inputs(name, *include, **{"source": source, "destination": destination, **changes})

    def copy(self, table: str, condition: str = "true") -> dict[int, dict[str, Any]] | None:
        """What the second database has of a table of `app`, by id; None where it has no such table."""
        if self.target_sql("SELECT to_regclass(%s)", f"app.{table}") == [(None,)]:
            return None
        return dict(self.target_sql(f"SELECT id, row_to_json(t) FROM app.{table} t WHERE {condition}"))

    def lands(self, *tables: str) -> None:
        """Wait until the second database has the rows of these tables, and no others."""
        for table in tables:
            wait_until(
                lambda table=table: self.copy(table) == self.rows(table),  # type: ignore[misc]
                f"the copy of {table} has its rows",
                timeout=60,
                interval=0.2,
            )

    def claims(self) -> dict[str, str]:
        """The streams that write to tables of the second database, by table."""
        if self.target_sql("SELECT to_regclass('replicator.table_writers')") == [(None,)]:
            return {}
        return dict(self.target_sql("SELECT table_name, stream FROM replicator.table_writers"))

    def traces(self, name: str) -> dict[str, Any]:
        """What there is of a stream, but for tables at the destination."""
        return {
            "slot": self.slot(name),
            "publications": {one for one in self.publications() if one == _table(name)},
            "helpers": {one for one in self.helpers() if one.endswith(f"_{_table(name)}")},
            "connectors": [one for one in self.connectors() if one in (name, f"{name}-sink")],
            "topics": [one for one in topics(self.side) if one.startswith(f"{name}.") or one.endswith(f".{name}")],
            "claims": [one for one, stream in self.claims().items() if stream == name],
        }


@contextmanager
def sink_world(server: Postgres, side: Side) -> Iterator[SinkWorld]:
    """Two databases of its own, for as long as the block runs."""
    made = SinkWorld(server, side)
    try:
        yield made
    finally:
        asyncio.run(made.remove())


@contextmanager
def world(server: Postgres, side: Side) -> Iterator[World]:
    """A database of its own, for as long as the block runs."""
    made = World(server, side)
    try:
        yield made
    finally:
        asyncio.run(made.remove())


def _table(name: str) -> str:
    return name.replace("-", "_")
