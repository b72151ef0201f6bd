"""Workers, brokers and logins come and go while streams are made, changed and removed; nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from replicator.errors import ReplicatorError
from replicator.model import Checkpoint, Stream, StreamState
from replicator.replicator import ReplayMethod

from tests.backends.kafka_connect.debezium.debezium_env import ORDERS, DebeziumEnv
from tests.backends.kafka_connect.debezium.sink_env import SinkEnv
from tests.backends.kafka_connect.debezium.test_life import same, table_of
from tests.faults.mirror.breaking_proxy import Line, after, line_to
from tests.kafka import begin
from tests.postgres import connect, limit_slots
from tests.waiting import until
from tools.kafka.cluster import Broker, Worker
from tools.kafka.pair import Side
from tools.kafka.pair_daemon import PLUGINS
from tools.kafka.process import find_jars
from tools.postgres import Postgres

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Own:
    """A database server, a broker and a worker, which a test may stop."""

    postgres: Postgres
    broker: Broker
    worker: Worker

    @property
    def side(self) -> Side:
        broker, worker = self.broker, self.worker
        return Side(
            broker.cluster_id, broker.bootstrap, broker.bootstrap, Path("/nonexistent"), worker.url, worker.secrets
        )


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    folder = tmp_path_factory.mktemp("own")
    broker = Broker(folder / "broker")
    worker = Worker(folder / "worker", broker.bootstrap, plugins=[find_jars(name) for name in PLUGINS], heap="512m")
    settings = {"max_wal_senders": "60", "max_replication_slots": "60", "max_connections": "300"}
    with Postgres(folder / "postgres", settings=settings) as server:
        limit_slots(server, "20GB")
        try:
            if (tool := broker.format()) is not None:
                tool.wait_end(60)
            for process in (broker, worker):
                process.launch()
            for process in (broker, worker):
                process.wait()
            yield Own(server, broker, worker)
        finally:
            worker.kill()
            broker.kill()


@dataclass
class Cell:
    """A stream under test, and the line by which the caller reaches the worker."""

    bed: DebeziumEnv
    line: Line
    stream: Stream

    def restart(self) -> None:
        """The caller's process has ended, and another one goes on."""
        self.bed.driver = self.bed.another()


Step = Callable[[Cell], Awaitable[None]]


@dataclass(frozen=True)
class Subject:
    """One operation.

    :param kind: of the ends.
    :param before: what there was.
    :param operate: what is asked for; the same again after the worker was killed.
    :param after: what must be true then.
    """

    kind: type[DebeziumEnv]
    before: Step
    operate: Step
    after: Step


async def declared(cell: Cell) -> None:
    bed = cell.bed
    bed.execute(ORDERS)
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    bed.execute("CREATE TABLE bills (id int PRIMARY KEY, region text); ALTER TABLE bills REPLICA IDENTITY FULL")
    bed.execute("INSERT INTO orders VALUES (1), (2); INSERT INTO bills VALUES (1, 'eu'), (2, 'us')")
    marks = {} if isinstance(bed, SinkEnv) else {"bookmarks": ("first",)}
    cell.stream = bed.stream().model_copy(update=marks)


async def running(cell: Cell) -> None:
    await declared(cell)
    await make(cell)
    await cell.bed.caught_up(cell.stream.name)
    cell.bed.execute("INSERT INTO orders VALUES (3); DELETE FROM orders WHERE id = 1")
    cell.stream = (await cell.bed.described(cell.stream.name)).stream


async def make(cell: Cell) -> None:
    await cell.bed.driver.upsert_stream(cell.stream)


async def join(cell: Cell) -> None:
    await cell.bed.driver.upsert_stream(cell.stream.model_copy(update={"include": ("app.bills", "app.orders")}))


async def rewind(cell: Cell) -> None:
    start = Checkpoint(lsn="first")
    await cell.bed.driver.replay(cell.stream.name, start, key="once", method=ReplayMethod.LOG_REWIND)


async def delete(cell: Cell) -> None:
    await cell.bed.driver.delete_stream(cell.stream.name)


async def has_all(cell: Cell) -> None:
    await holds(cell, "orders")


async def has_both(cell: Cell) -> None:
    await holds(cell, "orders")
    await holds(cell, "bills")


async def rewound(cell: Cell) -> None:
    async def done() -> bool:
        return (await cell.bed.driver.get_replay(cell.stream.name, "once")).finished_at is not None

    await until(done, timeout=60, what="the replay has ended")
    await holds(cell, "orders")
    deletes = [op for op, *_ in cell.bed.changes(cell.stream) if op == "d"]
    assert len(deletes) >= 2, "the delete came once more"


async def gone(cell: Cell) -> None:
    name = cell.stream.name
    assert (cell.bed.slot(name), cell.bed.publications(), cell.bed.helpers()) == (None, set(), set())
    assert [found for found in cell.bed.connectors() if found.partition(".")[0] == name] == []


async def holds(cell: Cell, table: str) -> None:
    """The destination has the rows of a table, with one that is written now."""
    bed = cell.bed
    bed.execute(f"INSERT INTO {table} SELECT max(id) + 1 FROM {table}")
    if isinstance(bed, SinkEnv):
        await until(lambda: _is_copied(bed, table), timeout=90, what=f"{table} is whole at the destination")
    elif table == "orders":
        await same(bed, cell.stream)
    else:
        await until(lambda: _is_sent(bed, cell.stream, table), timeout=90, what=f"{table} is whole in its topic")


async def _is_copied(bed: SinkEnv, table: str) -> bool:
    with suppress(Exception):  # the table is not there yet
        return bed.content(f"app.{table}") == bed.content(f"app.{table}", at="source")
    return False


async def _is_sent(bed: DebeziumEnv, stream: Stream, table: str) -> bool:
    return await asyncio.to_thread(bed.state, stream, f"app.{table}") == table_of(bed, table)


SUBJECTS = {
    "create": Subject(DebeziumEnv, declared, make, has_all),
    "join": Subject(DebeziumEnv, running, join, has_both),
    "rewind": Subject(DebeziumEnv, running, rewind, rewound),
    "delete": Subject(DebeziumEnv, running, delete, gone),
    "create a sink": Subject(SinkEnv, declared, make, has_all),
    "join a sink": Subject(SinkEnv, running, join, has_both),
    "delete a sink": Subject(SinkEnv, running, delete, gone),
}
SHORT = ("create", "rewind", "delete a sink")


@pytest.fixture
async def open_cell(own: Own) -> AsyncIterator[Callable[[Subject], Awaitable[Cell]]]:
    async with AsyncExitStack() as stack:

        async def open_(subject: Subject) -> Cell:
            line = await stack.enter_async_context(line_to(own.worker.url))
            bed = subject.kind(own.postgres, own.side, line.url)
            stack.push_async_callback(bed.remove)
            cell = Cell(bed, line, bed.stream())
            await subject.before(cell)
            line.disarm()
            return cell

        yield open_


OpenCell = Callable[[Subject], Awaitable[Cell]]


@pytest.mark.parametrize("names", [SHORT, pytest.param(tuple(SUBJECTS), marks=pytest.mark.proof)], ids=["some", "all"])
async def test_the_worker_is_killed_at_each_effect(own: Own, open_cell: OpenCell, names: tuple[str, ...]) -> None:
    """All operations are held where they are, the worker is killed once, and each is asked for again."""
    places = []
    for name in names:
        cell = await open_cell(SUBJECTS[name])
        await SUBJECTS[name].operate(cell)
        places += [(name, at) for at in range(1, len(cell.line.effects) + 1)]
    held, killed = asyncio.Semaphore(0), asyncio.Event()

    async def hold() -> None:
        held.release()
        await killed.wait()

    cells = [await open_cell(SUBJECTS[name]) for name, _ in places]
    for cell, (_, at) in zip(cells, places, strict=True):
        cell.line.arm(after(at), hold)
    operations = [
        asyncio.create_task(attempt(SUBJECTS[name].operate(cell)))
        for cell, (name, _) in zip(cells, places, strict=True)
    ]
    with suppress(TimeoutError):  # a cell that has an effect less this time ends by itself
        async with asyncio.timeout(25):  # the callers wait for an answer no longer than 30 s
            for _ in places:
                await held.acquire()
    await asyncio.to_thread(own.worker.kill)
    killed.set()
    await begin(own.worker)
    await asyncio.gather(*operations)
    failures = [
        f"{name} {at}: {failure}"
        for cell, (name, at) in zip(cells, places, strict=True)
        if (failure := await goes_on(cell, SUBJECTS[name]))
    ]
    assert not failures, "\n".join(failures)


async def attempt(operation: Awaitable[None]) -> None:
    """An operation that may be refused, with a reason."""
    with suppress(ReplicatorError):
        await operation


async def goes_on(cell: Cell, subject: Subject) -> str | None:
    """Ask again, as another process; what is wrong then."""
    cell.line.disarm()
    cell.restart()
    try:
        await subject.operate(cell)
        await subject.after(cell)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("kind", [DebeziumEnv, SinkEnv])
async def test_a_broker_restarts_while_a_stream_changes(own: Own, open_cell: OpenCell, kind: type[DebeziumEnv]) -> None:
    cell = await open_cell(Subject(kind, running, join, has_both))
    await asyncio.to_thread(own.broker.kill)
    without_broker = asyncio.create_task(attempt(join(cell)))
    cell.bed.execute("INSERT INTO orders VALUES (50); DELETE FROM orders WHERE id = 2")
    await begin(own.broker)
    await without_broker
    await join(cell)
    await has_both(cell)


async def test_a_table_is_read_whole_though_the_worker_is_killed_meanwhile(own: Own, open_cell: OpenCell) -> None:
    cell = await open_cell(Subject(DebeziumEnv, running, join, has_both))
    bed = cell.bed
    bed.execute("INSERT INTO bills SELECT n, 'eu' FROM generate_series(10, 8000) n")
    options = {**cell.stream.options, "incremental.snapshot.chunk.size": 5}
    cell.stream = cell.stream.model_copy(update={"options": options})
    await join(cell)

    signals = f"replicator.signal_{cell.stream.name.replace('-', '_')}"

    async def begun() -> bool:  # each chunk writes its watermarks there
        return bool(bed.sql(f"SELECT count(*) > 20 FROM {signals}")[0][0])

    await until(begun, timeout=60, what="the table is being read")
    await asyncio.to_thread(own.worker.kill)
    sent = len(await asyncio.to_thread(bed.changes, cell.stream, "app.bills"))
    assert sent < 7900, "it was interrupted"
    bed.execute("DELETE FROM bills WHERE id = 7999")
    await begin(own.worker)
    await holds(cell, "bills")


async def test_a_password_is_rotated_behind_a_reference_that_stays(own: Own, open_cell: OpenCell) -> None:
    cell = await open_cell(Subject(DebeziumEnv, running, make, has_all))
    bed = cell.bed
    with connect(own.postgres) as session:
        session.execute(f"ALTER ROLE \"{bed.role}\" PASSWORD 'rotated'".encode())
    await asyncio.to_thread(own.worker.kill)
    await begin(own.worker)
    bed.execute("INSERT INTO orders VALUES (60)")
    cell.restart()

    async def told() -> str | None:
        status = (await bed.described(cell.stream.name)).status
        return status.last_error if status.state is not StreamState.RUNNING else None

    assert bed.role in await until(told, timeout=60, what="the status says that the login is refused")
    bed.login.write_text(f"username={bed.role}\npassword=rotated\n")
    cell.restart()
    await bed.driver.resume(cell.stream.name)
    await has_all(cell)
