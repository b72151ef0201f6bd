"""`replicator restore`: from a folder and from a bucket, with an agent, beside one, and after the loss of its host."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from replicator.backends.sqlite.database import content_hash
from replicator.model import Checkpoint, format_time
from replicator.replicator import ReplayMethod, ReplayState

from tests.agent.support import COMMAND, Host, call, caught_up, command
from tests.agent.support import host as make_host
from tests.backends.sqlite.conftest import TwoOwners
from tests.engines import S3Identity, S3Server, add_rows, make_database
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

BUCKET = "lab"
SECRET = "it's a /+ secret"


@dataclass
class Point:
    """One point of the stream's life, and the content of the database then."""

    at: Checkpoint
    content: str

    @property
    def lsn(self) -> str:
        return str(self.at.lsn)

    @property
    def time(self) -> str:
        assert self.at.wall is not None
        return format_time(self.at.wall)


@dataclass
class Shop:
    """The stream `orders` of an agent that runs: two points, a re-seed, and a third one."""

    host: Host
    url: str
    auth: tuple[str, ...]
    points: list[Point]

    def restore(self, target: Path, *arguments: str) -> tuple[int, str, str]:
        return call("restore", self.url, "--to", str(target), *self.auth, *arguments)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoOwners]:
    made = TwoOwners(tmp_path_factory.mktemp("s3"), owner=S3Identity("OWNERKEY", SECRET))
    made.start()
    try:
        made.make_bucket(BUCKET)
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="module", autouse=True)
def identities(server: TwoOwners) -> Iterator[None]:
    """Set the variables that references name: of the owner, a reader, one who may nothing, and a wrong key."""
    with pytest.MonkeyPatch.context() as patch:
        for name, key, secret in (
            ("SHOP", server.owner.access_key_id, SECRET),
            ("READER", server.reader.access_key_id, server.reader.secret_access_key),
            ("STRANGER", server.stranger.access_key_id, server.stranger.secret_access_key),
            ("WRONG", server.owner.access_key_id, "another-secret-value"),
        ):
            patch.setenv(f"{name}_ACCESS_KEY_ID", key)
            patch.setenv(f"{name}_SECRET_ACCESS_KEY", secret)
        yield


@pytest.fixture(scope="module", params=["s3", "folder"])
def shop(request: pytest.FixtureRequest, server: S3Server) -> Iterator[Shop]:
    with make_host() as host:
        yield asyncio.run(open_shop(host, server if request.param == "s3" else None))


@pytest.fixture
def fresh(host: Host) -> Shop:
    """A shop of one test, whose destination is a folder."""
    return asyncio.run(open_shop(host, None))


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A free name. No test leaves anything else beside it."""
    folder = tmp_path / "to"
    folder.mkdir()
    yield folder / "copy.db"
    assert {path.name for path in folder.iterdir()} <= {"copy.db"}


async def open_shop(host: Host, server: S3Server | None) -> Shop:
    url = server.url(BUCKET, f"shop/{uuid.uuid4().hex}") if server else f"file://{host.folder}/replicas/orders"
    destination = {"kind": "s3", "uri": url, **({"authRef": "env://SHOP_*"} if server else {})}
    host.start()
    make_database(host.database(), rows=20)
    async with host.client() as client:
        await client.upsert_stream(host.stream(destination=destination))
        points = [await write(host), await write(host)]
        await client.replay("orders", points[0].at, key="k", method=ReplayMethod.RESEED)
        while (await client.get_replay("orders", "k")).state is ReplayState.RUNNING:
            await asyncio.sleep(0.05)
        points.append(await write(host))
    return Shop(host, url, ("--auth-ref", "env://SHOP_*") if server else (), points)


async def write(host: Host) -> Point:
    await asyncio.sleep(1.1)  # so that no two points are of one upload, or of one second
    add_rows(host.database(), 10)
    async with host.client() as client:
        at = (await caught_up(client)).last_checkpoint
    assert at is not None
    return Point(at, await content_hash(host.database()))


def hash_of(path: Path) -> str:
    """The content of a database, read elsewhere: SQLite makes files beside what it opens."""
    with TemporaryDirectory() as folder:
        return asyncio.run(content_hash(Path(shutil.copy(path, folder))))


def lose(host: Host) -> None:
    """Kill the agent and remove all that it has on its host."""
    host.end(signal.SIGKILL)
    wait_until(lambda: not host.litestreams(), what="no litestream left")
    shutil.rmtree(host.state)
    for path in host.folder.glob("*orders.db*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# --- what is restored ------------------------------------------------------------------------------------------------


def test_the_newest_point_is_restored(shop: Shop, target: Path) -> None:
    code, out, err = shop.restore(target, "--yes")
    last = shop.points[-1]
    point = f"{last.lsn} ({last.time})"
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"Restore of {shop.url}, as of {point}."
    assert lines[1].startswith("Restorable is what lies between 0000000000000001 (20")
    assert lines[1].endswith(f" and {point}.")
    assert lines[2].startswith("It reads ")
    assert lines[2].endswith(f"B, and writes the database to {target} on this host.")
    assert lines[3:] == [f"done: the database as of {point} is at {target}", "integrity check: ok"]
    assert hash_of(target) == last.content
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_position_and_a_time_are_exact_in_each_generation(shop: Shop, target: Path, number: int) -> None:
    point = shop.points[number]
    for option, value in (("--lsn", point.lsn), ("--time", point.time)):
        code, out, err = shop.restore(target, option, value, "--yes")
        assert (code, err) == (0, "")
        assert out.startswith(f"Restore of {shop.url}, as of {point.lsn} ({point.time}).\nRestorable")
        assert hash_of(target) == point.content
        target.unlink()


def test_a_time_between_two_points_gives_the_first_one(shop: Shop, target: Path) -> None:
    first, second = shop.points[:2]
    assert second.at.wall is not None
    between = format_time(second.at.wall - timedelta(milliseconds=1))
    code, out, _ = shop.restore(target, "--time", between, "--plan")
    assert code == 0
    assert f"That is the last transaction before {between}, which was asked for." in out
    assert first.lsn <= out.split("as of ")[1][:16] < second.lsn
    assert not target.exists()


def test_it_restores_by_url_when_the_host_is_lost(fresh: Shop, target: Path) -> None:
    lose(fresh.host)
    assert fresh.restore(target, "--yes")[0] == 0
    assert hash_of(target) == fresh.points[-1].content
    target.unlink()
    assert fresh.restore(target, "--lsn", fresh.points[0].lsn, "--yes")[0] == 0
    assert hash_of(target) == fresh.points[0].content

    code, _, err = call("restore", "orders", "--to", f"{target}2", "--address", fresh.host.address, "--yes")
    assert code == 1
    assert "[RPL-AGENT-DOWN]" in err
    assert "or give the stream's destination.uri, which needs no agent: replicator restore s3://…" in err


def test_a_name_takes_destination_and_reference_from_the_agent(shop: Shop, target: Path) -> None:
    address = ("--address", shop.host.address)
    code, out, err = call("restore", "orders", "--to", str(target), "--yes", *address)
    assert (code, err) == (0, "")
    assert out.startswith(f"Restore of orders, as of {shop.points[-1].lsn}")
    assert hash_of(target) == shop.points[-1].content
    code, _, err = call("restore", "nothing", "--to", f"{target}2", "--yes", *address)
    assert code == 1
    assert "[RPL-STREAM-NOTFOUND]" in err


def test_a_key_that_may_list_and_read_is_enough(shop: Shop, target: Path) -> None:
    code, out, err = call("restore", shop.url, "--to", str(target), "--auth-ref", "env://READER_*", "--yes")
    assert (code, err) == (0, "")
    assert out.endswith("integrity check: ok\n")
    assert hash_of(target) == shop.points[-1].content


def test_it_works_while_the_agent_writes_and_writes_nothing_there(fresh: Shop, target: Path) -> None:
    replica = Path(fresh.url.removeprefix("file://"))
    before = {path: path.stat().st_mtime_ns for path in replica.rglob("*.ltx")}
    for _ in range(3):
        add_rows(fresh.host.database(), 50)
        assert fresh.restore(target, "--yes")[0] == 0
        hash_of(target)  # raises for what is no whole database
        target.unlink()
    after = {path: path.stat().st_mtime_ns for path in replica.rglob("*.ltx")}
    assert {path: after[path] for path in before if path in after} == {
        path: then for path, then in before.items() if path in after
    }
    assert {path.suffix for path in replica.rglob("*") if path.is_file()} <= {".ltx", ".json", ".tmp"}


# --- the question ----------------------------------------------------------------------------------------------------


def test_without_a_terminal_it_does_not_ask(shop: Shop, target: Path) -> None:
    code, out, err = shop.restore(target)
    assert (code, out) == (2, "")
    assert "there is no terminal to ask on" in err


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_on_a_terminal_it_asks(shop: Shop, target: Path, answer: str, code: int) -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [COMMAND, "restore", shop.url, *shop.auth, "--to", str(target)],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        os.write(ours, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Do it? [y/N]:" in out
    assert process.returncode == code
    assert target.exists() == (answer == "y")
    assert ("Nothing was done." in out) == (answer == "n")


def test_a_time_and_a_position_exclude_each_other(target: Path) -> None:
    at = ("--lsn", f"{1:016x}", "--time", "2026-01-31T12:00:00Z")
    code, out, err = call("restore", "file:///nowhere/there", "--to", str(target), *at, "--yes")
    assert (code, out) == (2, "")
    assert "by one of them" in " ".join(err.split())


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_target_that_exists_is_refused_and_untouched(shop: Shop, tmp_path: Path) -> None:
    taken, link = tmp_path / "taken.db", tmp_path / "link.db"
    taken.write_text("somebody's")
    link.symlink_to(tmp_path / "gone.db")
    (tmp_path / "half.db-wal").write_text("somebody's")
    for name, text in (
        ("taken.db", "exists, and nothing is written over"),
        ("link.db", "exists, and nothing is written over"),
        ("half.db", "half.db-wal exists, and SQLite would read it into the copy"),
        ("half.db-journal", "SQLite takes a file of this name for a part of"),
    ):
        code, out, err = shop.restore(tmp_path / name, "--yes")
        assert (code, out) == (1, "")
        assert f"error: --to: {tmp_path}" in err or "error: --to: SQLite takes" in err
        assert text in err
        assert "[RPL-REPLAY-REFUSED]" in err
    assert taken.read_text() == "somebody's"
    assert link.is_symlink()
    assert not link.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"taken.db", "link.db", "half.db-wal"}


def test_a_folder_that_is_missing_is_refused(shop: Shop, tmp_path: Path) -> None:
    code, _, err = shop.restore(tmp_path / "nowhere" / "copy.db", "--yes")
    assert code == 1
    assert "[RPL-SOURCE-MISSING]" in err


def test_a_relative_target_is_in_the_current_folder(shop: Shop, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(target.parent)
    assert shop.restore(Path(target.name), "--yes")[0] == 0
    assert hash_of(target) == shop.points[-1].content


def test_what_is_not_retained_is_refused_with_the_nearest_points(shop: Shop, target: Path) -> None:
    last = shop.points[-1]
    for option, value, near in (
        ("--lsn", "r9/0000000000000001", f"{last.lsn} ({last.time})"),
        ("--lsn", "0000000000ffffff", f"r2/{1:016x} ("),
        ("--time", "2020-01-01T00:00:00Z", f"{1:016x} ("),
    ):
        code, out, err = shop.restore(target, option, value, "--yes")
        assert (code, out) == (1, "")
        assert f"error: {value} is not retained; the nearest points are " in err
        assert near in err
        assert err.endswith(" [RPL-REPLAY-RETENTION]\n  → restore one of them, by --lsn or --time\n")


def test_a_wrong_key_a_missing_variable_and_a_missing_bucket(server: S3Server, target: Path) -> None:
    url, to = server.url(BUCKET, "shop/nothing"), ("--to", str(target), "--yes")
    for reference in ("env://WRONG_*", "env://STRANGER_*"):
        code, out, err = call("restore", url, *to, "--auth-ref", reference)
        assert (code, out) == (1, "")
        assert "error: --auth-ref: " in err
        assert "[RPL-DEST-DENIED]" in err
        assert f"→ check the key pair that {reference} names here" in err
        assert "another-secret-value" not in err
        assert server.stranger.secret_access_key not in err
    code, _, err = call("restore", url, *to, "--auth-ref", "env://NOBODY_*")
    assert code == 1
    assert "[RPL-AUTH-NOTFOUND]" in err
    assert "set NOBODY_ACCESS_KEY_ID and NOBODY_SECRET_ACCESS_KEY in the environment of this command on " in err
    code, _, err = call("restore", server.url("nowhere", "shop"), *to, "--auth-ref", "env://SHOP_*")
    assert code == 1
    assert "there is no bucket nowhere [RPL-DEST-MISSING]" in err
    assert SECRET not in err


def test_an_empty_prefix_has_nothing_to_restore(server: S3Server, target: Path) -> None:
    for url in (server.url(BUCKET, "shop/empty"), f"file://{target.parent.parent}/empty"):
        code, out, err = call("restore", url, "--to", str(target), "--auth-ref", "env://SHOP_*", "--yes")
        assert (code, out) == (1, "")
        assert "error: URL: nothing to restore at " in err
        assert "no replica is there [RPL-DEST-MISSING]" in err


def test_an_invalid_url_is_refused(target: Path) -> None:
    code, _, err = call("restore", "s3://lab/shop?key=secret", "--to", str(target), "--yes")
    assert code == 1
    assert "error: URL: unknown parameters of an S3 destination: key" in err
    assert "secret" not in err


# --- what goes wrong -------------------------------------------------------------------------------------------------


def files_of(shop: Shop, generation: str = "r2") -> list[Path]:
    folder = Path(shop.url.removeprefix("file://")) / generation / "ltx"
    return sorted(folder.rglob("*.ltx"))


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_object_is_an_error_and_no_database(fresh: Shop, target: Path, damage: str) -> None:
    lose(fresh.host)
    for path in files_of(fresh):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    code, out, err = fresh.restore(target, "--yes")
    assert code == 1
    assert "done" not in out
    assert "error: URL: litestream says: decode" in err
    assert "[RPL-ENGINE-REFUSED]" in err
    assert "an object there is damaged or missing" in err
    assert not target.exists()
    assert fresh.restore(target, "--lsn", fresh.points[1].lsn, "--yes")[0] == 0
    assert hash_of(target) == fresh.points[1].content


def test_what_comes_after_a_gap_is_said_to_be_out_of_reach(fresh: Shop, target: Path) -> None:
    lose(fresh.host)
    shutil.rmtree(Path(fresh.url.removeprefix("file://")) / "r2" / "ltx" / "9", ignore_errors=True)
    single = [path for path in files_of(fresh) if path.parent.name == "0"]
    for path in files_of(fresh):
        if path.parent.name not in "0":
            path.unlink()
    assert len(single) > 1
    single[-2].unlink()
    code, out, _ = fresh.restore(target, "--plan")
    assert code == 0
    assert f"Transactions up to {fresh.points[-1].lsn} are there, but some before them are missing" in out


def test_a_database_with_faults_is_kept_and_told(shop: Shop, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def faults(path: Path) -> list[str]:
        return ["row 1 missing from index item_value"]

    monkeypatch.setattr("replicator.backends.sqlite.restore.integrity_faults", faults)
    code, out, _ = shop.restore(target, "--yes")
    assert code == 1
    assert out.splitlines()[-1] == "integrity check: row 1 missing from index item_value"
    assert target.exists()


@pytest.fixture
def large(host: Host) -> str:
    """The URL of a replica whose restore takes a while."""
    host.start()
    database = make_database(host.database(), rows=1)

    async def fill() -> None:
        import sqlite3

        async with host.client() as client:
            await client.upsert_stream(host.stream())
            with closing(sqlite3.connect(database)) as writer:
                for _ in range(12):
                    writer.execute(
                        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
                        "INSERT INTO item (value) SELECT hex(randomblob(400)) FROM n"
                    )
                    writer.commit()
            await caught_up(client, within=60)

    asyncio.run(fill())
    host.end()
    return f"file://{host.folder}/replicas/orders"


@pytest.mark.parametrize(
    ("number", "at_sigint"),
    [
        (signal.SIGINT, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGTERM, signal.SIG_IGN),
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGKILL, signal.SIG_DFL),
    ],
)
def test_an_interrupted_restore_leaves_nothing(
    large: str, target: Path, number: signal.Signals, at_sigint: signal.Handlers
) -> None:
    """A shell without job control starts what it runs in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, at_sigint)
    try:
        process = subprocess.Popen(
            [COMMAND, "restore", large, "--to", str(target), "--yes"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: any(target.parent.glob(".replay-*/copy.db*")), what="it writes", timeout=30)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert "done" not in out
    assert not target.exists()
    if number is not signal.SIGKILL:
        assert process.returncode == 130
        assert out.endswith("Nothing was written.\n")
        assert list(target.parent.iterdir()) == []
    else:  # nobody could clean up, which the next run does
        assert list(target.parent.iterdir()) != []
        assert command("restore", large, "--to", str(target), "--yes").returncode == 0
        assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_of_two_restores_to_one_target_one_wins(large: str, target: Path) -> None:
    both = [
        subprocess.Popen(
            [COMMAND, "restore", large, "--to", str(target), "--yes"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    [(_, lost)] = [said for process, said in zip(both, ended, strict=True) if process.returncode]
    assert "and nothing is written over [RPL-REPLAY-REFUSED]" in lost
    again = target.parent.parent / "again.db"
    assert call("restore", large, "--to", str(again), "--yes")[0] == 0
    assert hash_of(target) == hash_of(again)


@pytest.mark.parametrize("folder", [".orders.db-litestream", "state/registry/copies"])
def test_a_folder_that_an_engine_or_an_agent_removes_is_no_target(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True)
    if folder.startswith("state"):
        (tmp_path / "state" / "registry" / "agent-id").touch()
    code, _, err = call("restore", f"file://{tmp_path}/replica", "--to", str(tmp_path / folder / "x.db"), "--yes")
    assert code == 1
    assert "is a folder of litestream" in err if folder.startswith(".") else "is the state folder of an agent" in err
