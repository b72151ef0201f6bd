"""docs/recovery.md, step by step: a host is lost with its agent and its database, and another one goes on."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
from pathlib import Path

import pytest
from replicator.model import StreamState

from tests.agent.support import command
from tests.e2e.conftest import Make
from tests.e2e.litestream import BUCKET, World, world
from tests.e2e.test_litestream import CLEAN, SKIP
from tests.engines import add_rows, s3_server

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "recovery.md"
URL, DATABASE = "s3://backups/orders?region=eu-central-1", "/var/lib/app/orders.db"


def steps() -> list[list[str]]:
    """The commands of the section about a lost host, in their order."""
    section = PAGE.read_text().partition("## Recover from a lost host")[2]
    return [shlex.split(line) for line in re.findall(r"^ *\$ (.+)$", section, re.MULTILINE)]


def on(host: World, words: list[str], url: str, *more: str) -> str:
    """Run a command of the page on a host, and return what it printed."""
    real = {URL: url, DATABASE: str(host.host.database("orders"))}
    ran = command(*(real.get(word, word) for word in words[1:]), *more, env=host.host.environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_lost_host(make_project: Make, tmp_path: Path) -> None:
    restore, start, takeover, configure, up = steps()
    assert start == ["replicator", "agent", "start"]
    project = make_project("recovery")
    with s3_server(tmp_path / "s3") as s3:
        s3.make_bucket(BUCKET)
        with world(s3) as old, world(s3) as new:
            url = s3.url(BUCKET, "orders")
            old.database("orders")

            def program(host: World) -> None:
                main = {"type": "replicator:index:Stream", "properties": host.inputs("orders", waitFor="caught_up")}
                project.write_yaml({"resources": {"main": main}})

            program(old)
            project.configure("replicator:litestream", {"address": old.host.address})
            project.up(SKIP)
            held = old.content("orders")
            old.host.end(signal.SIGKILL)
            shutil.rmtree(old.host.state)
            old.host.database("orders").unlink()

            restored = on(new, restore, url, "--yes")
            assert restored.splitlines()[-1] == "integrity check: ok"
            assert new.content("orders") == held

            program(new)
            taken = on(new, takeover, url, "--socket", str(new.host.socket), "--lost-host", socket.gethostname())
            assert f"{new.host.database('orders')} has the content of that transaction." in taken
            assert "which urn:pulumi:dev::recovery::replicator:index:Stream::main manages." in taken

            project.run(*configure[1:-1], new.host.address)
            ran = project.run(*up[1:], "--yes", SKIP)
            assert "RPL-" not in ran.text
            assert project.resources()["main"]["id"] == "litestream/default/orders"
            assert project.preview(CLEAN).done("main") == ["same"]

            add_rows(new.host.database("orders"), 5)
            new.caught_up("orders")
            assert new.restored("orders/r2") == new.content("orders") != held
            assert new.restored("orders") == held
            assert new.status("orders").state is StreamState.RUNNING
            project.destroy(SKIP)
            old.start_agent()  # what `world` ends
