"""A secret that would be seen: nowhere in state, previews, logs, records, arguments and replies, over a whole life."""

from __future__ import annotations

import base64
import itertools
import json
import os
import sqlite3
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from tests.engines import S3Identity, s3_server
from tests.pulumi import SCRIPTS, Project

pytestmark = [pytest.mark.engine, pytest.mark.timeout(200)]

CANARY = "kanarie \"gelb\" 'quoted' $HOME ${PATH}\nof two lines"
KEY_ID = "KANARIENVOGEL"
WAYS = (
    ("preview", "-d"),
    ("preview", "--diff"),
    ("preview", "--json"),
    ("preview", "--save-plan", "plan.json"),
    ("up", "-d"),
)
"""Every form in which the CLI shows or keeps what a program says."""
REPLICATOR = str(SCRIPTS / "replicator")


def forms() -> set[bytes]:
    """The secret as it is, and as URLs, JSON and base64 write it, at each alignment; and each of its lines."""
    found = {CANARY, urllib.parse.quote(CANARY), urllib.parse.quote_plus(CANARY), json.dumps(CANARY)[1:-1]}
    found |= {*CANARY.splitlines(), KEY_ID}
    raw = {form.encode() for form in found}
    for value, shift in itertools.product((CANARY, KEY_ID), range(3)):
        text = base64.b64encode(b"x" * shift + value.encode())
        raw.add(text[4 * ((shift + 2) // 3) : len(text) - 4])
    return raw


def leaks(texts: dict[str, bytes]) -> list[str]:
    """The names of the texts that hold the secret in any form."""
    return [name for name, text in texts.items() if any(form in text for form in forms())]


def files(*folders: Path) -> dict[str, bytes]:
    """Every regular file below the folders."""
    paths: Iterable[Path] = (path for folder in folders for path in folder.rglob("*"))
    return {str(path): path.read_bytes() for path in paths if path.is_file() and not path.is_symlink()}


def command_lines() -> dict[str, bytes]:
    """The arguments of every process of this host."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[str(path)] = path.read_bytes()
        except OSError:
            continue  # it has ended
    return found


def test_the_secret_is_nowhere(tmp_path: Path) -> None:
    database = tmp_path / "shop.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as shop:
        shop.execute("CREATE TABLE orders (item TEXT)")
    with (
        tempfile.TemporaryDirectory(prefix="k") as name,
        s3_server(tmp_path / "s3", owner=S3Identity(KEY_ID, CANARY)) as s3,
    ):
        s3.make_bucket("canary")
        folder = Path(name)
        where = ["--socket", str(folder / "s")]
        env = {key: os.environ[key] for key in ("HOME", "PATH") if key in os.environ}
        env |= {"SHOP_ACCESS_KEY_ID": KEY_ID, "SHOP_SECRET_ACCESS_KEY": CANARY}
        start = [REPLICATOR, "agent", "start", *where, "--state", str(folder / "a"), "--log-level", "debug"]
        subprocess.run(start, env=env, check=True, timeout=60)
        try:
            project = Project(tmp_path / "project", name="canary")
            texts = {}
            for number, (bucket, expected) in enumerate((("canary", 0), ("nowhere", 1))):
                stream = {
                    "source": {"kind": "sqlite", "uri": f"sqlite://{database}"},
                    "destination": {"kind": "s3", "uri": s3.url(bucket, "a"), "authRef": "env://SHOP_*"},
                }
                project.write_yaml({"resources": {"orders": {"type": "replicator:index:Stream", "properties": stream}}})
                if not number:
                    project.init()
                    project.configure("replicator:litestream", {"address": f"unix://{folder / 's'}"})
                for command, *more in WAYS:
                    ran = project.operate(command, *more, "-v=9", "--logtostderr", check=False)
                    assert (ran.code != 0) == bool(expected), ran.text[-3000:]
                    texts[f"{command} {more} {number}"] = ran.text.encode()
            status = [REPLICATOR, "status", "--json", "--address", f"unix://{folder / 's'}"]
            texts["status"] = subprocess.run(status, check=True, capture_output=True, timeout=60).stdout
            texts |= command_lines() | files(project.folder, folder / "a")
            assert any(path.endswith("agent.log") for path in texts)
            assert any("litestream.yml" in path for path in texts)
            assert b"orders" in texts["status"]
            assert leaks(texts) == []

            assert (project.folder / "plan.json").stat().st_size > 0
            planted = folder / "a" / "planted.log"
            for form in forms():
                planted.write_bytes(b"Authorization: " + form)
                assert leaks(files(folder / "a")) == [str(planted)], form
            texts["destroy"] = project.operate("destroy", "-d", "-v=9", "--logtostderr").text.encode()
            assert leaks({"destroy": texts["destroy"]}) == []
        finally:
            subprocess.run([REPLICATOR, "agent", "stop", *where], env=env, check=True, timeout=60)
