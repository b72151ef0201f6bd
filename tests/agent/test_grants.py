"""What the author of a program that is only previewed can make an agent send, read and write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from replicator.backends.sqlite.driver import LOOK_EVERY
from replicator.errors import PolicyRefused, ReplicatorError
from replicator.model import Checkpoint, Stream, StreamState
from replicator.replicator import Finding, Severity

from tests.agent.support import Host, caught_up, command
from tests.engines import add_rows, make_database
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

CANARY = "canary-of-another-application"
ELSEWHERE = "http://0.0.0.0"  # reaches this host, and is no loopback address


class Thief:
    """Somebody's server, which keeps all that it is sent."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(f"{self.path} {self.headers}")
                self.send_error(404)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def thief() -> Iterator[Thief]:
    server = Thief()
    yield server
    server.close()


def preview(host: Host, stream: Stream) -> list[Finding]:
    async def ask() -> list[Finding]:
        async with host.client() as client:
            return await client.preflight(stream)

    return asyncio.run(ask())


def errors(findings: list[Finding]) -> list[tuple[str, str | None]]:
    return [(item.code, item.property) for item in findings if item.severity is Severity.ERROR]


def theft(host: Host, thief: Thief, auth_ref: str) -> Stream:
    uri = f"s3://bucket/prefix?endpoint=http://127.0.0.1:{thief.port}"
    return host.stream(destination={"kind": "s3", "uri": uri, "authRef": auth_ref})


@pytest.fixture
def secrets(host: Host, tmp_path: Path) -> list[str]:
    """References that send a value of another application as the id of a key, by every kind of store."""
    host.environment |= {"CRM_DSN": CANARY, "CRM_OTHER": "x"}
    (tmp_path / "crm.properties").write_text(f"dsn={CANARY}\nother=x\n")
    (tmp_path / "dsn").write_text(CANARY)
    (tmp_path / "other").write_text("x")
    renamed = "accessKeyId=dsn&secretAccessKey=other"
    return [
        "env://CRM_*?accessKeyId=DSN&secretAccessKey=OTHER",
        f"file://{tmp_path}/crm.properties?{renamed}",
        f"dir://{tmp_path}?{renamed}",
    ]


def test_a_preview_sends_no_secret_of_others(host: Host, thief: Thief, secrets: list[str]) -> None:
    make_database(host.database())
    host.start()
    for auth_ref in secrets:  # the control: without a policy it does, and says that it might
        found = preview(host, theft(host, thief, auth_ref))
        assert CANARY in thief.seen[-1], found
        assert [item.code for item in found if item.severity is Severity.WARNING][:1] == ["RPL-POLICY-NONE"]
    host.end()
    thief.seen.clear()
    host.start(*host.grant_all())
    for auth_ref in secrets:
        stream = theft(host, thief, auth_ref)
        found = preview(host, stream)
        assert errors(found) == [("RPL-POLICY-REFUSED", "destination.uri")]
        assert not any(item.code == "RPL-POLICY-NONE" for item in found)
        assert CANARY not in str(found)

        async def create(stream: Stream = stream) -> None:
            async with host.client() as client:
                with pytest.raises(PolicyRefused):
                    await client.upsert_stream(stream)
                with pytest.raises(PolicyRefused):
                    await client.adopt_stream(stream, dry_run=True)
                assert await client.list_streams() == []

        asyncio.run(create())
    assert thief.seen == []


def test_the_lines_of_the_error_grant_it_without_a_restart(host: Host, thief: Thief, secrets: list[str]) -> None:
    make_database(host.database())
    _, policy = host.grant_all()
    host.start("--policy", policy)
    stream = theft(host, thief, secrets[0])
    (refused,) = [item for item in preview(host, stream) if item.severity is Severity.ERROR]
    assert refused.fix is not None
    with Path(policy).open("a") as file:
        file.write("\n" + refused.fix.partition("\n")[2] + "\n")
    preview(host, stream)
    assert CANARY in thief.seen[-1]


def test_no_key_goes_over_http_to_another_host(host: Host, thief: Thief) -> None:
    make_database(host.database())
    host.environment |= {"SHOP_ACCESS_KEY_ID": CANARY, "SHOP_SECRET_ACCESS_KEY": "secret of the shop"}
    uri = f"s3://bucket/prefix?endpoint={ELSEWHERE}:{thief.port}"
    stream = host.stream(destination={"kind": "s3", "uri": uri, "authRef": "env://SHOP_*"})
    host.start()
    assert errors(preview(host, stream)) == [("RPL-AUTH-EXPOSED", "destination.uri")]
    assert thief.seen == []
    host.end()
    _, policy = host.grant_all()
    with Path(policy).open("a") as file:  # the control: the endpoint can be reached, once it is named
        file.write(f'\n[[destination]]\nuri = "{uri}"\nauthRef = "env://SHOP_*"\n')
    host.start("--policy", policy)
    preview(host, stream)
    assert CANARY in thief.seen[-1]


def test_the_secret_of_one_reference_is_no_id_of_another(host: Host, thief: Thief) -> None:
    make_database(host.database())
    secret = "abcdefghijklmnopqrstuvwxyz0123456789"
    host.environment |= {"A_ACCESS_KEY_ID": "theid", "A_SECRET_ACCESS_KEY": secret, "B_COPY": secret, "B_X": "x"}
    host.start()
    copied = theft(host, thief, "env://B_*?accessKeyId=COPY&secretAccessKey=X")
    preview(host, copied)
    assert secret in thief.seen[-1]  # the control: nobody has said yet that it is a secret
    preview(host, theft(host, thief, "env://A_*"))
    thief.seen.clear()
    assert errors(preview(host, copied)) == [("RPL-AUTH-EXPOSED", "destination.authRef")]
    assert thief.seen == []


def test_databases_and_folders_that_are_not_granted_are_not_opened(host: Host, tmp_path: Path) -> None:
    ours = make_database(host.database())
    theirs = make_database(tmp_path / "theirs.db")
    (host.folder / "way-out").symlink_to(tmp_path)
    before = theirs.read_bytes()
    host.start(*host.grant_all())
    for path in (theirs, host.folder / "way-out" / "theirs.db"):
        stream = host.stream(source={"kind": "sqlite", "uri": f"sqlite://{path}"})
        assert errors(preview(host, stream)) == [("RPL-POLICY-REFUSED", "source.uri")]
    for folder in (tmp_path / "replica", host.folder / "way-out" / "replica"):
        stream = host.stream(destination={"kind": "s3", "uri": f"file://{folder}"})
        assert errors(preview(host, stream)) == [("RPL-POLICY-REFUSED", "destination.uri")]
        assert not folder.exists()
    assert theirs.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs.db"]
    assert not errors(preview(host, host.stream()))
    assert ours.exists()


def test_a_copy_goes_where_the_policy_says(host: Host, tmp_path: Path) -> None:
    database = make_database(host.database(), rows=10)
    _, policy = host.grant_all()
    host.start("--policy", policy)
    elsewhere = tmp_path / "cron.d"
    elsewhere.mkdir()

    async def ask() -> None:
        async with host.client() as client:
            await client.upsert_stream(host.stream())
            add_rows(database, 10)
            start = (await caught_up(client)).last_checkpoint
            assert start is not None
            for target in (elsewhere / "x", Path("/etc/cron.d/x"), host.folder / ".." / "x"):
                for attempt in (
                    lambda target=target: client.plan_replay("orders", start, target=str(target)),
                    lambda target=target: client.replay("orders", start, key=f"to-{target}", target=str(target)),
                ):
                    with pytest.raises(PolicyRefused) as refused:
                        await attempt()
                    assert refused.value.property == "target"
            await copy(client, start, host.folder / "copy.db")
            assert (host.folder / "copy.db").exists()
            text = Path(policy).read_text()
            Path(policy).write_text(text + f'\n[[replay]]\nfolder = "{elsewhere}"\n')
            await copy(client, start, elsewhere / "x")  # the control
            assert (elsewhere / "x").exists()

    async def copy(client: Any, start: Checkpoint, target: Path) -> None:
        await client.replay("orders", start, key=target.name, target=str(target))
        async with asyncio.timeout(20):
            while (await client.get_replay("orders", target.name)).finished_at is None:
                await asyncio.sleep(0.05)

    asyncio.run(ask())
    assert not Path("/etc/cron.d/x").exists()


def test_a_stream_that_is_no_longer_granted_is_not_taken_up_again(host: Host) -> None:
    database = make_database(host.database(), rows=10)
    _, policy = host.grant_all()
    host.start("--policy", policy)
    granted = Path(policy).read_text()

    async def ask() -> None:
        async with host.client() as client:
            await client.upsert_stream(host.stream())
            await caught_up(client)
            for text in ("", "[[source"):  # a file that is being written stops nothing
                Path(policy).write_text(text)
                await asyncio.sleep(2.5 * LOOK_EVERY)
                add_rows(database, 1)
                await caught_up(client)
            Path(policy).write_text("")
            await client.pause("orders")
            with pytest.raises(PolicyRefused):
                await client.resume("orders")
            Path(policy).write_text(granted)
            await client.resume("orders")
            await caught_up(client)

    asyncio.run(ask())
    Path(policy).write_text("")
    host.end()
    host.start("--policy", policy)

    async def state() -> tuple[StreamState, str | None]:
        async with host.client() as client:
            status = await client.get_status("orders")
            return status.state, status.last_error

    found, why = asyncio.run(state())
    assert found is StreamState.FAILED and why is not None and "the agent's policy grants no" in why
    assert host.litestreams() == []
    Path(policy).write_text(granted)
    wait_until(lambda: asyncio.run(state())[0] is StreamState.RUNNING, timeout=60)
    Path(policy).write_text("")

    async def remove() -> None:
        async with host.client() as client:
            await client.pause("orders")
            await client.delete_stream("orders")
            assert await client.list_streams() == []

    asyncio.run(remove())


@contextmanager
def refused_start(host: Host, *arguments: str) -> Iterator[str]:
    ended = command("agent", "run", *host.places, *arguments, env=host.environment)
    assert ended.returncode == 1
    yield ended.stderr


def test_an_agent_refuses_to_start_with_a_policy_that_it_cannot_trust(host: Host) -> None:
    _, policy = host.grant_all()
    Path(policy).chmod(0o666)
    with refused_start(host, "--policy", policy) as said:
        assert "RPL-POLICY-FILE" in said and "another user may change it" in said
    with refused_start(host, "--policy", f"{policy}-that-is-not-there") as said:
        assert "RPL-POLICY-FILE" in said
    Path(policy).chmod(0o600)
    host.start("--policy", policy)
    assert "RPL-POLICY" not in host.log()
    host.end()
    host.environment |= {"HOME": str(host.folder), "XDG_CONFIG_HOME": str(host.folder)}
    host.start()
    assert "RPL-POLICY-NONE" in host.log() and "replicator agent init" in host.log()


def test_the_errors_are_the_same_on_both_sides(host: Host, thief: Thief, secrets: list[str]) -> None:
    make_database(host.database())
    host.start(*host.grant_all())

    async def ask() -> None:
        async with host.client() as client:
            with pytest.raises(ReplicatorError) as refused:
                await client.upsert_stream(theft(host, thief, secrets[0]))
            assert (refused.value.code, refused.value.property) == ("RPL-POLICY-REFUSED", "destination.uri")

    asyncio.run(ask())
