"""The driver on the real engine: what a change does to the data, and what it refuses. Only the destination counts."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine, find_binary
from replicator.errors import DestinationInUse, InvalidStream, SourceDenied, SourceFormat, SourceLocked, SourceMissing
from replicator.model import Owner, Stream, StreamState

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, replica_url
from tests.waiting import until

pytestmark = pytest.mark.engine


@dataclass
class Shop:
    """An agent, a database and folders for replicas."""

    agent: Agent
    folder: Path
    command: CommandLine
    copies: int = 0

    @property
    def database(self) -> Path:
        return self.folder / "shop.db"

    def sell(self, count: int, database: Path | None = None) -> None:
        """Commit `count` orders, and close: the last connection takes the WAL with it."""
        with closing(sqlite3.connect(database or self.database, isolation_level=None)) as shop:
            shop.execute("PRAGMA journal_mode = wal")
            shop.execute("CREATE TABLE IF NOT EXISTS orders (item TEXT)")
            for _ in range(count):
                shop.execute("INSERT INTO orders VALUES (hex(randomblob(20)))")

    def stream(self, place: str = "a", **changes: Any) -> Stream:
        return declare("orders", self.database, f"file://{self.folder}/replicas/{place}", **changes)

    async def upsert(self, place: str = "a", **changes: Any) -> None:
        """Declare it as its owner, whatever has happened to it."""
        owner = {"urn": URN, "claim": True}
        await self.agent.driver.upsert_stream(self.stream(place, **{"owner": owner, **changes}))

    async def restored(self, url: str | None = None) -> str:
        """A hash of what the destination holds."""
        self.copies += 1
        copy = self.folder / f"copy-{self.copies}.db"
        await self.command.restore(url or await replica_url(self.agent.driver, "orders"), copy)
        return await content_hash(copy)

    def uploads(self, place: str) -> list[str]:
        """The files of a replica."""
        folder = self.folder / "replicas" / place
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    async def is_replicated(self) -> bool:
        await caught_up(self.agent.driver, "orders")
        return await self.restored() == await content_hash(self.database)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    with tempfile.TemporaryDirectory(prefix="t") as name:
        folder = Path(name)
        binary = (await find_binary()).path
        made = Shop(Agent(binary, folder / "agent", {}), folder, CommandLine(binary, {}))
        made.sell(50)
        await made.agent.start()
        yield made
        await made.agent.stop()


async def test_the_place_of_another_stream_is_told_once(shop: Shop) -> None:
    await shop.upsert("a")
    assert await shop.is_replicated()
    shop.sell(3, other := shop.folder / "other.db")
    (finding,) = await shop.agent.driver.preflight(declare("bills", other, f"file://{shop.folder}/replicas/a"))
    assert (finding.code, finding.property) == ("RPL-DEST-INUSE", "destination.uri")
    assert finding.message.startswith("stream 'orders' writes to file://")


async def test_another_destination_gets_a_whole_copy_and_the_old_one_stays(shop: Shop) -> None:
    await shop.upsert()
    assert await shop.is_replicated()
    old, before = await replica_url(shop.agent.driver, "orders"), await content_hash(shop.database)
    await shop.upsert("b")
    shop.sell(20)
    assert await shop.is_replicated()
    assert await shop.restored(old) == before


async def test_another_source_is_copied_whole(shop: Shop) -> None:
    await shop.upsert()
    assert await shop.is_replicated()
    other = shop.folder / "other.db"
    shop.sell(7, other)
    await shop.upsert(source={"kind": "sqlite", "uri": f"sqlite://{other}"})
    await caught_up(shop.agent.driver, "orders")
    assert await shop.restored() == await content_hash(other)
    assert not list(shop.folder.glob(".shop.db*"))


@pytest.mark.parametrize(
    "changes", [{"checkpointInterval": "500ms"}, {"options": {"busy-timeout": "3s"}}], ids=["interval", "options"]
)
async def test_a_restart_loses_nothing(shop: Shop, changes: dict[str, Any]) -> None:
    await shop.upsert()
    shop.sell(20)
    await shop.upsert(**changes)
    shop.sell(20)
    assert await shop.is_replicated()
    await shop.upsert()
    shop.sell(20)
    assert await shop.is_replicated()


SPELLINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"destination": "file://{folder}/replicas/a%2Db/"}),
    ({}, {"source": "sqlite://{folder}//shop%2Edb"}),
    ({"checkpointInterval": "1500ms"}, {"checkpointInterval": "1.5s", "destination": "file://{folder}/replicas/a-b/"}),
    ({"options": {"busy-timeout": "3s"}}, {"options": {"busy-timeout": "3000ms"}}),
    ({"options": {"truncate-page-n": 500000}}, {"options": {"truncate-page-n": "500000"}}),
]


@pytest.mark.parametrize(("first", "second"), SPELLINGS)
async def test_another_spelling_leaves_process_and_replica_alone(
    shop: Shop, first: dict[str, Any], second: dict[str, Any]
) -> None:
    def written(changes: dict[str, Any]) -> dict[str, Any]:
        ends = {"source": "sqlite", "destination": "s3"}
        return changes | {
            end: {"kind": kind, "uri": changes[end].format(folder=shop.folder)}
            for end, kind in ends.items()
            if end in changes
        }

    await shop.upsert("a-b", **written(first))
    await caught_up(shop.agent.driver, "orders")
    pids, before = shop.agent.pids, shop.uploads("a-b")
    await shop.upsert("a-b", **written(second))
    assert (shop.agent.pids, shop.uploads("a-b")) == (pids, before)
    shop.sell(5)
    assert await shop.is_replicated()
    await shop.upsert("a-b", **written(first))
    assert shop.agent.pids == pids
    assert [path.name for path in (shop.folder / "replicas").iterdir()] == ["a-b"]
    snapshots = [path for path in shop.uploads("a-b") if path.startswith("ltx/9/")]
    assert len(snapshots) <= 1


async def test_a_record_with_options_as_text_is_known_again(shop: Shop) -> None:
    options = {"busy-timeout": "3000ms", "truncate-page-n": "500000"}
    await shop.upsert(options={"busy-timeout": "3s", "truncate-page-n": 500000})
    record = shop.agent.store.get("orders")
    assert record is not None
    await shop.agent.store.put(
        record.model_copy(update={"stream": record.stream.model_copy(update={"options": options})})
    )
    pids = shop.agent.pids
    await shop.upsert(options=options)
    assert shop.agent.pids == pids
    stored = shop.agent.store.get("orders")
    assert stored is not None
    assert stored.stream.options == {"busy-timeout": "3s", "truncate-page-n": 500000}
    assert await shop.is_replicated()


async def test_a_new_agent_takes_up_what_the_old_one_left(shop: Shop) -> None:
    await shop.upsert()
    await shop.agent.stop()
    shop.sell(30)
    await shop.agent.start()
    assert await shop.is_replicated()


async def test_a_swapped_file_fails_until_an_update_copies_it_anew(shop: Shop) -> None:
    await shop.upsert()
    assert await shop.is_replicated()
    other = shop.folder / "restored.db"
    shop.sell(9, other)
    for side in ("-wal", "-shm"):
        shop.database.with_name(f"shop.db{side}").unlink(missing_ok=True)
    other.rename(shop.database)

    async def noticed() -> bool:
        status = await shop.agent.driver.get_status("orders")
        return status.state is StreamState.FAILED and "another file took the place of" in str(status.last_error)

    await until(noticed, what="the other file is noticed")
    await shop.upsert()
    status = await caught_up(shop.agent.driver, "orders")
    assert status.last_checkpoint is not None
    assert str(status.last_checkpoint.lsn).startswith("r2/")
    assert await shop.is_replicated()


async def test_its_owner_comes_back_to_a_replica_and_nobody_else_does(shop: Shop) -> None:
    await shop.upsert()
    assert await shop.is_replicated()
    await shop.agent.driver.delete_stream("orders")
    assert not list(shop.folder.glob(".shop.db*"))
    with pytest.raises(DestinationInUse, match="of the removed stream 'orders'"):
        await shop.upsert(owner={"urn": "urn:somebody::else"})
    shop.sell(20)
    await shop.upsert()
    assert await shop.is_replicated()


async def test_purge_removes_the_replica(shop: Shop) -> None:
    await shop.upsert(purgeDestination=True)
    assert await shop.is_replicated()
    await shop.agent.driver.delete_stream("orders", owner=Owner(urn=shop.stream().owner.urn))  # type: ignore[union-attr]
    assert not (shop.folder / "replicas" / "a").exists()
    assert await shop.agent.driver.list_streams() == []


async def test_a_purge_keeps_and_names_what_the_stream_never_wrote(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    await shop.upsert(purgeDestination=True)
    assert await shop.is_replicated()
    place = shop.folder / "replicas" / "a"
    (place / "theirs.txt").write_text("theirs")
    (place / "ltx" / "0" / "notes.txt").write_text("theirs")
    await shop.agent.driver.delete_stream("orders")
    left = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    assert left == ["ltx/0/notes.txt", "theirs.txt"]
    assert f"2 objects of others stay at file://{place}: ltx/0/notes.txt, theirs.txt" in caplog.text


async def test_a_prefix_in_use_is_refused(shop: Shop) -> None:
    place = shop.folder / "replicas" / "a"
    place.mkdir(parents=True)
    (place / "somebody.txt").write_text("theirs")
    with pytest.raises(DestinationInUse, match="holds 1 object that"):
        await shop.upsert()
    assert await shop.agent.driver.list_streams() == []
    assert [path.name for path in place.iterdir()] == ["somebody.txt"]


async def test_a_missing_file_and_one_that_is_no_database_are_refused(shop: Shop) -> None:
    text = shop.folder / "notes.txt"
    text.write_text("this is not a database, whatever its name says" * 10)
    for path, error in ((shop.folder / "nothing.db", SourceMissing), (text, SourceFormat)):
        source = {"kind": "sqlite", "uri": f"sqlite://{path}"}
        found = await shop.agent.driver.preflight(shop.stream(source=source))
        assert [item.code for item in found] == [error.code]
        with pytest.raises(error):
            await shop.upsert(source=source)
    assert await shop.agent.driver.list_streams() == []


async def test_a_preview_of_another_name_and_destination_does_not_count_the_stream_that_is_replaced(shop: Shop) -> None:
    token = "0123456789abcdef" * 2
    await shop.upsert(owner={"urn": URN, "issue": token})
    renamed = declare("bills", shop.database, f"file://{shop.folder}/replicas/b", owner={"urn": URN, "token": token})
    assert await shop.agent.driver.preflight(renamed) == []
    stranger = renamed.model_copy(update={"owner": Owner(urn=URN, token="another")})
    (finding,) = await shop.agent.driver.preflight(stranger)
    assert (finding.code, finding.property) == (InvalidStream.code, "source.uri")
    with pytest.raises(InvalidStream, match="replicates this database already"):
        await shop.agent.driver.upsert_stream(renamed)


async def test_one_database_has_one_stream(shop: Shop) -> None:
    await shop.upsert()
    second = declare("again", shop.database, f"file://{shop.folder}/replicas/b")
    with pytest.raises(InvalidStream, match="replicates this database already"):
        await shop.agent.driver.upsert_stream(second)


async def test_mode_snapshot_copies_once_and_again_on_resume(shop: Shop) -> None:
    await shop.upsert(mode="snapshot")
    first = await content_hash(shop.database)
    assert (await shop.agent.driver.get_status("orders")).state is StreamState.PAUSED
    shop.sell(10)
    assert await shop.restored() == first
    await shop.agent.driver.resume("orders")
    assert await shop.restored() == await content_hash(shop.database)


async def test_another_mode_copies_once_more_and_goes_on(shop: Shop) -> None:
    await shop.upsert(mode="snapshot")
    shop.sell(10)
    await shop.upsert()
    shop.sell(10)
    assert await shop.is_replicated()
    before = await content_hash(shop.database)
    await shop.upsert(mode="snapshot")
    shop.sell(10)
    assert (await shop.agent.driver.get_status("orders")).state is StreamState.PAUSED
    assert await shop.restored() == before


async def test_another_name_begins_with_a_new_snapshot_and_keeps_the_replica(shop: Shop) -> None:
    await shop.upsert()
    assert await shop.is_replicated()
    owner, url = shop.stream().owner, await replica_url(shop.agent.driver, "orders")
    before = await shop.command.ltx(url)
    await shop.agent.driver.delete_stream("orders", owner=owner)
    shop.sell(10)
    await shop.agent.driver.upsert_stream(shop.stream().model_copy(update={"name": "bills"}))
    shop.sell(10)
    await caught_up(shop.agent.driver, "bills")
    assert await shop.restored(url) == await content_hash(shop.database)
    largest = max(file.size for file in before)
    new = [file for file in await shop.command.ltx(url) if file not in before]
    assert any(file.size >= largest for file in new)  # pages of the whole database


async def test_a_locked_database_is_refused_and_nothing_is_left(shop: Shop) -> None:
    other = shop.folder / "locked.db"
    with closing(sqlite3.connect(other, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE orders (item TEXT)")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceLocked) as caught:
            await shop.upsert(source={"kind": "sqlite", "uri": f"sqlite://{other}"})
        holder.execute("ROLLBACK")
    assert caught.value.property == "source.uri"
    assert caught.value.fix == "end the transaction that holds the database"
    assert await shop.agent.driver.list_streams() == []
    assert not list(shop.folder.glob(".locked.db*"))
    await shop.upsert(source={"kind": "sqlite", "uri": f"sqlite://{other}"})
    await caught_up(shop.agent.driver, "orders")


async def test_a_database_that_may_only_be_read_is_refused(shop: Shop) -> None:
    """SQLite itself writes to no file whose write version it does not know, whoever runs it."""
    shop.sell(1)
    with shop.database.open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")
    with pytest.raises(SourceDenied) as caught:
        await shop.upsert()
    assert caught.value.property == "source.uri"
    assert await shop.agent.driver.list_streams() == []
    assert not list(shop.folder.glob(".shop.db*"))


@pytest.mark.parametrize(("interval", "least", "most"), [(None, 5, 10), ("3s", 2, 4)])
async def test_uploads_come_once_an_interval(shop: Shop, interval: str | None, least: int, most: int) -> None:
    """Eight seconds of a writer that never pauses."""
    await shop.upsert(**({"checkpointInterval": interval} if interval else {}))
    folder = shop.folder / "replicas" / "a" / "ltx" / "0"
    before = set(folder.iterdir())
    end = asyncio.get_running_loop().time() + 8
    while asyncio.get_running_loop().time() < end:
        await asyncio.to_thread(shop.sell, 5)
        await asyncio.sleep(0.1)
    # litestream gives a file the time of its transactions; when it came, only the inode tells
    uploads = {path.stat().st_ctime_ns // 500_000_000 for path in set(folder.iterdir()) - before}
    assert least <= len(uploads) <= most


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "a link to a database": (
        {"source": "sqlite://{folder}/link.db"},
        "error: source.uri: {folder}/link.db: it is a symbolic link, beside which litestream finds no WAL "
        "[RPL-STREAM-INVALID]; write sqlite://{folder}/shop.db",
    ),
    "a link to nothing": (
        {"source": "sqlite://{folder}/dangling.db"},
        "error: source.uri: {folder}/dangling.db: there is no such file [RPL-SOURCE-MISSING]; check the path; it is a "
        "path on the agent's host",
    ),
    "text": (
        {"source": "sqlite://{folder}/text.db"},
        "error: source.uri: {folder}/text.db: it is not an SQLite database [RPL-SOURCE-FORMAT]; point the stream at an "
        "SQLite file",
    ),
    "a virtual-hosted bucket": (
        {"destination": "s3://shop.s3.amazonaws.com/orders"},
        "error: destination.uri: litestream reads this host as a bucket and its store; write s3://shop/orders "
        "[RPL-STREAM-INVALID]; None",
    ),
    "one value for a key pair": (
        {"destination": "s3://shop/orders", "authRef": "env://SHOP_KEY"},
        "error: destination.authRef: env://SHOP_KEY names one value, but accessKeyId and secretAccessKey are needed "
        "[RPL-AUTH-NOTFOUND]; name a bundle that holds all of them, as in env://SHOP_* or file:///run/secrets/s3.json",
    ),
    "half a key pair": (
        {"destination": "s3://shop/orders", "authRef": "env://HALF_*"},
        "error: destination.authRef: the environment variable HALF_ACCESS_KEY_ID is not set, or holds no UTF-8 text; "
        "the environment variable HALF_SECRET_ACCESS_KEY is not set, or holds no UTF-8 text [RPL-AUTH-NOTFOUND]; "
        f"set HALF_ACCESS_KEY_ID and HALF_SECRET_ACCESS_KEY in the environment of the agent on {socket.gethostname()}, "
        "or correct the reference. A new variable needs a restart of the agent: systemctl restart, or replicator agent "
        "stop and replicator agent start",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_preview_says_one_cause_once(shop: Shop, case: str) -> None:
    (shop.folder / "link.db").symlink_to(shop.database)
    (shop.folder / "dangling.db").symlink_to(shop.folder / "nothing.db")
    (shop.folder / "text.db").write_text("not a database " * 100)
    uris, expected = WRONG[case]
    given = shop.stream()
    source, destination = given.source.uri, given.destination.uri
    changed = shop.stream(
        source={"kind": "sqlite", "uri": uris.get("source", source).format(folder=shop.folder)},
        destination={"kind": "s3", "uri": uris.get("destination", destination), "authRef": uris.get("authRef")},
    )
    found = await shop.agent.driver.preflight(changed)
    assert [f"{item.severity.value}: {item.property}: {item.message} [{item.code}]; {item.fix}" for item in found] == [
        expected.format(folder=shop.folder)
    ]
