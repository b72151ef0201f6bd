"""The provider's process ends after each effect of each operation, at Kafka Connect or in the database; the next run
finishes it, loses nothing, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg import AsyncConnection
from replicator.backends.postgres import slots
from replicator.backends.postgres.session import Session
from replicator.model import Checkpoint, DesiredState, OnDelete, Owner, Stream
from replicator.replicator import ReplayMethod

from tests.backends.kafka_connect.debezium.conftest import OpenBed
from tests.backends.kafka_connect.debezium.debezium_env import ORDERS, DebeziumEnv
from tests.backends.kafka_connect.debezium.test_life import same, table_of
from tests.faults.mirror.breaking_proxy import line_to
from tests.waiting import until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


class Cut:
    """Counts the effects of an operation, and ends the operation after one of them, as the end of its process does."""

    def __init__(self) -> None:
        self.at = 0
        self.effects: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def arm(self, at: int, task: asyncio.Task[None] | None) -> None:
        self.at, self.effects, self._task = at, [], task

    def count(self, effect: str) -> bool:
        self.effects.append(effect)
        return len(self.effects) == self.at

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.sleep(0.05)


@pytest.fixture
async def cut(monkeypatch: pytest.MonkeyPatch) -> Cut:
    """Counts what the provider does in databases."""
    made = Cut()
    transaction, create, drop = Session.transaction, slots.create, slots.drop

    @asynccontextmanager
    async def counted(session: Session) -> AsyncIterator[AsyncConnection[Any]]:
        async with transaction(session) as connection:
            yield connection
        if made.count("transaction"):
            await made.end()

    def wrapped(of: Callable[..., Awaitable[Any]], word: str) -> Callable[..., Awaitable[Any]]:
        async def call(*given: Any) -> Any:
            found = await of(*given)
            if made.count(word):
                await made.end()
            return found

        return call

    monkeypatch.setattr(Session, "transaction", counted)
    monkeypatch.setattr(slots, "create", wrapped(create, "create slot"))
    monkeypatch.setattr(slots, "drop", wrapped(drop, "drop slot"))
    monkeypatch.setattr(slots, "copy", wrapped(slots.copy, "copy slot"))
    return made


@dataclass(frozen=True)
class Subject:
    """One operation.

    :param before: makes the stream that the operation finds, if any.
    :param operate: gives what is asked for; the same again after the cut.
    :param after: what must be true in the end.
    """

    before: Callable[[DebeziumEnv], Awaitable[Stream]]
    operate: Callable[[DebeziumEnv, Stream], Awaitable[None]]
    after: Callable[[DebeziumEnv, Stream], Awaitable[None]]


async def declared(bed: DebeziumEnv) -> Stream:
    bed.execute(ORDERS)
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    bed.execute("CREATE TABLE bills (id int PRIMARY KEY, region text)")
    bed.execute("INSERT INTO orders VALUES (1), (2); INSERT INTO bills VALUES (1, 'eu'), (2, 'us')")
    return bed.stream()


async def running(bed: DebeziumEnv) -> Stream:
    stream = await declared(bed)
    await bed.driver.upsert_stream(stream)
    await bed.caught_up(stream.name)
    bed.execute("INSERT INTO orders VALUES (3)")
    return (await bed.described(stream.name)).stream


async def upsert(bed: DebeziumEnv, stream: Stream) -> None:
    await bed.driver.upsert_stream(stream)


async def joins(bed: DebeziumEnv, stream: Stream) -> None:
    await bed.driver.upsert_stream(stream.model_copy(update={"include": ("app.bills", "app.orders")}))


async def filters(bed: DebeziumEnv, stream: Stream) -> None:
    await bed.driver.upsert_stream(stream.model_copy(update={"filter": "id > 1"}))


async def pauses(bed: DebeziumEnv, stream: Stream) -> None:
    await bed.driver.upsert_stream(stream.model_copy(update={"desired_state": DesiredState.PAUSED}))


async def renames_topics(bed: DebeziumEnv, stream: Stream) -> None:
    options = {**stream.options, "topic.prefix": f"{stream.name}-moved"}
    await bed.driver.upsert_stream(stream.model_copy(update={"options": options}))


async def replays(bed: DebeziumEnv, stream: Stream) -> None:
    start = Checkpoint(lsn="0/1")
    await bed.driver.replay(stream.name, start, key="once", method=ReplayMethod.RESNAPSHOT)


async def marked(bed: DebeziumEnv) -> Stream:
    stream = await declared(bed)
    stream = stream.model_copy(update={"bookmarks": ("first",), "on_delete": OnDelete.KEEP_BOOKMARK})
    await bed.driver.upsert_stream(stream)
    await bed.caught_up(stream.name)
    bed.execute("INSERT INTO orders VALUES (3)")
    await bed.caught_up(stream.name)
    return (await bed.described(stream.name)).stream


async def left(bed: DebeziumEnv) -> Stream:
    stream = await marked(bed)
    await bed.driver.delete_stream(stream.name)
    bed.execute("INSERT INTO orders VALUES (4)")
    owner = Owner(urn="urn:another", issue="another")
    return stream.model_copy(update={"owner": owner, "start_from": "earliest", "bookmarks": ("second",)})


async def marks(bed: DebeziumEnv, stream: Stream) -> None:
    await bed.driver.upsert_stream(stream.model_copy(update={"bookmarks": ("second",)}))


async def rewinds(bed: DebeziumEnv, stream: Stream) -> None:
    await bed.driver.replay(stream.name, Checkpoint(lsn="first"), key="once", method=ReplayMethod.LOG_REWIND)


async def deletes(bed: DebeziumEnv, stream: Stream) -> None:
    await bed.driver.delete_stream(stream.name)


async def replicates(bed: DebeziumEnv, stream: Stream) -> None:
    bed.execute("INSERT INTO orders VALUES (100)")
    await same(bed, (await bed.described(stream.name)).stream)
    assert bed.publications() == {stream.name.replace("-", "_")}
    assert len(bed.helpers()) == 2
    assert bed.sql("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == [(1,)]


async def joined(bed: DebeziumEnv, stream: Stream) -> None:
    bed.execute("INSERT INTO bills VALUES (100, 'eu')")
    await replicates(bed, stream)
    await until(lambda: _same_bills(bed, stream), timeout=60, what="the rows of the table that joined")


async def _same_bills(bed: DebeziumEnv, stream: Stream) -> bool:
    return await asyncio.to_thread(bed.state, stream, "app.bills") == table_of(bed, "bills")


async def filtered(bed: DebeziumEnv, stream: Stream) -> None:
    bed.execute("INSERT INTO orders VALUES (0), (100)")
    await bed.caught_up(stream.name)

    async def read_again() -> bool:
        sent = [after["id"] for _, _, after in await asyncio.to_thread(bed.changes, stream) if after]
        return sent.count(2) >= 2 and 100 in sent

    await until(read_again, timeout=60, what="rows are read again under the filter")
    sent = [after["id"] for _, _, after in bed.changes(stream) if after]
    assert (sent.count(1), sent.count(0)) == (1, 0)


async def stands_still(bed: DebeziumEnv, stream: Stream) -> None:
    bed.execute("INSERT INTO orders VALUES (50)")
    await asyncio.sleep(0.5)
    assert 50 not in bed.state(stream)
    await bed.driver.upsert_stream(stream)
    await replicates(bed, stream)


async def replayed_once(bed: DebeziumEnv, stream: Stream) -> None:
    async def done() -> bool:
        return (await bed.driver.get_replay(stream.name, "once")).finished_at is not None

    await until(done, timeout=60, what="the replay has ended")
    await replicates(bed, stream)
    reads = [after["id"] for op, _, after in bed.changes(stream) if op == "r"]
    assert reads.count(1) == 2, "once in the first snapshot, and once in the replay"


def bookmarks(bed: DebeziumEnv, stream: Stream) -> list[str]:
    """The bookmarks whose slots exist, but for the stream's own slot."""
    slot = stream.name.replace("-", "_")
    found = bed.sql(
        "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database() AND slot_name <> %s", slot
    )
    return sorted(name.removeprefix(f"{slot[:28]}_").rpartition("_")[0] for (name,) in found)


async def marked_anew(bed: DebeziumEnv, stream: Stream) -> None:
    assert bookmarks(bed, stream) == ["second"]
    assert (await bed.described(stream.name)).engine_objects["bookmarks"].keys() == {"second"}
    bed.execute("INSERT INTO orders VALUES (100)")
    await same(bed, stream)


async def rewound_once(bed: DebeziumEnv, stream: Stream) -> None:
    async def done() -> bool:
        return (await bed.driver.get_replay(stream.name, "once")).finished_at is not None

    await until(done, timeout=60, what="the replay has ended")
    bed.execute("INSERT INTO orders VALUES (100)")
    await same(bed, stream)
    assert [(op, after["id"]) for op, _, after in bed.changes(stream)][2:] == [("c", 3), ("c", 3), ("c", 100)]


async def kept(bed: DebeziumEnv, stream: Stream) -> None:
    """Nothing of the stream is left but one slot, from which another one goes on without a gap."""
    assert stream.name not in bed.connectors()
    assert bookmarks(bed, stream) == []
    bed.execute("INSERT INTO orders VALUES (4)")
    owner = Owner(urn="urn:another", issue="another")
    next_ = stream.model_copy(update={"owner": owner, "start_from": "earliest"})
    await bed.driver.upsert_stream(next_)
    await went_on(bed, next_)


async def went_on(bed: DebeziumEnv, stream: Stream) -> None:
    bed.execute("INSERT INTO orders VALUES (100)")
    await same(bed, stream)
    assert [(op, after["id"]) for op, _, after in bed.changes(stream)][2:] == [("c", 3), ("c", 4), ("c", 100)]


async def gone(bed: DebeziumEnv, stream: Stream) -> None:
    assert (bed.slot(stream.name), bed.publications(), bed.helpers()) == (None, set(), set())
    assert stream.name not in bed.connectors()


SUBJECTS = {
    "create": Subject(declared, upsert, replicates),
    "join": Subject(running, joins, joined),
    "filter": Subject(running, filters, filtered),
    "pause": Subject(running, pauses, stands_still),
    "move": Subject(running, renames_topics, replicates),
    "replay": Subject(running, replays, replayed_once),
    "delete": Subject(running, deletes, gone),
    "bookmark": Subject(marked, marks, marked_anew),
    "rewind": Subject(marked, rewinds, rewound_once),
    "keep": Subject(marked, deletes, kept),
    "go on": Subject(left, upsert, went_on),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "delete" else pytest.mark.proof) for name in SUBJECTS],
)
@pytest.mark.usefixtures("bounded")
async def test_cut_off_after_each_effect(
    name: str, kafka: Pair, postgres: Postgres, open_bed: OpenBed, cut: Cut
) -> None:
    subject = SUBJECTS[name]
    async with line_to(kafka.west.connect) as line:

        async def whole(at: int) -> list[str]:
            bed = open_bed(postgres, kafka.west, line.url)
            stream = await subject.before(bed)
            task: asyncio.Task[None] = asyncio.ensure_future(subject.operate(bed, stream))
            cut.arm(at, task)
            line.arm(lambda place: cut.count(line.effects[-1]), cut.end)
            done, _ = await asyncio.wait([task])
            effects = list(cut.effects)
            line.disarm()
            cut.arm(0, None)
            assert task.cancelled() is bool(at), (done, effects)
            if at:
                bed.driver = bed.another()
                await subject.operate(bed, stream)
            await subject.after(bed, stream)
            bed.connect = kafka.west.connect  # the line ends before the test's streams are removed
            bed.driver = bed.another()
            return effects

        effects = await whole(0)
        assert len(effects) > 1, effects
        failures = []
        for at in range(1, len(effects) + 1):
            try:
                await whole(at)
            except Exception as error:  # each place is told
                failures.append(f"after {effects[at - 1]} ({at} of {len(effects)}): {type(error).__name__}: {error}")
        assert not failures, "\n".join(failures)
