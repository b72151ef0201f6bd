"""Two databases and a Connect cluster between them, with names of a test's own: what tests of sinks do with them."""

from __future__ import annotations

from typing import Any

import psycopg
from replicator.model import Stream
from replicator.replicator import Description

from tests.backends.kafka_connect.debezium.debezium_env import ORDERS as TOPIC_ORDERS
from tests.backends.kafka_connect.debezium.debezium_env import PASSWORD, DebeziumEnv, rows
from tests.kafka import unique
from tests.postgres import connect, make_database, make_role
from tests.waiting import until
from tools.kafka.pair import Side
from tools.postgres import Postgres

ORDERS = f"{TOPIC_ORDERS}; ALTER TABLE orders REPLICA IDENTITY FULL"
BETWEEN = {"topic.creation.default.replication.factor": 1}


class SinkEnv(DebeziumEnv):
    """Streams from a database of the test's own to another one, `target`, by the Connect cluster of one side.

    :param target_server: the server of the destination; the source's unless told.
    """

    def __init__(
        self,
        server: Postgres,
        side: Side,
        connect_to: str | None = None,
        *,
        target_server: Postgres | None = None,
        **settings: Any,
    ) -> None:
        self.target_server = target_server or server
        super().__init__(server, side, connect_to, **{"kafka": f"kafka://{side.bootstrap}", **settings})
        self.writer = make_role(self.target_server, unique("wrt"), PASSWORD, replication=False)
        self.target_database = self._make_target()
        self.target_login = side.secrets / f"{self.writer}.properties"
        self.target_login.write_text(f"username={self.writer}\npassword={PASSWORD}\n")

    def _make_target(self) -> str:
        name = make_database(self.target_server, unique("dst"))
        with connect(self.target_server) as session:
            rows(session, f'ALTER DATABASE "{name}" OWNER TO "{self.writer}"', ())
        return name

    @property
    def target_uri(self) -> str:
        return self.target_server.uri(self.target_database)

    def another_target(self) -> str:
        """The URI of a further destination, of the same role."""
        return self.target_server.uri(self._make_target())

    def target_sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement in the destination, as the superuser."""
        with connect(self.target_server, database=self.target_database) as session:
            return rows(session, statement, parameters)

    def target(self) -> psycopg.Connection:
        """A session of the role that writes. The caller closes it."""
        return connect(self.target_server, database=self.target_database, user=self.writer, password=PASSWORD)

    def stream(self, *include: str, **changes: Any) -> Stream:
        destination = {
            "kind": "postgres",
            "uri": self.target_uri,
            "authRef": f"file://{self.target_login}",
            **changes.pop("destination", {}),
        }
        options = {**BETWEEN, **changes.pop("options", {})}
        drain = {"drainBeforeDelete": changes.pop("drainBeforeDelete", "skip")}  # a failed one is removed too
        given = super().stream(*include, destination=destination, **drain, **changes)
        return given.model_copy(update={"options": options})

    def content(self, table: str = "app.orders", *, at: str = "target") -> list[tuple[Any, ...]]:
        """The rows of a table as texts, in order."""
        run = self.target_sql if at == "target" else self.sql
        names = [
            name
            for (name,) in self.sql(
                "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
                "AND NOT attisdropped ORDER BY attnum",
                table,
            )
        ]
        columns = ", ".join(f'"{name}"::text' for name in names)
        return sorted(run(f"SELECT {columns} FROM {table}"), key=repr)

    def sql_texts(self, selection: str) -> list[tuple[Any, ...]]:
        """Rows of the source's schema `app` as `content` has them: of a table's name and a condition."""
        (columns,) = self.sql(
            "SELECT string_agg(format('%%I::text', attname), ', ' ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            f"app.{selection.split(maxsplit=1)[0]}",
        )
        return sorted(self.sql(f"SELECT {columns[0]} FROM app.{selection}"), key=repr)

    async def caught_up_at_the_source(self, name: str) -> None:
        """Wait until Debezium has written all that was committed before to the topics."""
        slot = self.slot(name)
        assert slot is not None
        (end,) = self.sql("SELECT pg_current_wal_lsn()::text")

        async def there() -> bool:
            return bool(
                self.sql(
                    "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
                    end[0],
                    slot["slot_name"],
                )[0][0]
            )

        await until(there, timeout=60, what=f"{name} has read the WAL")

    async def same(self, name: str, *tables: str) -> Description:
        """Wait until the stream is caught up, and compare the content of its tables at both ends."""
        found = await self.caught_up(name)
        for table in tables or ("app.orders",):
            assert self.content(table) == self.content(table, at="source")
        return found
