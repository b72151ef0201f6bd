"""Every example runs as it stands, on the real engine; and so does the demo."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import debezium
from tests.e2e.kafka import World, orders
from tests.engines import S3Server, s3_server
from tests.languages import prepare
from tests.pulumi import ROOT, SCRIPTS, Project, cli_folder
from tests.waiting import wait_until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/Pulumi.yaml"))
MIRRORS: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]] = {
    "kafka-mirror": (["shop.orders", "shop.refunds"], {"state": "running", "lagRecords": 0}),
    "kafka-mirror-python": (
        ["billing.invoices", "clicks"],
        {"states": {"billing": "running", "web": "running"}, "lagRecords": {"billing": 0, "web": 0}},
    ),
}
"""The examples that mirror topics, each with topics that it includes, and with outputs."""
TABLES: Mapping[str, Mapping[str, Any]] = {
    "debezium": {"state": "running"},
    "debezium-python": {"states": {"app": "running", "billing": "running"}},
}
"""The examples that stream tables to topics, each with outputs."""
COPIES: Mapping[str, Mapping[str, Any]] = {
    "debezium-postgres": {"state": "running", "tables": ["app.orders", "app.refunds"]},
}
"""The examples that stream tables to another database, each with outputs."""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("examples")
        yield server


@pytest.fixture(scope="module")
def agent(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of an agent that knows the credentials of the examples."""
    folder = tmp_path_factory.mktemp("agent")
    socket = folder / "agent.sock"
    env = {
        **{key: os.environ[key] for key in ("HOME", "PATH") if key in os.environ},
        "SHOP_ACCESS_KEY_ID": s3.owner.access_key_id,
        "SHOP_SECRET_ACCESS_KEY": s3.owner.secret_access_key,
    }
    command = [str(SCRIPTS / "replicator"), "agent"]
    where = ["--socket", str(socket)]
    policy = folder / "agent.toml"
    policy.write_text(
        f'[[source]]\nfolder = "{tmp_path_factory.getbasetemp()}"\n\n'
        f'[[destination]]\nuri = "{s3.url("examples", "any").replace("/any", "")}"\nauthRef = "env://SHOP_*"\n\n'
        f'[[replay]]\nfolder = "{tmp_path_factory.getbasetemp()}"\n'
    )
    state = ["--state", str(folder / "state"), "--policy", str(policy)]
    subprocess.run([*command, "start", *where, *state], env=env, check=True, timeout=60)
    yield socket
    subprocess.run([*command, "stop", *where], env=env, check=True, timeout=60)


def copied(example: str, folder: Path) -> Project:
    """The example as a project of its own, with the plugin of this environment."""
    project = Project(folder / "project")
    shutil.copytree(ROOT / "examples" / example, project.folder, dirs_exist_ok=True)
    text = (project.folder / "Pulumi.yaml").read_text()
    (project.folder / "Pulumi.yaml").write_text(text.replace("path: .venv/bin", f"path: {SCRIPTS}"))
    return project


def prepared(example: str, s3: S3Server, agent: Path, bare_python: dict[str, str], folder: Path) -> Project:
    """The example as a project of its own, configured for a fresh database and the agent."""
    database = folder / "shop.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as shop:
        shop.execute("CREATE TABLE orders (item TEXT)")
        shop.execute("INSERT INTO orders VALUES ('tea')")
    project = copied(example, folder)
    if example.startswith("dynamic"):
        project.environment.update(bare_python)
    else:
        prepare(project)
    project.init()
    project.configure("database", str(database))
    project.configure("replica", s3.url("examples", f"{example}/{folder.name}"))
    project.configure("replicator:litestream", json.dumps({"address": f"unix://{agent}"}))
    return project


@pytest.mark.engine
@pytest.mark.parametrize("example", sorted(set(EXAMPLES) - set(MIRRORS) - set(TABLES) - set(COPIES)))
def test_an_example_runs(example: str, s3: S3Server, agent: Path, bare_python: dict[str, str], tmp_path: Path) -> None:
    project = prepared(example, s3, agent, bare_python, tmp_path)
    up = project.up()
    assert up.said("warning") == []
    assert project.outputs()["state"] in ("running", "catching_up", "paused")
    assert any(key.endswith(".ltx") for key in s3.keys("examples", f"{example}/"))
    project.preview("--expect-no-changes")
    if example == "litestream-python":
        refused = project.destroy("--skip-preview", check=False)
        assert refused.code != 0
        assert "RPL-STREAM-PROTECTED" in refused.text
        project.configure("protected", "false")
        project.up("--skip-preview")
    project.destroy("--skip-preview")
    assert not list(tmp_path.glob(".shop.db*"))
    assert s3.keys("examples", f"{example}/")


@pytest.mark.engine
def test_the_dynamic_example_drifts_and_restores(
    s3: S3Server, agent: Path, bare_python: dict[str, str], tmp_path: Path
) -> None:
    project = prepared("dynamic-python", s3, agent, bare_python, tmp_path)
    project.up()
    name = project.resources()["shop"]["inputs"]["name"]
    pause = [str(SCRIPTS / "replicator"), "pause", name, "--address", f"unix://{agent}"]
    subprocess.run(pause, check=True, capture_output=True, timeout=60)
    assert project.refresh("--skip-preview").done("shop") == ["update"]
    assert project.resources()["shop"]["inputs"]["desiredState"] == "paused"
    with closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as shop:
        shop.execute("INSERT INTO orders VALUES ('milk')")
    assert project.up("--skip-preview").done("shop") == ["update"]
    project.preview("--expect-no-changes")

    copy = tmp_path / "copy.db"
    start = {"lsn": project.outputs()["position"]}
    project.configure("copy", {"target": str(copy), "start": start})
    assert '"planned"' in project.preview().text
    assert not copy.exists()
    project.up("--skip-preview")
    assert project.outputs()["copy"] == "done"
    with closing(sqlite3.connect(copy)) as restored:
        assert restored.execute("SELECT item FROM orders").fetchall() == [("tea",), ("milk",)]
    made = copy.stat().st_mtime_ns
    project.up("--skip-preview")
    assert (project.outputs()["copy"], copy.stat().st_mtime_ns) == ("done", made)
    project.destroy("--skip-preview")
    assert not list(tmp_path.glob(".shop.db*"))


@pytest.mark.engine
@pytest.mark.parametrize("example", MIRRORS)
def test_an_example_of_a_mirror_runs(example: str, kafka: Pair, tmp_path: Path) -> None:
    here = World(kafka)
    topics, outputs = MIRRORS[example]
    for topic in topics:
        here.topic(topic, orders(0, 3))
    project = copied(example, tmp_path)
    prepare(project)
    project.init()
    for key, value in (("source", here.east.bootstrap), ("destination", here.west.bootstrap), ("replicas", "1")):
        project.configure(key, value)
    project.configure("replicator:kafkaMirror", {"address": here.address})

    assert project.up("--skip-preview").said("warning") == []
    assert outputs.items() <= project.outputs().items()
    made = [item["id"].rpartition("/")[2] for item in project.resources().values() if "/us-west/" in item.get("id", "")]
    assert made
    assert all(here.connectors(name) for name in made)
    for topic in topics:
        assert here.copy(topic) == orders(0, 3)
        here.produce(topic, orders(3, 5))
        here.arrives(topic, orders(0, 5))
    project.preview("--expect-no-changes")
    project.destroy("--skip-preview")
    assert not any(here.connectors(name) for name in made)
    for topic in topics:
        assert here.copy(topic) == orders(0, 5)


@pytest.mark.engine
@pytest.mark.parametrize("example", TABLES)
def test_an_example_of_tables_runs(example: str, kafka: Pair, postgres: Postgres, tmp_path: Path) -> None:
    with debezium.world(postgres, kafka.west) as here:
        here.execute(f'CREATE SCHEMA billing; GRANT USAGE ON SCHEMA billing TO "{here.role}"')
        _make_tables(here, "app.orders", "app.refunds", "billing.invoices")
        project = copied(example, tmp_path)
        prepare(project)
        project.init()
        for key, value in (
            ("database", here.uri),
            ("brokers", here.side.bootstrap),
            ("login", f"file://{here.login}"),
            ("owner", f"file://{here.admin}"),
            ("replicas", "1"),
        ):
            project.configure(key, value)
        project.configure("replicator:debezium", {"address": here.connect})

        assert project.up("--skip-preview").said("warning") == []
        found = project.outputs()
        assert TABLES[example].items() <= found.items()
        topics = found["topics"] if example == "debezium" else [*found["topics"]["app"], *found["topics"]["billing"]]
        assert len(topics) == (2 if example == "debezium" else 3)
        wanted = {topic: _sent(here, topic.partition(".")[2], filtered=example == "debezium") for topic in topics}
        assert {topic: here.state(*topic.split(".", 1)) for topic in topics} == wanted
        project.preview("--expect-no-changes")
        project.destroy("--skip-preview")
        assert here.publications() == here.helpers() == set()


@pytest.mark.engine
@pytest.mark.parametrize("example", COPIES)
def test_an_example_of_copies_runs(example: str, kafka: Pair, postgres: Postgres, tmp_path: Path) -> None:
    with debezium.sink_world(postgres, kafka.west) as here:
        _make_tables(here, "app.orders", "app.refunds")
        project = copied(example, tmp_path)
        prepare(project)
        project.init()
        for key, value in (
            ("database", here.uri),
            ("copy", here.target_uri),
            ("login", f"file://{here.login}"),
            ("owner", f"file://{here.admin}"),
            ("writer", f"file://{here.target_login}"),
            ("replicas", "1"),
        ):
            project.configure(key, value)
        project.configure("replicator:debezium", here.block)

        assert project.up("--skip-preview").said("warning") == []
        assert COPIES[example].items() <= project.outputs().items()
        for table in ("orders", "refunds"):
            assert here.copy(table) == _sent(here, f"app.{table}", filtered=True)
        here.execute("UPDATE app.orders SET region = 'eu' WHERE id = 2; DELETE FROM app.orders WHERE id = 1")
        wait_until(
            lambda: here.copy("orders") == _sent(here, "app.orders", filtered=True), "the change arrives", timeout=40
        )
        project.preview("--expect-no-changes")
        project.destroy("--skip-preview")
        assert here.publications() == here.helpers() == set()
        assert here.claims() == {}
        assert here.copy("orders") == _sent(here, "app.orders", filtered=True)


def _make_tables(here: debezium.World, *names: str) -> None:
    """Tables as the examples expect them, with a row of each region."""
    for table in names:
        here.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, region text NOT NULL, card_number text)")
        here.execute(f'ALTER TABLE {table} REPLICA IDENTITY FULL; GRANT SELECT ON {table} TO "{here.role}"')
        here.execute(f"INSERT INTO {table} VALUES (1, 'eu', '4111'), (2, 'us', '4222')")


def _sent(here: debezium.World, table: str, *, filtered: bool) -> dict[int, Any]:
    """What the topic of a table is to tell: with the filter and the column of the example in YAML, or without."""
    hidden = "- 'card_number'" if filtered and table == "app.orders" else ""
    condition = "region = 'eu'" if filtered else "true"
    return dict(here.execute(f"SELECT id, to_jsonb(t) {hidden} FROM {table} t WHERE {condition}"))


DEMOS = {
    "demo.py": ("warning: destination.uri: re-snapshots", ": the same", "beside the database: nothing"),
    "demo_kafka.py": (
        "backend: kafka-mirror",
        "state paused   lag ",
        "headers and times are the same",
        "records are there twice, the plan said ",
        "so the mirror would copy its own output",
        "; connectors: none",
    ),
    "demo_debezium.py": (
        "is not in its replica identity",
        "the replication slot orders holds ",
        "their last state of each key is the same as",
        "in the database: nothing",
    ),
}


@pytest.mark.engine
@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=pytest.mark.proof if name == "demo_kafka.py" else ()) for name in DEMOS]
)
def test_a_demo_tells_its_story(script: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    # Sockets have short paths, and the usual temporary folder of a test is too deep for them.
    folder = tmp_path_factory.mktemp("d")
    env = {**os.environ, "PATH": f"{cli_folder()}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(folder)}
    command = [sys.executable, str(ROOT / "tools" / script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for sentence in (*DEMOS[script], "Nothing is left running."):
        assert sentence in done.stdout
    assert not list(folder.iterdir())
    processes = subprocess.run(["ps", "-axwwo", "args="], check=True, capture_output=True, text=True).stdout
    assert str(folder) not in processes
