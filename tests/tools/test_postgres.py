"""The PostgreSQL test bed itself: that it starts, keeps its rows and ends as told, and that Debezium reads it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from psycopg import sql

from tests.engines import EngineMissing
from tests.kafka import consume, plain, wait_running
from tests.postgres import connect, make_database, make_role, unique
from tests.waiting import wait_until
from tools.kafka.pair import Pair
from tools.kafka.tls import make_tls
from tools.postgres import Postgres, find_program

ROOT = Path(__file__).resolve().parents[2]
DEBEZIUM = "io.debezium.connector.postgresql.PostgresConnector"
CONVERTER = "org.apache.kafka.connect.json.JsonConverter"
DYING = """
import sys, time
from pathlib import Path
from tools.postgres import Postgres
server = Postgres(Path(sys.argv[1]))
server.start()
print(server.pid, server.port, flush=True)
time.sleep(120)
"""


def rows(server: Postgres) -> list[tuple[object, ...]]:
    with connect(server) as session:
        return session.execute("SELECT * FROM kept ORDER BY id").fetchall()


def family(parent: int) -> set[int]:
    """The living processes that a process started, and itself."""
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], check=True, stdout=subprocess.PIPE, text=True)
    found = [line.split() for line in listed.stdout.splitlines()]
    return {int(pid) for pid, above, state in found if str(parent) in (pid, above) and state[0] != "Z"}


def living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if pid in family(pid)}


def test_a_program_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tools.postgres._DEBIAN", f"{str(tmp_path).lstrip('/')}/*/bin")
    with pytest.raises(EngineMissing, match=r"^postgres of PostgreSQL is not installed.*make deps"):
        find_program("postgres")
    for version in ("9", "15"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "postgres").touch()
    assert find_program("postgres") == tmp_path / "15" / "bin" / "postgres"


@pytest.mark.engine
class TestServer:
    def test_it_keeps_its_rows_port_and_passwords_over_a_stop_and_a_kill(self, tmp_path: Path) -> None:
        with Postgres(tmp_path / "postgres", settings={"max_replication_slots": "7"}) as server:
            address, processes = server.uri("kept"), set[int]()
            assert address == f"postgres://127.0.0.1:{server.port}/kept"
            with connect(server) as session:
                session.execute("CREATE TABLE kept (id int PRIMARY KEY, text text)")
            for number, end in enumerate((server.stop, server.kill)):
                with connect(server) as session:
                    session.execute("INSERT INTO kept VALUES (%s, %s)", (number, "é"))
                assert server.pid is not None
                processes |= family(server.pid)
                end()
                assert server.pid is None
                assert living(processes) == set()
                with pytest.raises(psycopg.OperationalError, match="refused"):
                    connect(server)
                server.start()
                assert rows(server) == [(id, "é") for id in range(number + 1)]
            assert server.uri("kept") == address
        assert len(processes) > 6
        assert "database system is shut down" in server.log
        assert "was not properly shut down; automatic recovery in progress" in server.log

    def test_settings_count_and_the_rest_is_what_replication_needs(self, tmp_path: Path) -> None:
        with Postgres(tmp_path, settings={"max_replication_slots": "7", "cluster_name": "it's"}) as server:
            with connect(server) as session:
                names = ["wal_level", "max_wal_senders", "max_replication_slots", "cluster_name", "listen_addresses"]
                shown = [session.execute(f"SHOW {name}").fetchall()[0][0] for name in names]
            assert shown == ["logical", "10", "7", "it's", "127.0.0.1"]

    def test_a_login_needs_the_password(self, tmp_path: Path) -> None:
        with Postgres(tmp_path) as server:
            with connect(server) as session:
                methods = session.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
                assert methods == [("scram-sha-256",)]
            role = make_role(server, unique("role"), "right 'one'", replication=False)
            with connect(server, user=role, password="right 'one'") as session:
                told = "SELECT rolreplication, rolsuper FROM pg_roles WHERE rolname = current_user"
                assert session.execute(told).fetchall() == [(False, False)]
            for user in (role, "postgres"):
                with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                    connect(server, user=user, password="another")

    def test_tls_is_spoken_with_a_certificate_of_its_authority(self, tmp_path: Path) -> None:
        with Postgres(tmp_path / "postgres", tls=True) as server:
            with connect(server) as session:
                encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                assert session.execute(encrypted).fetchall() == [(True,)]
            server.ca = make_tls(tmp_path / "stranger").ca
            with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
                connect(server)

    def test_it_ends_with_the_process_that_started_it_even_if_that_is_killed(self, tmp_path: Path) -> None:
        argv = [sys.executable, "-c", DYING, str(tmp_path / "postgres")]
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            said = parent.stdout.readline().split()
            processes = family(int(said[0]))
            assert len(processes) > 3
            os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: not living(processes), timeout=20, what="no process is left")


@pytest.mark.engine
class TestDebezium:
    def test_a_connector_gives_the_rows_that_are_there_and_those_that_come(
        self, kafka: Pair, postgres: Postgres
    ) -> None:
        database, user = make_database(postgres, unique("shop")), make_role(postgres, unique("reader"), "secret")
        name = unique("debezium")
        slot = name.replace("-", "_")
        with connect(postgres, database=database) as session:
            session.execute("CREATE TABLE orders (id int PRIMARY KEY, what text)")
            session.execute("INSERT INTO orders VALUES (1, 'tea')")
            session.execute(sql.SQL("GRANT SELECT ON orders TO {}").format(sql.Identifier(user)))
            session.execute("CREATE PUBLICATION all_orders FOR TABLE orders")
            session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
            config = {
                "connector.class": DEBEZIUM,
                "database.hostname": postgres.host,
                "database.port": str(postgres.port),
                "database.user": user,
                "database.password": "secret",
                "database.dbname": database,
                "plugin.name": "pgoutput",
                "slot.name": slot,
                "publication.name": "all_orders",
                "publication.autocreate.mode": "disabled",
                "table.include.list": "public.orders",
                "topic.prefix": name,
                **{f"{which}.converter": CONVERTER for which in ("key", "value")},
                **{f"{which}.converter.schemas.enable": "false" for which in ("key", "value")},
            }
            topic = f"{name}.public.orders"
            with connector(kafka.west.connect, name, config) as rest:
                wait_running(rest, name)
                wait_until(lambda: changes(kafka, topic) == [("r", 1, "tea")], what="the first row arrives")
                session.execute("INSERT INTO orders VALUES (2, 'mate')")
                expected = [("r", 1, "tea"), ("c", 2, "mate")]
                wait_until(lambda: changes(kafka, topic) == expected, what="the second row arrives")
            drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
            wait_until(lambda: not in_use(session, slot), what="the connector leaves its slot")
            assert session.execute(drop, [slot]).rowcount == 1


@contextmanager
def connector(connect_url: str, name: str, config: dict[str, str]) -> Iterator[httpx.Client]:
    """A connector inside the block, and a client of its worker."""
    with httpx.Client(base_url=connect_url, trust_env=False, timeout=70) as rest:
        made = rest.put(f"/connectors/{name}/config", json=config)
        assert made.status_code == 201, made.text
        try:
            yield rest
        finally:
            rest.delete(f"/connectors/{name}").raise_for_status()


def changes(pair: Pair, topic: str) -> list[tuple[str, int, str]]:
    """Operation and row of each record of a topic; none where there is no topic yet."""
    client = plain(pair.west.bootstrap)
    if topic not in AdminClient(dict(client)).list_topics(timeout=10).topics:
        return []
    records = consume(client, topic)
    found = [json.loads(record.value or b"") for record in records]
    return [(change["op"], change["after"]["id"], change["after"]["what"]) for change in found]


def in_use(session: psycopg.Connection, slot: str) -> bool:
    told = session.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", [slot]).fetchall()
    return told != [(False,)]
