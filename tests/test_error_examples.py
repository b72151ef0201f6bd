"""The example of each code in docs/errors.md is what the product says when the thing really happens.

Each function here brings one error about, on the real engine, the real ssh and the real protocol. The texts are kept in
tests/golden/errors.json, from which the page is made. To change one on purpose, write the file anew:
`python -m tests.test_error_examples`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trustme
from google.protobuf import struct_pb2
from replicator.agent.policy_file import PolicyFile
from replicator.backends.kafka_connect.connector import unreadable
from replicator.backends.kafka_connect.debezium.positions import Position
from replicator.backends.kafka_connect.debezium.source_facts import refuse_full, refuse_without_identity
from replicator.backends.kafka_connect.debezium.status import lost_position
from replicator.backends.kafka_connect.debezium.target_tables import refuse_table
from replicator.backends.kafka_connect.deployed import read_record
from replicator.backends.kafka_connect.mirror.driver import open_mirror
from replicator.backends.kafka_connect.mirror.group_sync import group_finding
from replicator.backends.kafka_connect.record import HEADER, StreamRecord
from replicator.backends.postgres.catalog import Server, Shape, TableFacts
from replicator.backends.postgres.identifiers import Table
from replicator.backends.postgres.lsn import read_lsn
from replicator.backends.settings import ConnectConfig
from replicator.backends.sqlite.driver import SqliteDriver
from replicator.backends.sqlite.grants import missing
from replicator.backends.sqlite.litestream import find_binary
from replicator.errors import BY_CODE, ReplicatorError
from replicator.lifecycle.apply import delete
from replicator.lifecycle.config import parse_config
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.replay import run_replay
from replicator.lifecycle.wait import Limits
from replicator.model import Checkpoint, Owner, Stream
from replicator.plugin import rpc
from replicator.plugin.codec import ASSET, SIGNATURE, decode
from replicator.plugin.pulumi_engine import PulumiDiagnostics
from replicator.property_values import PropertyError
from replicator.remote import app as app_module
from replicator.remote.server import build_app
from replicator.remote.ssh.command import CONFIG_VARIABLE
from replicator.replicator import ReplayMethod, Replicator

from tests.backends.kafka_connect.debezium.builders import declare as declare_tables
from tests.backends.kafka_connect.mirror.builders import declare as declare_mirror
from tests.backends.sqlite.agents import Agent, caught_up, declare, finished
from tests.engines import S3Identity, S3Server, free_ports, make_database, s3_server
from tests.lifecycle.builders import OTHER_URN, S3, URN, checked, config, inputs
from tests.remote.support import Recorder, serving
from tests.sshd import OURS, Sshd, sshd
from tools.dist import LAUNCHER
from tools.docs import OF_THE_PLUGIN

GOLDEN = Path(__file__).parent / "golden" / "errors.json"
ORDERS = StreamId("litestream", "default", "orders")

Raising = Callable[["Lab"], Awaitable[str | None]]
RAISINGS: dict[str, Raising] = {}
"""By code: what brings the error about. It raises the error, or returns its text."""


def raises(code: str) -> Callable[[Raising], Raising]:
    def register(raising: Raising) -> Raising:
        RAISINGS[code] = raising
        return raising

    return register


class Lab:
    """What an error needs to come about. All of it ends with the block that it was made in."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.environ: dict[str, str] = {}
        self.tidy: dict[str, str] = {f"{folder}/": "/var/lib/shop/"}
        """What differs from run to run, and what stands for it in the example."""
        self.policies: PolicyFile | None = None

    def stream(self, place: str | None = None, **changes: Any) -> Stream:
        """A stream of the database in the folder, to a place in S3 or to another folder."""
        if place:
            changes["destination"] = {"kind": "s3", "uri": place, "authRef": "env://SHOP_*"}
        return declare("orders", self.folder / "shop.db", f"file://{self.folder}/replica", **changes)

    def policy(self, text: str) -> PolicyFile:
        """The policy file of the agent."""
        path = self.folder / "agent.toml"
        path.write_text(text)
        self.tidy["/var/lib/shop/agent.toml"] = "/etc/replicator/agent.toml"
        self.policies = PolicyFile(path)
        return self.policies

    async def driver(self) -> SqliteDriver:
        """An agent's driver."""
        agent = Agent((await find_binary()).path, self.folder / "agent", self.environ, self.policies)
        driver = await agent.start()
        self.stack.push_async_callback(agent.stop)
        return driver

    async def replicating(self, **changes: Any) -> SqliteDriver:
        """The same with a stream that has caught up."""
        make_database(self.folder / "shop.db", rows=20)
        driver = await self.driver()
        await driver.upsert_stream(self.stream(**changes))
        await caught_up(driver, "orders")
        return driver

    def client(self, address: str) -> Replicator:
        """What the plugin calls an agent with."""
        connections = Connections(config(litestream={"address": address}))
        self.stack.push_async_callback(connections.aclose)
        return connections.replicator(ORDERS)

    def bucket(self) -> S3Server:
        """An S3 server."""
        return self.stack.enter_context(s3_server(self.folder / "s3"))

    def keys(self, identity: S3Identity) -> None:
        """What the agent finds under the reference in `stream`."""
        self.environ["SHOP_ACCESS_KEY_ID"] = identity.access_key_id
        self.environ["SHOP_SECRET_ACCESS_KEY"] = identity.secret_access_key

    def host(self, *lines: str, options: Sequence[str] = (), package: Path | None = OURS) -> Sshd:
        """A host that takes logins; `lines` are in the client's configuration."""
        made = self.stack.enter_context(sshd("db1.example", options=options, package=package))
        made.configure(*lines)
        self.use(made.config)
        self.tidy |= {f" -F {made.config}": "", f"{made.folder}": "/home/deploy/.ssh", f"{made.login.user}@": "deploy@"}
        self.tidy[f"port {made.port}"] = "port 22"
        return made

    def use(self, ssh_config: Path) -> None:
        self.stack.enter_context(patch.dict(os.environ, {CONFIG_VARIABLE: str(ssh_config)}))

    async def call(self, address: str) -> None:
        """Ask the agent at an address for something."""
        await self.client(address).list_streams()


async def example(code: str) -> str:
    """The text of an error that really came about, without what differs from run to run."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rpl-"))
        lab = Lab(Path(folder), stack)
        try:
            text = str(await RAISINGS[code](lab))
        except (ReplicatorError, PropertyError) as error:
            text = str(error)
        for differing, instead in lab.tidy.items():
            text = text.replace(differing, instead)
        text = re.sub(r"\b[0-9a-f]{16}(?= \()", f"{1:016x}", text)
        text = re.sub(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d", r"2026-11-25\g<1>09:00:00", text)
        return re.sub(r"\.\d+Z", "Z", text)


# --- streams and their inputs ----------------------------------------------------------------------------------------


@raises("RPL-STREAM-INVALID")
async def _(lab: Lab) -> str:
    return str(checked(inputs(source={"kind": "sqlite", "uri": "sqlite://orders.db"})).failures[0])


@raises("RPL-STREAM-NOTFOUND")
async def _(lab: Lab) -> None:
    await (await lab.driver()).get_status("orders")


@raises("RPL-STREAM-PROTECTED")
async def _(lab: Lab) -> None:
    connections = Connections(config())
    await delete(connections, ORDERS, Owner(urn=URN), protected=True, limits=Limits())


@raises("RPL-CAP-UNSUPPORTED")
async def _(lab: Lab) -> str:
    return str(checked(inputs(mode="cdc")).failures[0])


@raises("RPL-OWNER-NONE")
async def _(lab: Lab) -> None:
    driver = await lab.replicating(owner=None)
    await driver.upsert_stream(lab.stream())


@raises("RPL-OWNER-OTHER")
async def _(lab: Lab) -> None:
    driver = await lab.replicating(owner={"urn": OTHER_URN})
    await driver.upsert_stream(lab.stream())


@raises("RPL-RECORD-UNREADABLE")
async def _(lab: Lab) -> None:
    config = {
        **StreamRecord(stream=lab.stream()).keys("kafka-mirror"),
        HEADER: '{"version": 3, "backend": "kafka-mirror"}',
    }
    read_record(replace(unreadable("orders", ""), config=config), "kafka-mirror")


@raises("RPL-CONFIG-INVALID")
async def _(lab: Lab) -> str:
    _, failures = parse_config({"litestraem": {"address": "unix:///run/replicator/agent.sock"}})
    return str(failures[0])


@raises("RPL-AUTH-SYNTAX")
async def _(lab: Lab) -> str:
    return str(checked(inputs(destination={**S3, "authRef": "vault://shop/s3"})).failures[0])


@raises("RPL-AUTH-EXPOSED")
async def _(lab: Lab) -> str:
    renamed = "env://SHOP_*?accessKeyId=SECRET_ACCESS_KEY"
    return str(checked(inputs(destination={**S3, "authRef": renamed})).failures[0])


@raises("RPL-POLICY-REFUSED")
async def _(lab: Lab) -> None:
    make_database(lab.folder / "shop.db")
    lab.policy(f'[[source]]\nfolder = "{lab.folder}"\n')
    await (await lab.driver()).upsert_stream(lab.stream(place="s3://backups/orders?endpoint=https://s3.example.com"))


@raises("RPL-POLICY-FILE")
async def _(lab: Lab) -> None:
    lab.policy('[[sources]]\nfolder = "/var/lib/shop"\n').current()


@raises("RPL-POLICY-NONE")
async def _(lab: Lab) -> str:
    return str(missing(Path("/etc/replicator/agent.toml")))


@raises("RPL-AUTH-NOTFOUND")
async def _(lab: Lab) -> None:
    make_database(lab.folder / "shop.db")
    lab.tidy[f"on {socket.gethostname()}"] = "on web-1"
    await (await lab.driver()).upsert_stream(lab.stream(place="s3://backups/orders"))


@raises("RPL-PLUGIN-VALUE")
async def _(lab: Lab) -> None:
    value = struct_pb2.Struct()
    value.update({"options": {"file": {SIGNATURE: ASSET, "path": "notes.txt"}}})
    decode(value)


@raises("RPL-PLUGIN-PYTHON")
async def _(lab: Lab) -> str:
    launcher = lab.folder / "launcher"
    launcher.write_text(LAUNCHER.read_text("utf-8").replace("@MINOR@", "3.12"), "utf-8")
    ended = subprocess.run(
        ["/bin/sh", launcher], check=False, env={"PATH": str(lab.folder)}, capture_output=True, text=True
    )
    return ended.stderr.strip()


@raises("RPL-PLUGIN-FAULT")
async def _(lab: Lab) -> str:
    """Nothing is known that brings it about, so an exception is made up."""
    _, text = await rpc._unexpected(PulumiDiagnostics(None, str), "Create", RuntimeError("dictionary changed size"))
    return text


@raises("RPL-ENGINE-DENIED")
async def _(lab: Lab) -> None:
    """The refusal is TLS's, before a worker of Kafka Connect would be asked, so none has to run."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    lab.stack.push_async_callback(server.wait_closed)
    lab.stack.callback(server.close)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    lab.tidy[url] = "https://connect.example:8083"
    mirrors = open_mirror(url, ConnectConfig())
    lab.stack.push_async_callback(mirrors.aclose)
    await mirrors.list_streams()


# --- the source ------------------------------------------------------------------------------------------------------


@raises("RPL-SOURCE-MISSING")
async def _(lab: Lab) -> None:
    await (await lab.driver()).upsert_stream(lab.stream())


@raises("RPL-SOURCE-FORMAT")
async def _(lab: Lab) -> None:
    (lab.folder / "shop.db").write_text("no database " * 20)
    await (await lab.driver()).upsert_stream(lab.stream())


@raises("RPL-SOURCE-LOCKED")
async def _(lab: Lab) -> None:
    make_database(lab.folder / "shop.db", journal_mode="delete")
    driver = await lab.driver()
    with closing(sqlite3.connect(lab.folder / "shop.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        await driver.upsert_stream(lab.stream())


@raises("RPL-SOURCE-DENIED")
async def _(lab: Lab) -> None:
    """Whoever runs it, SQLite writes to no file whose write version it does not know."""
    with make_database(lab.folder / "shop.db").open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")
    await (await lab.driver()).upsert_stream(lab.stream())


@raises("RPL-SOURCE-SWAPPED")
async def _(lab: Lab) -> None:
    driver = await lab.replicating()
    await driver.pause("orders")
    make_database(lab.folder / "restored.db", rows=5)
    for side in ("-wal", "-shm"):
        (lab.folder / f"shop.db{side}").unlink(missing_ok=True)
    (lab.folder / "restored.db").rename(lab.folder / "shop.db")
    await driver.resume("orders")


@raises("RPL-SOURCE-SETUP")
async def _(lab: Lab) -> None:
    refuse_without_identity([_table("orders", identity=())])


@raises("RPL-SOURCE-LIMIT")
async def _(lab: Lab) -> None:
    server = Server(
        "", 15, "logical", is_standby=False, free_slots=0, free_senders=4, free_connections=40, bounds_slots=True
    )
    refuse_full(server, 0)


@raises("RPL-SOURCE-POSITION")
async def _(lab: Lab) -> str:
    return str(
        lost_position(
            StreamRecord(stream=declare_tables(), details={"claim": "c"}), Position(lsn=read_lsn("0/16B3748")), None, {}
        )
    )


def _table(name: str, *, identity: tuple[str, ...] | None) -> TableFacts:
    return TableFacts(
        table=Table("public", name),
        oid=1,
        columns=("id",),
        key=(),
        identity=identity,
        is_partition=False,
        is_partitioned=False,
        readable=True,
        owned=True,
        hides_rows=False,
        rows=None,
    )


@raises("RPL-SOURCE-FULL")
async def _(lab: Lab) -> str:
    """The program runs on a disk that is full, and moves a WAL into its database."""
    database = make_database(lab.folder / "shop.db")
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("INSERT INTO item (value) VALUES (hex(randomblob(9999)))")
        (lab.folder / "full").touch()
        here = Path(__file__).parent
        command = [str(here / "full_disk.py"), str(lab.folder), str(lab.folder / "full"), sys.executable, "-c", _EMPTY]
        done = await asyncio.create_subprocess_exec(
            sys.executable, *command, str(database), stdout=asyncio.subprocess.PIPE
        )
        return (await done.communicate())[0].decode().rstrip()


_EMPTY = """
import asyncio, sys
from pathlib import Path
from replicator.backends.sqlite import database, litestream_errors
try:
    asyncio.run(database.checkpoint_truncate(Path(sys.argv[1])))
except database.DatabaseError as error:
    print(litestream_errors.of_database(error, "orders"))
"""


# --- the destination -------------------------------------------------------------------------------------------------


@raises("RPL-DEST-MISSING")
async def _(lab: Lab) -> str:
    server = lab.bucket()
    lab.keys(server.owner)
    return await _look(lab, server.url("backups", "orders"))


@raises("RPL-DEST-SETUP")
async def _(lab: Lab) -> None:
    shape = Shape((), frozenset(), references=(), triggers=(), owned=True, writable=True, limited=False)
    refuse_table(Table("public", "orders"), ("id",), (), shape, "sink")


@raises("RPL-SOURCE-COPIED")
async def _(lab: Lab) -> str:
    driver = await lab.replicating()
    lab.tidy["24.7 kB"] = "57.3 MB"
    (found,) = await driver.preflight(lab.stream(checkpointInterval="5s"))
    return str(found.error("orders"))


@raises("RPL-GROUPS-SYNC")
async def _(lab: Lab) -> str:
    return str(group_finding(declare_mirror(), [], None).error("orders"))


@raises("RPL-DEST-DENIED")
async def _(lab: Lab) -> str:
    server = lab.bucket()
    lab.keys(server.stranger)
    return await _look(lab, server.url(server.make_bucket("backups"), "orders"))


@raises("RPL-DEST-INUSE")
async def _(lab: Lab) -> str:
    (lab.folder / "replica").mkdir()
    (lab.folder / "replica" / "notes.txt").write_text("somebody's")
    return await _look(lab, None)


@raises("RPL-ENGINE-DOWN")
async def _(lab: Lab) -> str:
    (port,) = free_ports(1)
    lab.keys(S3Identity("somebody", "something"))
    lab.tidy[f"http://127.0.0.1:{port}"] = "https://s3.example"
    return await _look(lab, f"s3://backups/orders?region=eu-central-1&endpoint=http://127.0.0.1:{port}")


@raises("RPL-ENGINE-REFUSED")
async def _(lab: Lab) -> None:
    """A replica behind a symbolic link is not purged."""
    (lab.folder / "disk").mkdir()
    (lab.folder / "replica").symlink_to(lab.folder / "disk")
    driver = await lab.replicating(purgeDestination=True)
    await driver.delete_stream("orders")


async def _look(lab: Lab, place: str | None) -> str:
    """What a preview says."""
    make_database(lab.folder / "shop.db")
    (found,) = await (await lab.driver()).preflight(lab.stream(place=place))
    return str(found.error("orders"))


# --- the agent, and the way to it ------------------------------------------------------------------------------------


@raises("RPL-AGENT-DOWN")
async def _(lab: Lab) -> None:
    lab.tidy = {str(lab.folder): "/run/replicator"}
    await lab.call(f"unix://{lab.folder}/agent.sock")


@raises("RPL-AGENT-VERSION")
async def _(lab: Lab) -> None:
    lab.tidy = {str(lab.folder): "/run/replicator"}
    with patch.object(app_module, "PROTOCOL", 3), patch.object(app_module, "is_spoken", lambda spoken: spoken == "3"):
        async with serving(build_app({"litestream": Recorder()}), lab.folder / "agent.sock"):
            await lab.call(f"unix://{lab.folder}/agent.sock")


@raises("RPL-AGENT-FAULT")
async def _(lab: Lab) -> None:
    lab.tidy = {f"{lab.folder}/agent": "/var/lib/replicator"}
    registry = lab.folder / "agent" / "registry"
    registry.mkdir(parents=True)
    (registry / "agent-id").write_text("half of an id")
    await lab.driver()


@raises("RPL-SSH-UNREACHABLE")
async def _(lab: Lab) -> None:
    lab.host().stop()
    await lab.call(_REMOTE)


@raises("RPL-SSH-KEYUNKNOWN")
async def _(lab: Lab) -> None:
    lab.host("UserKnownHostsFile /dev/null")
    await lab.call(_REMOTE)


@raises("RPL-SSH-KEYCHANGED")
async def _(lab: Lab) -> None:
    host = lab.host()
    host.new_host_key()
    host.stop()
    host.start()
    await lab.call(_REMOTE)


@raises("RPL-SSH-LOGIN")
async def _(lab: Lab) -> None:
    lab.host("PubkeyAuthentication no")
    await lab.call(_REMOTE)


@raises("RPL-SSH-FORWARDING")
async def _(lab: Lab) -> None:
    host = lab.host(options=["AllowStreamLocalForwarding no"], package=None)
    lab.tidy = {str(host.folder): "/run/replicator"}
    async with serving(build_app({"litestream": Recorder()}), host.folder / "agent.sock", mode=0o666):
        await lab.call(f"ssh://db1.example{host.folder}/agent.sock")


@raises("RPL-SSH-MISSING")
async def _(lab: Lab) -> None:
    lab.stack.enter_context(patch.dict(os.environ, {"PATH": str(lab.folder)}))
    await lab.call(_REMOTE)


@raises("RPL-SSH-FAILED")
async def _(lab: Lab) -> None:
    config = lab.folder / "config"
    config.write_text("ForwardAgnet yes\n")
    lab.use(config)
    lab.tidy = {f" -F {config}": "", str(lab.folder): "/home/deploy/.ssh"}
    await lab.call(_REMOTE)


_REMOTE = "ssh://db1.example/run/replicator/agent.sock"


# --- replays and waits -----------------------------------------------------------------------------------------------


@raises("RPL-REPLAY-REFUSED")
async def _(lab: Lab) -> None:
    driver = await lab.replicating()
    await driver.replay("orders", await _now(driver), key="k", target=str(lab.folder / "shop.db"))


@raises("RPL-REPLAY-RETENTION")
async def _(lab: Lab) -> None:
    driver = await lab.replicating()
    await driver.plan_replay("orders", Checkpoint(lsn=f"{4096:016x}"), target=str(lab.folder / "copy.db"))


@raises("RPL-REPLAY-KEY")
async def _(lab: Lab) -> None:
    driver = await lab.replicating()
    start = await _now(driver)
    for copy in ("copy.db", "other.db"):
        await driver.replay("orders", start, key="incident-4711", target=str(lab.folder / copy))
        await finished(driver, "orders", "incident-4711")


@raises("RPL-REPLAY-NOTFOUND")
async def _(lab: Lab) -> None:
    await (await lab.replicating()).get_replay("orders", "incident-4711")


@raises("RPL-REPLAY-FAILED")
async def _(lab: Lab) -> None:
    """A folder that takes no file."""
    driver = await lab.replicating()
    connections = Connections(config(), lambda kind, address: driver)
    await run_replay(
        connections,
        ORDERS,
        await _now(driver),
        key="k",
        method=ReplayMethod.COPY,
        target="/proc/copy.db",
        limits=Limits(),
    )


async def _now(driver: SqliteDriver) -> Checkpoint:
    """The newest checkpoint."""
    found = (await driver.get_status("orders")).last_checkpoint
    assert found
    return found


@raises("RPL-WAIT-TIMEOUT")
async def _(lab: Lab) -> None:
    async with Limits(1).within("the change", "orders"):
        await asyncio.Event().wait()


@raises("RPL-WAIT-CANCELLED")
async def _(lab: Lab) -> None:
    cancelled = asyncio.Event()
    cancelled.set()
    await Limits(cancelled=cancelled).pause(1, "waiting for caught_up", "orders")


# --- the golden file -------------------------------------------------------------------------------------------------


def test_every_code_has_an_example() -> None:
    known = {*BY_CODE, *OF_THE_PLUGIN}
    assert set(RAISINGS) == known
    assert set(json.loads(GOLDEN.read_text("utf-8"))) == known


IN_THE_SENTENCE = {
    "RPL-CAP-UNSUPPORTED",
    "RPL-PLUGIN-FAULT",
    "RPL-PLUGIN-VALUE",
    "RPL-SOURCE-COPIED",
    "RPL-STREAM-INVALID",
}
"""What to do is a part of the sentence, or nothing is to be done."""


@pytest.mark.parametrize("code", RAISINGS)
def test_an_error_is_short_and_ends_with_what_to_do(code: str) -> None:
    first, *rest = (json.loads(GOLDEN.read_text("utf-8"))[code]).split("\n")
    steps = [line for line in rest if line.startswith("  → ")]
    pasted = rest[1:] if code == "RPL-POLICY-REFUSED" else []  # lines of a file, complete
    assert len(rest) - len(pasted) <= 2
    assert all(len(line) <= 300 for line in (first, *rest))
    assert len(steps) == (0 if code in IN_THE_SENTENCE else 1)


@pytest.mark.engine
@pytest.mark.parametrize("code", RAISINGS)
async def test_an_example_is_what_the_product_says(code: str) -> None:
    text = await example(code)
    assert f"[{code}]" in text
    assert text == json.loads(GOLDEN.read_text("utf-8"))[code]


async def _write() -> None:
    found = {code: await example(code) for code in sorted(RAISINGS)}
    GOLDEN.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    asyncio.run(_write())
