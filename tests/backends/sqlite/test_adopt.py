"""A database that a plain litestream has replicated is taken over: nothing is lost, neither after nor before it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import parse_replica
from replicator.errors import DestinationInUse, NotOurs
from replicator.model import Owner, Stream

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, restored_hash
from tests.backends.sqlite.conftest import TwoOwners
from tests.backends.sqlite.foreign import foreign_daemon
from tests.backends.sqlite.writer import Writer
from tests.engines import make_database

pytestmark = pytest.mark.engine

CONFIG = """
socket: {{enabled: true, path: {socket}}}
dbs:
  - path: {database}
    replica: {{url: "{url}"}}
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop.db", rows=20)


@pytest.fixture
def keys(s3: TwoOwners) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": s3.owner.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.owner.secret_access_key}


def configure(folder: Path, database: Path, url: str) -> tuple[Path, Path]:
    """The configuration of the other daemon, and its control socket."""
    config, socket = folder / "litestream.yml", folder / "other.sock"
    config.write_text(CONFIG.format(socket=socket, database=database, url=url))
    return config, socket


async def history(
    folder: Path, database: Path, url: str, keys: dict[str, str], writer: Writer, how: signal.Signals = signal.SIGTERM
) -> dict[int, str]:
    """What a plain daemon replicates for a while: the content at some of its transactions."""
    config, socket = configure(folder, database, url)
    points: dict[int, str] = {}
    async with foreign_daemon(config, socket, keys) as daemon:
        for _ in range(4):
            await writer("burst", 12)
            points[await daemon.upload(database)] = await content_hash(database)
        await writer("burst", 3)
        await daemon.end(how)
    return points


async def assert_whole(
    agent: Agent, command: CommandLine, database: Path, url: str, points: dict[int, str], output: Path
) -> None:
    """The same prefix gives the newest state, and each state from before the adoption."""
    await caught_up(agent.driver, "orders")
    assert await restored_hash(command, url, output) == await content_hash(database)
    for txid, expected in points.items():
        assert await restored_hash(command, url, output, txid=txid) == expected


@pytest.mark.parametrize(
    ("how", "meanwhile"),
    [
        (signal.SIGTERM, "nothing"),
        (signal.SIGTERM, "close"),
        (signal.SIGTERM, "restart"),
        (signal.SIGKILL, "writes"),
        (signal.SIGKILL, "truncate"),
    ],
)
async def test_nothing_is_lost(
    how: signal.Signals,
    meanwhile: str,
    agent: Agent,
    command_line: CommandLine,
    database: Path,
    short_folder: Path,
    tmp_path: Path,
    keys: dict[str, str],
) -> None:
    url = f"file://{tmp_path}/replica"
    stream = declare("orders", database, url)
    async with Writer(database) as writer:
        points = await history(short_folder, database, url, keys, writer, how)
        if meanwhile != "nothing":
            await writer("burst", 10)
        if meanwhile == "close":
            await writer("close")
        elif meanwhile in ("restart", "truncate"):
            await writer("checkpoint", meanwhile)
        assert not (await agent.driver.adopt_stream(stream)).known
        await assert_whole(agent, command_line, database, url, points, tmp_path / "copy.db")
        await writer("burst", 10)
        await assert_whole(agent, command_line, database, url, points, tmp_path / "copy.db")


async def test_in_a_bucket_and_what_an_owner_may_do_then(
    agent: Agent,
    command_line: CommandLine,
    database: Path,
    place: str,
    short_folder: Path,
    tmp_path: Path,
    keys: dict[str, str],
) -> None:
    url = parse_replica(place).url_for_engine()
    stream = declare("orders", database, place)
    async with Writer(database) as writer:
        points = await history(short_folder, database, url, keys, writer)
        with pytest.raises(DestinationInUse, match="that no stream of this agent wrote"):  # the way without adoption
            await agent.driver.upsert_stream(stream)
        planned = await agent.driver.adopt_stream(stream, dry_run=True)
        assert planned.objects and planned.newest and planned.newest.wall
        assert int(planned.newest.lsn or "", 16) >= max(points)
        assert await agent.driver.list_streams() == []
        await writer("burst", 10)

        assert await agent.driver.adopt_stream(stream) == planned
        assert (await agent.driver.adopt_stream(stream)).known
        await assert_whole(agent, command_line, database, url, points, tmp_path / "copy.db")
        with pytest.raises(NotOurs):
            await agent.driver.upsert_stream(stream)
        claimed = stream.model_copy(update={"owner": Owner(urn=URN, claim=True)})
        await agent.driver.upsert_stream(claimed)
        await writer("burst", 10)
        await assert_whole(agent, command_line, database, url, points, tmp_path / "copy.db")


async def test_an_adoption_that_fails_can_be_done_again(
    agent: Agent,
    command_line: CommandLine,
    database: Path,
    place: str,
    short_folder: Path,
    tmp_path: Path,
    keys: dict[str, str],
) -> None:
    url = parse_replica(place).url_for_engine()
    stream = declare("orders", database, place)
    async with Writer(database) as writer:
        points = await history(short_folder, database, url, keys, writer)
        (side,) = tmp_path.glob(".shop.db-*")
        moved = side.rename(tmp_path / "side")
        side.write_text("in the way")  # litestream cannot begin
        with pytest.raises(Exception, match="RPL-"):
            await agent.driver.adopt_stream(stream)
        assert await agent.driver.list_streams() == []
        side.unlink()
        moved.rename(side)
        stranger = stream.model_copy(update={"owner": Owner(urn=URN)})
        with pytest.raises(DestinationInUse, match="which no resource managed"):  # it is still no place for a resource
            await agent.driver.upsert_stream(stranger)
        await agent.driver.adopt_stream(stream)
        await assert_whole(agent, command_line, database, url, points, tmp_path / "copy.db")


async def test_it_is_refused_while_the_other_daemon_runs(
    agent: Agent, database: Path, short_folder: Path, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/replica"
    stream = declare("orders", database, url)
    config, socket = configure(short_folder, database, url)
    async with foreign_daemon(config, socket, {}) as daemon:
        await daemon.upload(database)
        planned = await agent.driver.adopt_stream(stream, dry_run=True)
        assert planned.objects
        held = rf"litestream still runs: process {daemon.process.pid} \(litestream\) holds {database}"
        with pytest.raises(DestinationInUse, match=held):
            await agent.driver.adopt_stream(stream)
        assert await agent.driver.list_streams() == []
        await daemon.end()
    await agent.driver.adopt_stream(stream)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (
            "generations/8a/snapshots/0.snapshot.lz4",
            "holds 1 objects, and none is a transaction file of litestream 0.5",
        ),
        ("r2/ltx/0/0000000000000001-0000000000000001.ltx", "was written by an agent, which has re-seeded it"),
    ],
)
async def test_what_no_litestream_of_this_series_left_is_refused(
    file: str, words: str, agent: Agent, database: Path, tmp_path: Path
) -> None:
    path = tmp_path / "replica" / file
    path.parent.mkdir(parents=True)
    path.write_text("theirs")
    stream: Stream = declare("orders", database, f"file://{tmp_path}/replica")
    for dry_run in (True, False):
        with pytest.raises(DestinationInUse, match=words):
            await agent.driver.adopt_stream(stream, dry_run=dry_run)
    assert [item for item in (tmp_path / "replica").rglob("*") if item.is_file()] == [path]


async def test_a_name_or_a_prefix_that_is_taken_is_refused(agent: Agent, database: Path, tmp_path: Path) -> None:
    other = make_database(tmp_path / "other.db")
    await agent.driver.upsert_stream(declare("orders", other, f"file://{tmp_path}/a"))
    with pytest.raises(DestinationInUse, match="a stream of this name"):
        await agent.driver.adopt_stream(declare("orders", database, f"file://{tmp_path}/b"))
    with pytest.raises(DestinationInUse, match="stream 'orders' writes to"):
        await agent.driver.adopt_stream(declare("bills", database, f"file://{tmp_path}/a"))
