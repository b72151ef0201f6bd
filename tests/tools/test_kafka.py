"""The Kafka test bed itself: what is collected, that it starts and ends as told, and that records go through."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AclOperation, AdminClient, ResourceType

from tests.engines import EngineMissing
from tests.kafka import (
    Client,
    Record,
    allow,
    consume,
    make_topic,
    mirror_config,
    plain,
    produce,
    secure,
    unique,
    wait_running,
)
from tests.waiting import wait_until
from tools.gobuild import BuildError
from tools.kafka.cluster import SCRAM, Broker, Login, Worker, add_user
from tools.kafka.jars import NAMES, POMS, checksums, collect, verify
from tools.kafka.pair import Pair
from tools.kafka.pair_daemon import end, keep, running
from tools.kafka.process import find_jars, find_java
from tools.kafka.tls import make_tls

ROOT = Path(__file__).resolve().parents[2]
SHARING = """
import os, time
def test_it(kafka, run_folder):
    said = run_folder / ("pair-of-" + os.environ["PYTEST_XDIST_WORKER"])
    said.with_suffix(".new").write_text(repr(kafka))
    said.with_suffix(".new").rename(said)
    time.sleep(120)
"""
engine = pytest.mark.engine

HEADERS = (("trace", b"\x00\xff\n"), ("trace", b"again"), ("empty", b""), ("none", None))
RECORDS = [
    Record(
        b"key",
        b"value",
        HEADERS,
        1_700_000_000_000,
    ),
    Record(b"\x00\xfe\xff", b"\xc3\x28", (), 1_700_000_000_001, 1),
    Record(None, b"no key", (), 1_700_000_000_002, 1),
    Record(b"tombstone", None, (), 1_700_000_000_003, 0),
    Record(b"empty", b"", (), 1_700_000_000_004, 0),
]


def by_partition(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.partition)


def processes_of(folder: Path) -> list[str]:
    """The processes whose command line names a folder."""
    listed = subprocess.run(["ps", "-axww", "-o", "args="], check=True, stdout=subprocess.PIPE, text=True)
    return [line for line in listed.stdout.splitlines() if str(folder) in line]


class TestJars:
    def test_each_folder_pins_versions_and_files(self) -> None:
        assert set(NAMES) == {"runtime", "debezium-postgres", "jdbc-sink"}
        for name in NAMES:
            pom, lock = (POMS / name / "pom.xml").read_text(), (POMS / name / "jars.lock").read_text()
            versions = re.findall(r"<version>(.*?)</version>|<kafka>(.*?)</kafka>", pom)
            assert len(versions) > 2
            assert [
                v for pair in versions for v in pair if not re.fullmatch(r"|[0-9.]+(\.Final)?|\$\{kafka\}", v)
            ] == []
            assert re.fullmatch(r"([0-9a-f]{64}  [^/\s]+\.jar\n){20,}", lock)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda folder: (folder / "a.jar").write_bytes(b"other"), "a.jar"),
            (lambda folder: (folder / "b.jar").unlink(), "b.jar"),
            (lambda folder: (folder / "c.jar").write_bytes(b"c"), "c.jar"),
        ],
        ids=["changed", "missing", "added"],
    )
    def test_another_file_is_refused_by_name(
        self, tmp_path: Path, change: Callable[[Path], object], named: str
    ) -> None:
        for name in ("a.jar", "b.jar"):
            (tmp_path / name).write_bytes(name.encode())
        lock = checksums(tmp_path)
        verify(tmp_path, lock)
        change(tmp_path)
        with pytest.raises(BuildError, match=f"lists: {named}"):
            verify(tmp_path, lock)

    @engine
    def test_what_is_collected_is_what_is_locked(self) -> None:
        folder = find_jars()
        verify(folder, (POMS / "runtime" / "jars.lock").read_text())
        assert collect() == folder

    def test_a_program_that_is_missing_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("REPLICATOR_CACHE", str(tmp_path / "cache"))
        for ask, named in ((find_java, "java"), (find_jars, "mvn")):
            with pytest.raises(EngineMissing, match=f"^{named} is not installed.*make deps"):
                ask()
        with pytest.raises(BuildError, match=r"no mvn on PATH.*make deps"):
            collect()


@engine
class TestPairDaemon:
    @pytest.mark.proof
    def test_a_pair_starts_within_a_minute_serves_all_and_ends_with_its_last_user(self, tmp_path: Path) -> None:
        find_jars()
        folder, users = tmp_path / "kafka", tmp_path / "users"
        with users.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_SH)
            started = time.monotonic()
            pair = keep(folder, users)
            assert time.monotonic() - started < 60
            assert keep(folder, users) == pair
            assert len(processes_of(folder / "run")) == 4

            # A daemon that is killed takes its brokers with it, and the next one starts anew.
            os.kill(int((folder / "lock").read_text()), signal.SIGKILL)
            wait_until(lambda: not processes_of(folder / "run"), what="no broker is left")
            assert not running(folder)
            again = keep(folder, users)
            assert again.east.cluster_id != pair.east.cluster_id
            assert len(processes_of(folder / "run")) == 4
        wait_until(lambda: not processes_of(folder), what="no process is left")
        assert not (folder / "pair.json").exists()

    def test_the_processes_of_a_run_share_one_pair_which_ends_with_the_run_even_if_that_is_killed(
        self, tmp_path: Path
    ) -> None:
        find_jars()
        for name in ("one", "two"):
            (tmp_path / f"test_{name}.py").write_text(SHARING)
        base = tmp_path / "run"
        plugins = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
        run = ["-n", "2", "--dist", "loadfile", "--basetemp", str(base), str(tmp_path)]
        with (tmp_path / "out").open("wb") as out:
            controller = subprocess.Popen([sys.executable, "-m", "pytest", *plugins, *run], cwd=ROOT, stdout=out)
        try:
            said = [base / f"pair-of-gw{worker}" for worker in (0, 1)]
            wait_until(lambda: all(path.exists() for path in said), timeout=90, what="both have a pair")
            first, second = (path.read_text() for path in said)
            assert first == second
            assert len(processes_of(base / "kafka" / "run")) == 4
        finally:
            controller.kill()
            controller.wait()
        wait_until(lambda: not processes_of(base), timeout=30, what="no process is left")

    def test_a_person_starts_them_once_and_ends_them_and_no_others(self, tmp_path: Path, kafka: Pair) -> None:

        def engines(command: str) -> str:
            argv = [sys.executable, str(ROOT / "tools" / "engines.py"), command, "--folder", str(tmp_path / "build")]
            return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout

        try:
            printed = engines("up")
            assert engines("up") == printed
            told = "$KAFKA_EAST $CONNECT_WEST $POSTGRES $POSTGRES_USER $POSTGRES_PASSWORD"
            script = f'{printed}\necho "{told}"'
            shell = subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.PIPE, text=True)
            bootstrap, connect, uri, user, password = shell.stdout.split()
            assert AdminClient(dict(plain(bootstrap))).list_topics(timeout=10).brokers
            assert httpx.get(f"{connect}/health", trust_env=False).json()["status"] == "healthy"
            assert bootstrap != kafka.east.bootstrap
            with psycopg.connect(uri, user=user, password=password) as session:
                assert session.execute("SHOW wal_level").fetchall() == [("logical",)]
            assert engines("down") == ""
            wait_until(lambda: not processes_of(tmp_path), what="no process is left")
            assert engines("down") == ""
            assert httpx.get(f"{kafka.west.connect}/health", trust_env=False).json()["status"] == "healthy"
        finally:
            end(tmp_path / "build" / "kafka")


@engine
class TestBroker:
    def test_records_are_read_as_they_were_written(self, kafka: Pair) -> None:
        client = plain(kafka.east.bootstrap)
        topic = make_topic(client, unique("records"), partitions=2)
        produce(client, topic, RECORDS)
        assert consume(client, topic) == by_partition(RECORDS)

    def test_the_sides_are_two_clusters(self, kafka: Pair) -> None:
        topic = make_topic(plain(kafka.east.bootstrap), unique("one-sided"))
        for side, expected in ((kafka.east, True), (kafka.west, False)):
            admin = AdminClient(dict(plain(side.bootstrap)))
            assert admin.describe_cluster().result(10).cluster_id == side.cluster_id
            assert (topic in admin.list_topics(timeout=10).topics) is expected

    def test_the_secure_listener_wants_a_user_their_password_the_right_authority_and_a_right(
        self, kafka: Pair, tmp_path: Path
    ) -> None:
        side = kafka.west
        topic = make_topic(plain(side.bootstrap), unique("secure"))
        user, password = unique("reader"), 'it\'s "a" $HOME'
        add_user(side.bootstrap, user, password)
        right = secure(side, user, password)
        with pytest.raises(KafkaException) as refused:
            produce(right, topic, RECORDS[:1])
        assert "TOPIC_AUTHORIZATION_FAILED" in str(refused.value)

        allow(side, user, (ResourceType.TOPIC, topic, AclOperation.WRITE))
        produce(right, topic, RECORDS[:1])
        assert consume(plain(side.bootstrap), topic) == RECORDS[:1]

        stranger = make_tls(tmp_path / "stranger").ca
        for wrong, said in (
            (secure(side, user, "another"), "_AUTHENTICATION"),
            ({**right, "ssl.ca.location": str(stranger)}, "_SSL"),
        ):
            assert_refused(wrong, said)

    def test_a_broker_that_was_killed_comes_back_with_its_records_and_its_address(self, tmp_path: Path) -> None:
        # Else the broker waits nine seconds for the end of the session that the killed one had.
        session = {"broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 500}
        with Broker(tmp_path / "broker", properties=session) as broker:
            client = plain(broker.bootstrap)
            topic = make_topic(client, "kept", partitions=2)
            produce(client, topic, RECORDS)
            broker.kill()
            assert processes_of(tmp_path) == []
            broker.start()
            assert plain(broker.bootstrap) == client
            assert consume(client, topic) == by_partition(RECORDS)
        assert processes_of(tmp_path) == []


def assert_refused(client: Client, reason: str) -> None:
    """A client cannot come in, and says why. On a busy machine it may say first that a connection took too long."""
    said: list[str] = []
    told: dict[str, Any] = {"log_level": 0, "error_cb": lambda error: said.append(error.name())}
    admin = AdminClient({**client, **told})
    wait_until(lambda: admin.poll(0.1) is not None and reason in said, what=f"the client is refused with {reason}")


@engine
class TestWorker:
    @pytest.mark.parametrize("listener", ["plain", "secure"])
    def test_a_mirror_copies_every_record_with_its_headers_and_time(self, kafka: Pair, listener: str) -> None:
        source, target = plain(kafka.east.bootstrap), plain(kafka.west.bootstrap)
        topic = make_topic(source, unique("mirrored"), partitions=2)
        produce(source, topic, RECORDS)
        name = unique("mirror")
        with httpx.Client(base_url=kafka.west.connect, trust_env=False, timeout=30) as rest:
            config = mirror_config(kafka.east.bootstrap, kafka.west.bootstrap, topic)
            if listener == "secure":
                config |= secure_source(kafka, topic)
            made = rest.post("/connectors", json={"name": name, "config": config})
            assert made.status_code == 201, made.text
            try:
                wait_running(rest, name)
                wait_until(lambda: len(consume(target, topic)) >= len(RECORDS), timeout=30, what="all is copied")
                assert consume(target, topic) == by_partition(RECORDS)
            finally:
                rest.delete(f"/connectors/{name}").raise_for_status()

    def test_a_worker_that_was_killed_keeps_its_connectors_and_a_second_one_sees_them(
        self, kafka: Pair, tmp_path: Path
    ) -> None:
        group = unique("group")
        with Worker(tmp_path / "first", kafka.east.bootstrap, group=group) as worker:
            with worker.client() as rest:
                connector = {"name": "file", "config": FILE, "initial_state": "STOPPED"}
                rest.post("/connectors", json=connector).raise_for_status()
                worker.kill()
                with pytest.raises(httpx.ConnectError):
                    rest.get("/")
                worker.start()
                assert rest.get("/connectors").json() == ["file"]
            with Worker(tmp_path / "second", kafka.east.bootstrap, group=group) as second:
                with second.client() as rest:
                    assert rest.get("/connectors").json() == ["file"]
                for process in (second, worker):
                    process.stop()
                    assert "Kafka Connect stopped" in process.log
        assert processes_of(tmp_path) == []

    def test_placeholders_are_resolved_from_what_the_worker_may_read(self, kafka: Pair, tmp_path: Path) -> None:
        worker = Worker(tmp_path, kafka.east.bootstrap, group=unique("group"), environment={"FILE_NAME": "from-env"})
        with worker, worker.client() as rest:
            (worker.secrets / "some.properties").write_text("file=from-file\n")
            (worker.secrets / "single").write_text("from-folder")
            (tmp_path / "outside.properties").write_text("file=outside\n")
            for placeholder, value in (
                ("${env:FILE_NAME}", "from-env"),
                (f"${{file:{worker.secrets}/some.properties:file}}", "from-file"),
                (f"${{dir:{worker.secrets}:single}}", "from-folder"),
                (f"${{file:{tmp_path}/outside.properties:file}}", None),
            ):
                seen = validated(rest, {**FILE, "name": "file", "file": placeholder})["file"]
                assert seen == (value or placeholder)

    def test_the_rest_interface_speaks_tls_and_wants_a_login_and_a_policy_refuses_overrides(
        self, kafka: Pair, tmp_path: Path
    ) -> None:
        worker = Worker(
            tmp_path,
            kafka.east.bootstrap,
            group=unique("group"),
            tls=make_tls(tmp_path / "tls"),
            login=Login("operator", 'it\'s "a" \\ $HOME'),
            properties={"connector.client.config.override.policy": "None"},
        )
        with worker, worker.client() as rest:
            assert worker.url.startswith("https://")
            assert rest.get("/connectors").json() == []
            assert rest.get("/connectors", auth=("operator", "another")).status_code == 401
            with httpx.Client(base_url=worker.url, trust_env=False) as stranger, pytest.raises(httpx.ConnectError):
                stranger.get("/")
            config = {**FILE, "producer.override.linger.ms": "5"}
            refused = rest.put("/connectors/file/config", json=config)
            assert refused.status_code == 400
            assert "'None' policy does not allow 'linger.ms'" in refused.text

    def test_plugins_are_found_beside_what_is_always_there(self, kafka: Pair, tmp_path: Path) -> None:
        always = {
            **{f"org.apache.kafka.connect.file.FileStream{kind}Connector": "4.3.1" for kind in ("Source", "Sink")},
            **{
                f"org.apache.kafka.connect.mirror.Mirror{kind}Connector": "4.3.1"
                for kind in ("Source", "Checkpoint", "Heartbeat")
            },
        }
        debezium = {
            "io.debezium.connector.postgresql.PostgresConnector": "3.7.0.Final",
            "io.debezium.connector.jdbc.JdbcSinkConnector": "3.6.0.Final",
        }
        for side in (kafka.east, kafka.west):
            with httpx.Client(base_url=side.connect, trust_env=False, timeout=30) as rest:
                assert plugins_of(rest) == always | debezium
        with Worker(tmp_path, kafka.east.bootstrap, group=unique("group")) as worker, worker.client() as rest:
            assert plugins_of(rest) == always

    def test_a_worker_can_hang(self, kafka: Pair, tmp_path: Path) -> None:
        with Worker(tmp_path, kafka.east.bootstrap, group=unique("group")) as worker, worker.client() as rest:
            worker.freeze()
            with pytest.raises(httpx.ReadTimeout):
                rest.get("/connectors", timeout=0.3)
            worker.thaw()
            assert rest.get("/connectors").json() == []


def secure_source(pair: Pair, topic: str) -> dict[str, str]:
    """What a mirror says of the secure listener of its source, for a user who may just read the topic."""
    user, password = unique("mirror"), unique("password")
    add_user(pair.east.bootstrap, user, password)
    reads = [AclOperation.READ, AclOperation.DESCRIBE_CONFIGS]
    allow(pair.east, user, *[(ResourceType.TOPIC, topic, operation) for operation in reads])
    secrets = pair.west.secrets / f"{user}.properties"
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    secrets.write_text(f'jaas={module} required username="{user}" password="{password}";\n')
    settings = {
        "bootstrap.servers": pair.east.secure_bootstrap,
        "security.protocol": "SASL_SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(pair.east.ca),
        "sasl.mechanism": SCRAM,
        "sasl.jaas.config": f"${{file:{secrets}:jaas}}",
    }
    source = {f"source.cluster.{name}": value for name, value in settings.items()}
    # The user may neither write to the source nor see its access control lists.
    return {**source, "offset-syncs.topic.location": "target", "sync.topic.acls.enabled": "false"}


FILE = {
    "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
    "topic": "lines",
    "file": "in.txt",
}


def plugins_of(rest: httpx.Client) -> dict[str, str]:
    """The version of each class of connectors that a worker has."""
    return {row["class"]: row["version"] for row in rest.get("/connector-plugins").json()}


def validated(rest: httpx.Client, config: dict[str, str]) -> dict[str, Any]:
    answer = rest.put("/connector-plugins/FileStreamSourceConnector/config/validate", json=config)
    answer.raise_for_status()
    return {row["value"]["name"]: row["value"]["value"] for row in answer.json()["configs"]}
