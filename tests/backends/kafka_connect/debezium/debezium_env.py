"""A database, a Kafka cluster and its Connect cluster, with names of a test's own: what tests do with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import httpx
import psycopg
from replicator.backends.kafka_connect.debezium.driver import Debezium, open_debezium
from replicator.backends.settings import DebeziumConfig
from replicator.errors import ReplicatorError
from replicator.model import Stream, StreamState
from replicator.replicator import Description, Finding

from tests.backends.kafka_connect.mirror.mirror_env import topics
from tests.kafka import Patient, consume, plain, unique
from tests.postgres import connect, make_database, make_role
from tests.waiting import until
from tools.kafka.pair import Side
from tools.postgres import Postgres

URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"
PASSWORD = 'it\'s "quoted" $HOME'
OPTIONS = {
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "key.converter.schemas.enable": False,
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter.schemas.enable": False,
    "topic.creation.default.replication.factor": 1,
}
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, region text NOT NULL DEFAULT 'eu', note text)"


class DebeziumEnv:
    """Streams from a database of the test's own to one side, by the Connect cluster there.

    :param connect_to: another way to the Connect cluster for drivers.
    :param settings: of the block in the provider's configuration.
    """

    def __init__(self, server: Postgres, side: Side, connect_to: str | None = None, **settings: Any) -> None:
        self.server, self.side = server, side
        self.connect = connect_to or side.connect
        self.database = make_database(server, unique("db"))
        self.role = make_role(server, unique("dbz"), PASSWORD)
        self.owner = make_role(server, unique("own"), PASSWORD, replication=False)
        self.sql(f'ALTER DATABASE "{self.database}" OWNER TO "{self.owner}"')
        self.login = side.secrets / f"{self.role}.properties"
        self.login.write_text(f"username={self.role}\npassword={PASSWORD}\n")
        self.admin = side.secrets / f"{self.owner}.properties"
        self.admin.write_text(f"username={self.owner}\npassword={PASSWORD}\n")
        self.app = self.open_application()
        self.app.execute(f'CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO "{self.role}"')
        self.app.execute(f'ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO "{self.role}"')
        self._settings = settings
        self._drivers: list[Debezium] = []
        self.driver = self.another()
        self._names: list[str] = []

    def another(self) -> Debezium:
        """A driver that knows nothing of what the first one did, as a provider's next process."""
        made = open_debezium(self.connect, DebeziumConfig(address=self.connect, **self._settings))
        self._drivers.append(made)
        return made

    def open_application(self) -> psycopg.Connection:
        """A session of the application. The caller closes it."""
        session = connect(self.server, database=self.database, user=self.owner, password=PASSWORD)
        session.execute("SET search_path = app")
        return session

    def reconnect(self) -> None:
        """Let the application connect again, after its server was down."""
        self.app.close()
        self.app = self.open_application()

    # --- the database ------------------------------------------------------------------------------------------------

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser, in the test's database."""
        with connect(self.server, database=self.database) as session:
            return rows(session, statement, parameters)

    def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement as the application, which owns the tables of the schema `app`."""
        return rows(self.app, statement, parameters)

    def slot(self, name: str) -> dict[str, Any] | None:
        """A replication slot, by its stream's name."""
        found = self.sql(
            "SELECT row_to_json(s) FROM pg_replication_slots s WHERE slot_name = %s", name.replace("-", "_")
        )
        return found[0][0] if found else None

    def publications(self) -> set[str]:
        return {name for (name,) in self.sql("SELECT pubname::text FROM pg_publication")}

    def published(self, name: str) -> dict[str, str | None]:
        """The tables of a publication, each with its row filter."""
        found = self.sql(
            "SELECT schemaname || '.' || tablename, rowfilter FROM pg_publication_tables WHERE pubname = %s",
            name.replace("-", "_"),
        )
        return dict(found)

    def helpers(self) -> set[str]:
        """The tables that were made for streams."""
        return {name for (name,) in self.sql("SELECT tablename::text FROM pg_tables WHERE schemaname = 'replicator'")}

    # --- streams -----------------------------------------------------------------------------------------------------

    @property
    def uri(self) -> str:
        return f"postgres://{self.server.host}:{self.server.port}/{self.database}"

    def logins_at(self, side: Side) -> dict[str, str]:
        """The same logins as references that the workers of another side resolve."""
        found = {}
        for key, path in (("authRef", self.login), ("adminAuthRef", self.admin)):
            copy = side.secrets / path.name
            copy.write_text(path.read_text())
            found[key] = f"file://{copy}"
        return found

    def stream(self, *include: str, **changes: Any) -> Stream:
        """A stream of tables, from camelCase properties; `app.orders` where none is named."""
        name = changes.pop("name", None) or unique("s").replace("_", "-")
        self._names.append(name)
        source = {
            "kind": "postgres",
            "uri": self.uri,
            "authRef": f"file://{self.login}",
            "adminAuthRef": f"file://{self.admin}",
            **changes.pop("source", {}),
        }
        given = {
            "name": name,
            "include": list(include or ("app.orders",)),
            "checkpointInterval": "1s",
            "owner": {"urn": URN, "issue": name},
            "options": {**OPTIONS, **changes.pop("options", {})},
            "source": {key: value for key, value in source.items() if value is not None},
            "destination": {"kind": "kafka", "uri": f"kafka://{self.side.bootstrap}", **changes.pop("destination", {})},
            **changes,
        }
        return Stream.model_validate({key: value for key, value in given.items() if value is not None})

    async def made(self, *include: str, **changes: Any) -> Stream:
        """A stream that exists, as the engine's side records it."""
        stream = self.stream(*include, **changes)
        await self.driver.upsert_stream(stream)
        return (await self.described(stream.name)).stream

    async def described(self, name: str) -> Description:
        (description,) = await self.driver.describe([name])
        return description

    async def changed(self, stream: Stream, **changes: Any) -> Stream:
        """Apply another declaration, as an update does."""
        given = {**stream.wire(), **changes}
        await self.driver.upsert_stream(Stream.model_validate(given))
        return (await self.described(stream.name)).stream

    async def refused(self, stream: Stream) -> ReplicatorError:
        """What the preview finds and the change raises, which are the same."""
        errors = [item for item in await self.driver.preflight(stream) if item.severity.value == "error"]
        try:
            await self.driver.upsert_stream(stream)
        except ReplicatorError as error:
            assert [(item.code, item.property, item.message) for item in errors] == [
                (error.code, error.property, error.message)
            ]
            return error
        raise AssertionError("it was not refused")

    async def warned(self, stream: Stream) -> list[Finding]:
        """The warnings of a preview without an error."""
        found = await self.driver.preflight(stream)
        assert [item for item in found if item.severity.value == "error"] == []
        return found

    async def caught_up(self, name: str) -> Description:
        """Wait until all that was committed before is at the destination."""
        first = await self.described(name)
        goal = first.source_end["wal"]

        async def there() -> Description | None:
            found = await self.described(name)
            assert found.status.state is not StreamState.FAILED, found.status.last_error
            done = found.status.state is StreamState.RUNNING and found.reached.get("wal", 0) >= goal
            return found if done else None

        return await until(there, timeout=60, what=f"{name} is caught up")

    # --- the destination ---------------------------------------------------------------------------------------------

    def records(self, stream: Stream | str, table: str = "app.orders") -> list[tuple[Any, Any]]:
        """What a table's topic holds: keys and values, partition by partition."""
        prefix = stream if isinstance(stream, str) else stream.options.get("topic.prefix", stream.name)
        topic = f"{prefix}.{table}"
        if topic not in topics(self.side):
            return []
        found = consume(plain(self.side.bootstrap), topic)
        return [(_read(record.key), _read(record.value)) for record in found]

    def changes(self, stream: Stream | str, table: str = "app.orders") -> list[tuple[str, Any, Any]]:
        """Operation, row before and row after of each change, without tombstones."""
        return [
            (value["op"], value["before"], value["after"])
            for _, value in self.records(stream, table)
            if value is not None
        ]

    def state(self, stream: Stream | str, table: str = "app.orders") -> dict[Any, Any]:
        """What a reader of the topic from its beginning knows in the end: the row of each key."""
        rows: dict[Any, Any] = {}
        for key, value in self.records(stream, table):
            at = json.dumps(key)
            if value is None or value["op"] == "d":
                rows.pop(at, None)
            else:
                rows[at] = value["after"]
        return {row["id"]: row for row in rows.values()}

    def rest(self) -> httpx.Client:
        """The Connect cluster, for what somebody does by hand. The caller closes it."""
        return httpx.Client(base_url=self.side.connect, transport=Patient(), timeout=30)

    def connector(self, name: str) -> dict[str, str]:
        """A connector's configuration as Connect has it."""
        with closing(self.rest()) as rest:
            config: dict[str, str] = rest.get(f"/connectors/{name}/config").raise_for_status().json()
            return config

    def offsets(self, name: str) -> list[dict[str, Any]]:
        """What Connect has stored of a connector's position."""
        with closing(self.rest()) as rest:
            found: list[dict[str, Any]] = rest.get(f"/connectors/{name}/offsets").raise_for_status().json()["offsets"]
            return found

    def connectors(self) -> list[str]:
        with closing(self.rest()) as rest:
            found: list[str] = rest.get("/connectors").raise_for_status().json()
            return found

    async def remove(self) -> None:
        """Delete what the test made, whatever state it left it in."""
        try:
            for name in self._names:
                await self.driver.delete_stream(name)
        finally:
            for driver in self._drivers:
                await driver.aclose()
            self.app.close()


def rows(session: psycopg.Connection, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    cursor = session.execute(statement.encode(), parameters or None)
    return cursor.fetchall() if cursor.description else []


def _read(text: bytes | None) -> Any:
    return None if text is None else json.loads(text)
