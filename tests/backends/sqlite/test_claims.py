"""Claims at destinations: of two agents one writes to a place, at whatever moment they begin."""

from __future__ import annotations

import asyncio
import json
import shlex
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from replicator.backends.sqlite import driver, guards
from replicator.backends.sqlite.claims import Claims
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.handles import opened
from replicator.backends.sqlite.layout import CLAIM
from replicator.backends.sqlite.litestream import Binary, CommandLine
from replicator.backends.sqlite.objects import create_in_folder
from replicator.backends.sqlite.replica import S3Credentials, parse_replica
from replicator.errors import DestinationInUse, SourceLocked
from replicator.model import Owner, Stream, StreamState
from replicator.replicator import Severity

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, replica_url, restored_hash, state_is
from tests.backends.sqlite.claimer import Claimer
from tests.backends.sqlite.conftest import BUCKET, TwoOwners
from tests.backends.sqlite.writer import Writer
from tests.engines import add_rows, make_database
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

OTHER = Owner(urn="urn:pulumi:dev::other::replicator:index:Stream::bills")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop.db", rows=10)


@pytest.fixture
async def second(binary: Binary, environ: dict[str, str]) -> AsyncIterator[Agent]:
    """Another agent, with a registry of its own."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        running = Agent(binary.path, Path(folder), environ)
        await running.start()
        yield running
        await running.stop()


@pytest.fixture(params=["s3", "folder"])
def uri(request: pytest.FixtureRequest, place: str, tmp_path: Path) -> str:
    """An empty place of each kind."""
    return place if request.param == "s3" else f"file://{tmp_path}/replica"


async def claim_at(uri: str, credentials: S3Credentials) -> dict[str, str] | None:
    content = await parse_replica(uri).read_object(CLAIM, credentials)
    return None if content is None else json.loads(content)


def bills(uri: str, folder: Path) -> Stream:
    """A stream of another database to the same place."""
    path = folder / "bills.db"
    if not path.exists():
        make_database(path, rows=3)
    return declare("bills", path, uri, owner=OTHER)


async def test_an_object_is_created_once(uri: str, credentials: S3Credentials) -> None:
    place = parse_replica(uri)
    assert await place.read_object(CLAIM, credentials) is None
    assert await place.create_object(CLAIM, b"first", credentials)
    assert not await place.create_object(CLAIM, b"second", credentials)
    assert await place.read_object(CLAIM, credentials) == b"first"
    assert (await place.list_prefix(credentials)).objects == 0
    await place.write_object(CLAIM, b"third", credentials)
    assert await place.read_object(CLAIM, credentials) == b"third"
    await place.remove_object(CLAIM, credentials)
    await place.remove_object(CLAIM, credentials)
    assert await place.read_object(CLAIM, credentials) is None


async def test_another_agent_is_refused_as_long_as_the_replica_stays(
    agent: Agent, second: Agent, database: Path, uri: str, credentials: S3Credentials, command_line: CommandLine
) -> None:
    """Also while nothing is uploaded, and after the stream is removed; its own agent and owner come back."""
    stream, other = declare("orders", database, uri, desiredState="paused"), bills(uri, database.parent)
    await agent.driver.upsert_stream(stream)
    held = await claim_at(uri, credentials)
    assert held is not None and (held["stream"], held["owner"]) == ("orders", URN)
    assert held["agent"] == agent.store.agent_id != second.store.agent_id

    async def refused() -> None:
        words = f"is claimed by the agent {held['agent']} on host {held['host']}, for its stream 'orders'"
        with pytest.raises(DestinationInUse, match=words) as error:
            await second.driver.upsert_stream(other)
        assert f"replicator agent takeover {shlex.quote(uri)}" in str(error.value.fix)
        (found,) = await second.driver.preflight(other)
        assert (found.code, found.severity) == (DestinationInUse.code, Severity.ERROR)
        with pytest.raises(DestinationInUse, match=words):
            await second.driver.adopt_stream(other.model_copy(update={"owner": None}), dry_run=True)
        assert await second.driver.list_streams() == []
        assert not list((second.folder / "registry").rglob("*.json"))

    await refused()
    await agent.driver.upsert_stream(declare("orders", database, uri))
    await caught_up(agent.driver, "orders")
    assert await restored_hash(command_line, await replica_url(agent.driver, "orders"), database.with_name("c.db")) == (
        await content_hash(database)
    )
    await agent.driver.delete_stream("orders", owner=Owner(urn=URN))
    await refused()
    await agent.driver.upsert_stream(declare("orders", database, uri, purgeDestination=True))
    await agent.driver.delete_stream("orders", owner=Owner(urn=URN))
    assert await claim_at(uri, credentials) is None
    await second.driver.upsert_stream(other)
    await caught_up(second.driver, "bills")


async def test_a_create_that_is_undone_leaves_no_claim(
    agent: Agent, second: Agent, database: Path, uri: str, credentials: S3Credentials
) -> None:
    async with Writer(database) as writer:
        await writer("statement", "BEGIN EXCLUSIVE")
        with pytest.raises(SourceLocked):
            await agent.driver.upsert_stream(declare("orders", database, uri))
        assert await claim_at(uri, credentials) is None
        await writer("statement", "ROLLBACK")
    place = parse_replica(uri)
    if not (await place.list_prefix(credentials)).objects:
        await second.driver.upsert_stream(bills(uri, database.parent))


async def test_a_replica_of_before_is_claimed_when_the_agent_starts(
    agent: Agent, database: Path, uri: str, credentials: S3Credentials, tmp_path: Path
) -> None:
    await agent.driver.upsert_stream(declare("orders", database, uri))
    paused = declare("paused", make_database(tmp_path / "p.db"), f"file://{tmp_path}/p", desiredState="paused")
    await agent.driver.upsert_stream(paused)
    await caught_up(agent.driver, "orders")
    await agent.stop()
    for left in (uri, paused.destination.uri):
        await parse_replica(left).remove_object(CLAIM, credentials)
    await agent.start()
    for left in (uri, paused.destination.uri):
        assert await claim_at(left, credentials) is not None
    await caught_up(agent.driver, "orders")


async def test_a_stream_that_lost_its_claim_stops_and_goes_on_elsewhere_when_it_is_free(
    agent: Agent,
    second: Agent,
    database: Path,
    uri: str,
    credentials: S3Credentials,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A person deleted the claim, and another agent took the place."""
    monkeypatch.setattr(driver, "LOOK_EVERY", 0.5)
    monkeypatch.setattr(guards, "CLAIM_EVERY", 0.5)
    await agent.driver.upsert_stream(declare("orders", database, uri))
    await caught_up(agent.driver, "orders")
    place = parse_replica(uri)
    held = await claim_at(uri, credentials)
    assert held is not None
    await place.write_object(CLAIM, json.dumps({**held, "agent": second.store.agent_id}).encode(), credentials)
    status = await state_is(agent.driver, "orders", StreamState.FAILED)
    assert second.store.agent_id in str(status.last_error)
    await until(lambda: _let_go(agent), what="its process has let go")
    before = (await place.list_prefix(credentials)).objects
    add_rows(database, 5)
    await asyncio.sleep(1.5)
    assert (await place.list_prefix(credentials)).objects == before
    with pytest.raises(DestinationInUse):
        await agent.driver.resume("orders")
    await place.remove_object(CLAIM, credentials)
    status = await caught_up(agent.driver, "orders", timeout=60)
    assert status.last_checkpoint is not None and str(status.last_checkpoint.lsn).startswith("r2/")
    copy = database.with_name("copy.db")
    assert await restored_hash(command_line, await replica_url(agent.driver, "orders"), copy) == await content_hash(
        database
    )


async def _let_go(agent: Agent) -> bool:
    return not agent.pids


async def test_a_purge_leaves_what_another_agent_has_claimed(
    agent: Agent, second: Agent, database: Path, uri: str, credentials: S3Credentials
) -> None:
    await agent.driver.upsert_stream(declare("orders", database, uri, purgeDestination=True))
    await caught_up(agent.driver, "orders")
    place = parse_replica(uri)
    held = await claim_at(uri, credentials)
    assert held is not None
    await place.write_object(CLAIM, json.dumps({**held, "agent": second.store.agent_id}).encode(), credentials)
    before = (await place.list_prefix(credentials)).objects
    with pytest.raises(DestinationInUse, match="would remove what another writer has there"):
        await agent.driver.delete_stream("orders", owner=Owner(urn=URN))
    assert (await place.list_prefix(credentials)).objects >= before
    await agent.driver.upsert_stream(declare("orders", database, uri, drainBeforeDelete="skip"))
    await agent.driver.delete_stream("orders", owner=Owner(urn=URN))
    assert await agent.driver.list_streams() == []


@pytest.mark.parametrize("content", [b"", b"not json", b'{"version": 1}'])
async def test_what_is_no_claim_is_refused_and_stays(
    agent: Agent, database: Path, uri: str, credentials: S3Credentials, content: bytes
) -> None:
    place = parse_replica(uri)
    assert await place.create_object(CLAIM, content, credentials)
    with pytest.raises(DestinationInUse, match="cannot be read as a claim"):
        await agent.driver.upsert_stream(declare("orders", database, uri))
    assert await place.read_object(CLAIM, credentials) == content


# --- at the same moment ---------------------------------------------------------------------------------------------


async def wins(uri: str, way: str, credentials: S3Credentials, rounds: int) -> list[int]:
    """How many of two processes claim a place, round by round."""
    found = []
    place, _, query = uri.partition("?")
    async with Claimer("a" * 32, way, credentials) as one, Claimer("b" * 32, way, credentials) as two:
        for number in range(rounds):
            stream = declare("orders", Path("/srv/shop.db"), f"{place}/{number}" + (f"?{query}" if query else ""))
            at = time.time() + (0.1 if number else 3.0)  # the processes have to start first
            found.append(sum(await asyncio.gather(one.claim(stream, at), two.claim(stream, at))))
    return found


async def test_of_two_processes_one_claims_a_place(uri: str, credentials: S3Credentials) -> None:
    assert await wins(uri, "claims", credentials, 10) == [1] * 10


@pytest.mark.proof
async def test_of_two_processes_one_claims_a_place_each_time(uri: str, credentials: S3Credentials) -> None:
    assert await wins(uri, "claims", credentials, 50) == [1] * 50


async def test_a_look_before_the_write_lets_both_claim(uri: str, credentials: S3Credentials) -> None:
    """The control of the test above."""
    assert 2 in await wins(uri, "naive", credentials, 20)


async def test_a_claim_that_is_being_written_is_no_content(tmp_path: Path, credentials: S3Credentials) -> None:
    """In a folder a claim is written beside its place; the winner of two agents must not see the file of the other."""
    place, over = parse_replica(f"file://{tmp_path}/replica"), Event()
    (tmp_path / "replica").mkdir()

    def write() -> None:
        with opened(tmp_path / "replica") as folder:
            while not over.is_set():
                create_in_folder(folder, CLAIM, b"{}")

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            assert {(await place.list_prefix(credentials)).objects for _ in range(300)} == {0}
            purged = [await place.purge_prefix(credentials) for _ in range(300)]
        finally:
            over.set()
        writing.result()
    assert {(one.removed, one.kept) for one in purged} == {(0, 0)}


async def test_of_two_agents_one_makes_its_stream(
    agent: Agent, second: Agent, database: Path, uri: str, credentials: S3Credentials, command_line: CommandLine
) -> None:
    orders, other = declare("orders", database, uri), bills(uri, database.parent)
    await _start_both(agent, second, orders, other)
    made = [running for running in (agent, second) if await running.driver.list_streams()]
    assert len(made) == 1
    source, name = (database, "orders") if made[0] is agent else (database.with_name("bills.db"), "bills")
    await caught_up(made[0].driver, name)
    url = await replica_url(made[0].driver, name)
    assert await restored_hash(command_line, url, source.with_name("copy.db")) == await content_hash(source)


async def _start_both(agent: Agent, second: Agent, orders: Stream, other: Stream) -> None:
    results = await asyncio.gather(
        agent.driver.upsert_stream(orders), second.driver.upsert_stream(other), return_exceptions=True
    )
    errors = [result for result in results if result is not None]
    assert [type(error) for error in errors] == [DestinationInUse], results


# --- a store without conditional writes ------------------------------------------------------------------------------


class Forgetful(BaseHTTPRequestHandler):
    """An S3 that stores objects and knows no condition."""

    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_GET(self) -> None:
        found = self.objects.get(self.path)
        missing = b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
        self._answer(404 if found is None else 200, missing if found is None else found)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


async def test_a_store_that_ignores_the_condition_is_named(
    credentials: S3Credentials, caplog: pytest.LogCaptureFixture, s3: TwoOwners, place: str
) -> None:
    handler = type("Handler", (Forgetful,), {"objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()

    async def identify(_: Stream) -> S3Credentials:
        return credentials

    claims = Claims(uuid.uuid4().hex, identify)
    uri = f"s3://{BUCKET}/orders?endpoint=http://127.0.0.1:{server.server_port}&region=us-east-1"
    stream, known = declare("orders", Path("/srv/shop.db"), uri), declare("bills", Path("/srv/bills.db"), place)
    try:
        assert claims.findings(stream) == []  # not asked yet
        assert await claims.take(stream)
        assert await claims.take(known)
        assert not await claims.take(stream)
        with pytest.raises(DestinationInUse, match="is claimed by the agent"):
            await Claims(uuid.uuid4().hex, identify).take(stream)
    finally:
        server.shutdown()
        server.server_close()
    (found,) = claims.findings(stream)
    assert found.severity is Severity.WARNING and "ignores If-None-Match" in found.message
    assert claims.findings(known) == []
    assert caplog.text.count("ignores If-None-Match") == 1
