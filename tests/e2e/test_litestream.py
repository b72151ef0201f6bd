"""A live SQLite database under the real CLI: drift, refusals in preview, and what is left at the end."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.pulumi import SCRIPTS, Project

pytestmark = pytest.mark.engine
REPLICATOR = str(SCRIPTS / "replicator")


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An agent's socket."""
    folder = tmp_path_factory.getbasetemp() / "live"
    folder.mkdir()
    where = ["--socket", str(folder / "s")]
    env = {key: os.environ[key] for key in ("HOME", "PATH") if key in os.environ}
    subprocess.run(
        [REPLICATOR, "agent", "start", *where, "--state", str(folder / "a")], env=env, check=True, timeout=60
    )
    yield folder / "s"
    subprocess.run([REPLICATOR, "agent", "stop", *where], env=env, check=True, timeout=60)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as shop:
        shop.execute("CREATE TABLE orders (item TEXT)")
        shop.execute("INSERT INTO orders VALUES ('tea')")
    return path


def declare(project: Project, socket: Path, database: Path, **changes: Any) -> None:
    """The program: one stream to a folder, and its fresh state as an output."""
    properties = {
        "name": f"{project.name}-orders",
        "source": {"kind": "sqlite", "uri": f"sqlite://{database}"},
        "destination": {"kind": "s3", "uri": f"file://{database.parent}/replica"},
        **changes,
    }
    now = {"function": "replicator:index:getStreamStatus", "arguments": {"stream": "${orders.id}"}}
    project.write_yaml(
        {
            "resources": {
                "agent": {
                    "type": "pulumi:providers:replicator",
                    "properties": {"litestream": {"address": f"unix://{socket}"}},
                    "defaultProvider": True,
                },
                "orders": {"type": "replicator:index:Stream", "properties": properties},
            },
            "variables": {"now": {"fn::invoke": now}},
            "outputs": {"state": "${now.state}"},
        }
    )


def replicator(socket: Path, *arguments: str) -> str:
    """One of our own commands, as somebody on call runs it."""
    command = [REPLICATOR, *arguments, "--address", f"unix://{socket}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_drift_and_the_end(socket: Path, database: Path, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", name="drift")
    declare(project, socket, database)
    project.init()
    project.up("--skip-preview")
    assert project.outputs()["state"] == "running"

    replicator(socket, "pause", "drift-orders")
    paused = project.refresh("--skip-preview")
    assert "desiredState" in paused.text
    project.up("--skip-preview")
    assert project.outputs()["state"] == "running"
    project.refresh("--skip-preview", "--expect-no-changes")

    declare(project, socket, database, purgeDestination=True)
    warned = project.preview()
    assert "purgeDestination: deletes data: from now on a delete of this stream also deletes" in warned.text
    project.up("--skip-preview")
    project.destroy("--skip-preview")
    assert json.loads(replicator(socket, "status", "--json")) == []
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("shop.db-")) == [
        "project",
        "shop.db",
    ]


def test_what_will_fail_is_refused_in_preview(socket: Path, database: Path, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", name="refused")
    text = tmp_path / "notes.txt"
    text.write_text("no database" * 100)
    used = tmp_path / "used"
    used.mkdir()
    (used / "theirs").write_text("theirs")
    sqlite = {"kind": "sqlite"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"source": {**sqlite, "uri": f"sqlite://{tmp_path}/nothing.db"}}, "RPL-SOURCE-MISSING"),
        ({"source": {**sqlite, "uri": f"sqlite://{text}"}}, "RPL-SOURCE-FORMAT"),
        ({"destination": {"kind": "s3", "uri": f"file://{used}"}}, "RPL-DEST-INUSE"),
        ({"filter": "region = 'eu'"}, "RPL-CAP-UNSUPPORTED"),
    ]
    declare(project, socket, database)
    project.init()
    for changes, code in cases:
        declare(project, socket, database, **changes)
        refused = project.preview(check=False)
        assert refused.code != 0
        assert code in refused.text
    assert json.loads(replicator(socket, "status", "--json")) == []
    assert sorted(path.name for path in used.iterdir()) == ["theirs"]


def test_two_stacks_with_one_stream(socket: Path, database: Path, tmp_path: Path) -> None:
    first = Project(tmp_path / "first", name="one")
    declare(first, socket, database, name="shared")
    first.init()
    first.up("--skip-preview")
    second = Project(tmp_path / "second", name="two")
    declare(second, socket, database, name="shared")
    second.init()
    for refused in (second.preview(check=False), second.up("--skip-preview", check=False)):
        assert refused.code != 0
        assert "RPL-OWNER-OTHER" in refused.text
        assert "urn:pulumi:dev::one::replicator:index:Stream::orders" in refused.text
    first.destroy("--skip-preview")
    assert not list(tmp_path.glob(".shop.db*"))
