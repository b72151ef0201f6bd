"""Every example runs as it stands, on the real engine; and so does the demo."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.engines import S3Server, s3_server
from tests.languages import prepare
from tests.pulumi import ROOT, SCRIPTS, Project, cli_folder

EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/Pulumi.yaml"))


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
    subprocess.run([*command, "start", *where, "--state", str(folder / "state")], env=env, check=True, timeout=60)
    yield socket
    subprocess.run([*command, "stop", *where], env=env, check=True, timeout=60)


@pytest.mark.engine
@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str, s3: S3Server, agent: Path, tmp_path: Path) -> None:
    database = tmp_path / "shop.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as shop:
        shop.execute("CREATE TABLE orders (item TEXT)")
        shop.execute("INSERT INTO orders VALUES ('tea')")
    project = Project(tmp_path / "project")
    shutil.copytree(ROOT / "examples" / example, project.folder, dirs_exist_ok=True)
    text = (project.folder / "Pulumi.yaml").read_text()
    (project.folder / "Pulumi.yaml").write_text(text.replace("path: .venv/bin", f"path: {SCRIPTS}"))
    prepare(project)
    project.init()
    project.configure("database", str(database))
    project.configure("replica", s3.url("examples", example))
    project.configure("replicator:litestream", json.dumps({"address": f"unix://{agent}"}))

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
def test_the_demo_tells_its_story(tmp_path_factory: pytest.TempPathFactory) -> None:
    # Sockets have short paths, and the usual temporary folder of a test is too deep for them.
    folder = tmp_path_factory.getbasetemp() / "d"
    folder.mkdir()
    env = {**os.environ, "PATH": f"{cli_folder()}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo.py")],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for sentence in (
        "warning: destination.uri: re-snapshots",
        ": the same",
        "beside the database: nothing",
        "Nothing is left running.",
    ):
        assert sentence in done.stdout
    assert not list(folder.iterdir())
