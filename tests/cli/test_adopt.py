"""`replicator agent adopt`: what it shows, what it refuses, and what it leaves when it is done."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from replicator.backends.sqlite.database import content_hash

from tests.agent.support import Host, call, caught_up
from tests.engines import add_rows, find_engine, make_database
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

CONFIG = """addr: "127.0.0.1:0"
logging: {{level: debug}}
dbs:
  - path: {folder}/orders.db
    replica: {{url: "file://{folder}/replicas/orders"}}
  - path: {folder}/bills.db
    busy-timeout: 2s
    replicas: [{{path: {folder}/replicas/bills, sync-interval: 2s}}]
"""


@pytest.fixture
def config(host: Host) -> Path:
    """Two databases of a host with an agent, and the configuration of a litestream that knows nothing of it."""
    for name in ("orders", "bills"):
        make_database(host.database(name), rows=10)
    path = host.folder / "litestream.yml"
    path.write_text(CONFIG.format(folder=host.folder))
    host.start()
    return path


@contextmanager
def running(host: Host, config: Path, *, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A litestream with a configuration, which has replicated what there is."""
    given = str(config) if cwd is None else config.name
    process = subprocess.Popen(
        [str(find_engine("litestream")), "replicate", "-config", given],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        files = [host.folder / "replicas" / name / "ltx" / "0" for name in ("orders", "bills")]
        wait_until(lambda: all(list(path.glob("*.ltx")) for path in files), what="a first upload", timeout=20)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def adopt(host: Host, config: Path, *arguments: str) -> tuple[int, str, str]:
    return call("agent", "adopt", str(config), "--socket", str(host.socket), "--without", "addr", *arguments)


def test_the_plan_the_refusal_and_the_deed(host: Host, config: Path) -> None:
    with running(host, config) as process:
        code, out, err = adopt(host, config, "--dry-run")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == f"orders: sqlite://{host.database()} → file://{host.folder}/replicas/orders"
        assert " objects are there, the newest transaction 00000000000000" in lines[1]
        assert f"bills: sqlite://{host.database('bills')} → file://{host.folder}/replicas/bills" in lines
        assert "  uploads each 2s, by a litestream process of its own" in lines
        assert "  with busy-timeout: 2s" in lines
        assert "The agent has its own: logging." in lines
        signs = [f"process {process.pid} (litestream) holds {host.database(name)}" for name in ("bills", "orders")]
        signs.append(f"process {process.pid} (litestream) runs with {config}")
        assert [line.removeprefix("litestream still runs: ") for line in lines[-3:]] == signs
        code, _, err = adopt(host, config, "--dry-run", "--without", "logging", "--without", "busy_timeout")
        assert code == 0
        assert err.splitlines() == [
            f"warning: --without {key} changes nothing: no setting of {config} is refused under that name"
            for key in ("logging", "busy_timeout")
        ]
        found = json.loads(adopt(host, config, "--dry-run", "--json", "--without", "metrics")[1])
        assert found["needless"] == ["metrics"]
        assert found["running"] == signs
        assert [item["stream"]["name"] for item in found["streams"]] == ["orders", "bills"]

        code, out, err = adopt(host, config, "--yes")
        assert code == 1
        assert err.startswith(f"error: litestream still runs: {'; '.join(signs)} [RPL-DEST-INUSE]")
        assert "→ stop it, and keep it from starting again: systemctl disable --now litestream" in err
    assert call("list", "--address", host.address)[1] == "there are no streams\n"

    before = {name: asyncio.run(content_hash(host.database(name))) for name in ("orders", "bills")}
    code, out, err = adopt(host, config, "--yes")
    assert (code, err) == (0, "")
    assert out.splitlines()[-4:-2] == ["took over orders", "took over bills"]
    for name in before:
        add_rows(host.database(name), 5)
    asyncio.run(assert_restored(host, before))
    rows = [line.split() for line in call("list", "--address", host.address)[1].splitlines()[1:]]
    assert {row[0]: row[-1] for row in rows} == {"orders": "-", "bills": "-"}

    code, out, _ = adopt(host, config, "--yes")
    assert code == 0
    assert out.splitlines().count("  the agent replicates it already") == 2
    assert "took over" not in out


async def assert_restored(host: Host, before: dict[str, str]) -> None:
    async with host.client() as client:
        for name in before:
            await caught_up(client, name)
    for name, old in before.items():
        content = await content_hash(host.database(name))
        assert await content_hash(await host.restore(name)) == content != old


def test_a_daemon_is_found_by_its_relative_configuration(host: Host, config: Path) -> None:
    with running(host, config, cwd=host.folder) as process:
        found = json.loads(adopt(host, config, "--dry-run", "--json")[1])
        assert f"process {process.pid} (litestream) runs with {config}" in found["running"]


def test_a_control_socket_that_answers_is_a_sign(host: Host, config: Path) -> None:
    socket = host.folder / "theirs.sock"
    config.write_text(config.read_text() + f"socket: {{enabled: true, path: {socket}}}\n")
    with running(host, config):
        found = json.loads(adopt(host, config, "--dry-run", "--json")[1])
        assert f"its control socket {socket} answers" in found["running"]
    assert json.loads(adopt(host, config, "--dry-run", "--json")[1])["running"] == []


def test_who_writes_to_the_prefix_unseen_is_found_by_what_appears_there(host: Host, config: Path) -> None:
    with running(host, config):
        pass
    elsewhere = host.folder / "elsewhere"  # as another host has it: other files, no process and no lock of these
    for name in ("orders", "bills"):
        make_database(elsewhere / f"{name}.db", rows=5)
    text = CONFIG.format(folder=elsewhere).replace(f"{elsewhere}/replicas", f"{host.folder}/replicas")
    other = elsewhere / "litestream.yml"
    other.write_text(text)
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.2):
            add_rows(elsewhere / "orders.db")

    with running(host, other):
        writer = threading.Thread(target=write)
        writer.start()
        try:
            code, _, err = adopt(host, config, "--yes")
        finally:
            stop.set()
            writer.join()
    assert code == 1
    assert "somebody has written to its prefix since the plan was made [RPL-DEST-INUSE]" in err
    assert call("list", "--address", host.address)[1] == "there are no streams\n"


def test_what_cannot_be_carried_over_stops_everything(host: Host, config: Path) -> None:
    code, out, err = call("agent", "adopt", str(config), "--socket", str(host.socket), "--yes")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: not all of {config} can be carried over:\n  line 1: addr: ")
    assert "[RPL-CAP-UNSUPPORTED]" in err
    assert "--without addr" in err
    host.database("bills").unlink()
    code, out, err = adopt(host, config, "--yes")
    assert (code, out) == (1, "")
    assert "error: stream 'bills': source.uri: " in err
    assert call("list", "--address", host.address)[1] == "there are no streams\n"


@pytest.mark.parametrize("again", ["{folder}/orders.db", "{folder}/../{name}/orders.db", "{link}/orders.db"])
def test_a_database_that_is_listed_twice_stops_everything(host: Host, config: Path, again: str) -> None:
    link = host.folder / "link"
    link.symlink_to(host.folder)
    path = again.format(folder=host.folder, name=host.folder.name, link=link)
    config.write_text(
        config.read_text() + f"  - path: {path}\n    replica: {{url: 'file://{host.folder}/replicas/again'}}\n"
    )
    for arguments in (["--dry-run"], ["--yes"]):
        code, out, err = adopt(host, config, *arguments)
        assert (code, out) == (1, "")
        assert "line 9: dbs[2]: is the same database as dbs[0] (line 4), and a database has one stream" in err
    assert call("list", "--address", host.address)[1] == "there are no streams\n"


def test_without_a_terminal_it_has_to_be_told_yes(host: Host, config: Path) -> None:
    code, _, err = adopt(host, config)
    assert code == 2
    assert "--yes" in err
