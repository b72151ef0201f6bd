"""Bookmarks: every change since one of them can be sent again, exactly; and what they hold is told, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from replicator.backends.postgres.lsn import read_lsn
from replicator.errors import (
    InvalidStream,
    ReplayNotRetained,
    ReplayRefused,
    SourceLimit,
    SourcePosition,
    SourceSetup,
)
from replicator.model import Checkpoint, Stream
from replicator.replicator import ReplayMethod, ReplayProgress, ReplayState

from tests.backends.kafka_connect.debezium.conftest import OpenBed
from tests.backends.kafka_connect.debezium.debezium_env import ORDERS, PASSWORD, DebeziumEnv
from tests.kafka import unique
from tests.postgres import limit_slots, make_role
from tests.waiting import until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300), pytest.mark.usefixtures("bounded")]

REWIND = ReplayMethod.LOG_REWIND
Change = tuple[str, int]


async def made(bed: DebeziumEnv, **changes: object) -> Stream:
    bed.execute(ORDERS)
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    bed.execute("INSERT INTO orders VALUES (1, 'eu'), (2, 'us')")
    stream = await bed.made(**{"bookmarks": ["first"], **changes})
    await bed.caught_up(stream.name)
    return stream


def end(bed: DebeziumEnv) -> str:
    ((lsn,),) = bed.sql("SELECT pg_current_wal_insert_lsn()::text")
    return str(lsn)


def sent(bed: DebeziumEnv, stream: Stream) -> list[Change]:
    """Operation and key of each change, in order."""
    return [(op, (after or before)["id"]) for op, before, after in bed.changes(stream)]


def bookmark_slots(bed: DebeziumEnv) -> list[str]:
    found = bed.sql(
        "SELECT slot_name::text FROM pg_replication_slots "
        "WHERE database = current_database() AND slot_name ~ '_[0-9a-f]{8}$'"
    )
    return sorted(name for (name,) in found)


@contextmanager
def transaction(bed: DebeziumEnv) -> Iterator[psycopg.Connection]:
    """A transaction of the application that is open until the block ends."""
    session = bed.open_application()
    session.autocommit = False
    try:
        yield session
        session.commit()
    finally:
        session.close()


async def replayed(bed: DebeziumEnv, stream: Stream, start: Checkpoint, key: str = "k") -> ReplayProgress:
    await bed.driver.replay(stream.name, start, key=key, method=REWIND)

    async def done() -> ReplayProgress | None:
        found = await bed.driver.get_replay(stream.name, key)
        return found if found.finished_at else None

    return await until(done, timeout=60, what="the replay has ended")


async def test_every_change_since_a_bookmark_comes_again_in_its_order(bed: DebeziumEnv) -> None:
    stream = await made(bed)
    found = await bed.described(stream.name)
    mark = found.engine_objects["bookmarks"]["first"]
    (told,) = [item for item in found.findings if item.property == "bookmarks"]
    assert "the bookmark first holds" in told.message and mark in told.message
    assert "are left before the server removes" in told.message
    with transaction(bed) as long:
        long.execute("INSERT INTO app.orders VALUES (10)")
        bed.execute("INSERT INTO orders VALUES (20)")
        middle = end(bed)
        long.execute("INSERT INTO app.orders VALUES (11)")
    bed.execute("UPDATE orders SET note = 'x' WHERE id = 20; DELETE FROM orders WHERE id = 10")
    await bed.caught_up(stream.name)
    first = sent(bed, stream)
    assert first[2:] == [("c", 20), ("c", 10), ("c", 11), ("u", 20), ("d", 10)]

    plan = await bed.driver.plan_replay(stream.name, Checkpoint(lsn="first"))
    assert plan.method is REWIND
    assert plan.resolved == plan.earliest.model_copy(update={"wall": None}) if plan.earliest else False
    assert "is dropped and re-created at the bookmark first; the bookmark stays" in plan.effects[1]
    done = await replayed(bed, stream, Checkpoint(lsn="first"))
    assert (done.state, done.error) == (ReplayState.DONE, None)
    assert sent(bed, stream)[len(first) :] == first[2:]

    # A transaction that was open at the start comes whole, since it was committed later.
    before = len(sent(bed, stream))
    done = await replayed(bed, stream, Checkpoint(lsn=middle), key="middle")
    assert done.state is ReplayState.DONE
    assert sent(bed, stream)[before:] == first[3:]
    assert await bed.driver.replay(stream.name, Checkpoint(lsn=middle), key="middle", method=REWIND) == done
    bed.execute("INSERT INTO orders VALUES (30)")
    await bed.caught_up(stream.name)
    assert sent(bed, stream)[before + 4 :] == [("c", 30)]
    assert bed.state(stream).keys() == {1, 2, 11, 20, 30}


async def test_a_time_is_placed_by_heartbeats(bed: DebeziumEnv) -> None:
    stream = await made(bed)
    bed.execute("INSERT INTO orders VALUES (3)")
    await asyncio.sleep(2.5)  # a heartbeat each second
    (at,) = bed.sql("SELECT clock_timestamp()")[0]
    bed.execute("INSERT INTO orders VALUES (4)")
    await bed.caught_up(stream.name)
    before = len(sent(bed, stream))
    plan = await bed.driver.plan_replay(stream.name, Checkpoint(wall=at))
    assert plan.method is REWIND
    await replayed(bed, stream, Checkpoint(wall=at))
    assert sent(bed, stream)[before:] == [("c", 4)]
    with pytest.raises(InvalidStream, match="'frist' is no bookmark of the stream; it has first"):
        await bed.driver.plan_replay(stream.name, Checkpoint(lsn="frist"))
    early = Checkpoint(wall=datetime.now(UTC) - timedelta(days=400))
    with pytest.raises(ReplayNotRetained) as refused:
        await bed.driver.plan_replay(stream.name, early)
    assert "the earliest is" in refused.value.message
    assert "bookmarks" in str(refused.value.fix)


async def test_bookmarks_come_and_go_with_the_declaration(bed: DebeziumEnv) -> None:
    stream = await made(bed, bookmarks=None)
    assert bookmark_slots(bed) == []
    wanted = Stream.model_validate({**stream.wire(), "bookmarks": ["b-2", "a"]})
    warned = [item.message for item in await bed.warned(wanted)]
    assert [text.split(" marks")[0] for text in warned] == ["the bookmark a", "the bookmark b-2"]
    stream = await bed.changed(stream, bookmarks=["b-2", "a"])
    assert [name.rpartition("_")[0] for name in bookmark_slots(bed)] == [
        f"{stream.name.replace('-', '_')[:28]}_{name}" for name in ("a", "b_2")
    ]
    positions = (await bed.described(stream.name)).engine_objects["bookmarks"]
    bed.execute("INSERT INTO orders VALUES (3)")
    await bed.caught_up(stream.name)
    stream = await bed.changed(stream, bookmarks=["a", "c"])
    now = (await bed.described(stream.name)).engine_objects["bookmarks"]
    assert (now["a"], now.keys()) == (positions["a"], {"a", "c"})
    assert read_lsn(now["c"]) > read_lsn(now["a"])
    (gone,) = [
        item.message
        for item in await bed.warned(Stream.model_validate({**stream.wire(), "bookmarks": ["c"]}))
        if "is dropped" in item.message
    ]
    assert f"the bookmark a is dropped: no replay can start at {now['a']}" in gone
    await bed.driver.delete_stream(stream.name)
    assert bookmark_slots(bed) == []


async def test_a_bookmark_that_was_lost_is_told_and_not_made_again(bed: DebeziumEnv) -> None:
    stream = await made(bed)
    (slot,) = bookmark_slots(bed)
    bed.sql("SELECT pg_drop_replication_slot(%s)", slot)
    await bed.changed(stream)
    await bed.changed(stream, options={**stream.options, "max.batch.size": 1000})
    assert bookmark_slots(bed) == []
    found = await bed.described(stream.name)
    (told,) = [item for item in found.findings if item.property == "bookmarks"]
    assert (told.code, told.severity.value) == ("RPL-SOURCE-POSITION", "warning")
    assert "is lost: its slot no longer exists" in told.message
    bed.execute("INSERT INTO orders VALUES (9)")
    await bed.caught_up(stream.name)
    with pytest.raises(ReplayNotRetained):
        await bed.driver.plan_replay(stream.name, Checkpoint(lsn="first"))
    with bed.rest() as rest:
        rest.put(f"/connectors/{stream.name}/stop").raise_for_status()
    await until(lambda: dropped(bed, stream), what="the slot is dropped")
    with pytest.raises(SourcePosition) as lost:
        await bed.driver.resume(stream.name)
    assert "replay" not in str(lost.value.fix), "the bookmark does not hold the position any more"


async def dropped(bed: DebeziumEnv, stream: Stream) -> bool:
    """Drop the slot of a stream whose connector has just been stopped."""
    try:
        bed.sql("SELECT pg_drop_replication_slot(%s)", stream.name.replace("-", "_"))
    except psycopg.errors.ObjectInUse:
        return False
    return True


async def test_a_stream_whose_slot_was_dropped_goes_on_from_a_bookmark(bed: DebeziumEnv) -> None:
    stream = await made(bed)
    bed.execute("INSERT INTO orders VALUES (3)")
    await bed.caught_up(stream.name)
    await bed.driver.pause(stream.name)
    bed.execute("INSERT INTO orders VALUES (4); DELETE FROM orders WHERE id = 3")
    with bed.rest() as rest:
        rest.put(f"/connectors/{stream.name}/stop").raise_for_status()
    await until(lambda: dropped(bed, stream), what="the slot is dropped")
    with pytest.raises(SourcePosition) as lost:
        await bed.driver.resume(stream.name)
    assert "replay from this position, which a bookmark holds" in str(lost.value.fix)
    position = str(lost.value.fix).partition("--lsn ")[2].partition(" ")[0]
    done = await replayed(bed, stream, Checkpoint(lsn=position))
    assert done.state is ReplayState.DONE
    await bed.driver.resume(stream.name)
    await bed.caught_up(stream.name)
    assert bed.state(stream).keys() == {1, 2, 4}
    assert sent(bed, stream)[-2:] == [("c", 4), ("d", 3)]


async def test_no_row_comes_by_a_filter_of_before(bed: DebeziumEnv) -> None:
    stream = await made(bed, filter="id > 0")
    bed.execute("INSERT INTO orders VALUES (3, 'us')")
    await bed.caught_up(stream.name)
    narrower = Stream.model_validate({**stream.wire(), "filter": "region = 'eu'"})
    await bed.driver.upsert_stream(narrower)
    await bed.caught_up(stream.name)
    with pytest.raises(ReplayRefused) as refused:
        await bed.driver.plan_replay(stream.name, Checkpoint(lsn="first"), method=REWIND)
    assert "earlier changes would be sent by the filter of that time" in refused.value.message
    bed.execute("INSERT INTO orders VALUES (4, 'us'), (5, 'eu')")
    await bed.caught_up(stream.name)
    since = refused.value.message.partition("since ")[2].partition(";")[0]
    before = len(sent(bed, stream))
    plan = await bed.driver.plan_replay(stream.name, Checkpoint(lsn=since))
    assert any("run once more" in text for text in plan.effects), "the signal for the new filter comes again"
    await replayed(bed, stream, Checkpoint(lsn=since))
    await bed.caught_up(stream.name)
    assert [item for item in sent(bed, stream)[before:] if item[0] != "r"] == [("c", 5)]
    assert {key for _, key in sent(bed, stream)[before:]} == {1, 5}

    # A change that was taken back by hand is seen too.
    name = stream.name.replace("-", "_")
    bed.execute(f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete')")
    with pytest.raises(ReplayRefused, match="was changed manually"):
        await bed.driver.plan_replay(stream.name, Checkpoint(lsn=since), method=REWIND)
    healed = await bed.changed(narrower, checkpointInterval="2s")
    with pytest.raises(ReplayRefused, match="applies since"):
        await bed.driver.plan_replay(healed.name, Checkpoint(lsn=since), method=REWIND)


async def test_a_table_that_joins_leaves_the_filter_of_the_others_as_it_was(bed: DebeziumEnv) -> None:
    stream = await made(bed, filter="id > 0")
    bed.execute("INSERT INTO orders VALUES (3)")
    bed.execute("CREATE TABLE bills (id int PRIMARY KEY)")
    stream = await bed.changed(stream, include=["app.bills", "app.orders"])
    await bed.caught_up(stream.name)
    before = len(sent(bed, stream))
    assert (await replayed(bed, stream, Checkpoint(lsn="first"))).state is ReplayState.DONE
    assert ("c", 3) in sent(bed, stream)[before:]


async def test_nothing_is_sent_by_what_somebody_made_of_the_publication(bed: DebeziumEnv) -> None:
    """Also without a filter: rows would be missing."""
    stream = await made(bed)
    name = stream.name.replace("-", "_")
    bed.execute(f"ALTER PUBLICATION {name} SET TABLE orders WHERE (id > 5)")
    bed.execute("INSERT INTO orders VALUES (3), (6)")
    stream = await bed.changed(stream, checkpointInterval="2s")
    await bed.caught_up(stream.name)
    with pytest.raises(ReplayRefused, match="the current filter applies since"):
        await bed.driver.plan_replay(stream.name, Checkpoint(lsn="first"))


async def test_a_first_snapshot_is_not_cut_off_by_a_replay(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders SELECT n, 'eu', repeat('x', 400) FROM generate_series(1, 40000) n")
    stream = await bed.made(bookmarks=["first"], options={"max.batch.size": 256, "max.queue.size": 512})
    with pytest.raises(ReplayRefused, match="it is reading its tables"):
        await bed.driver.replay(stream.name, Checkpoint(lsn="first"), key="k", method=REWIND)
    await bed.caught_up(stream.name)
    assert len(bed.state(stream)) == 40000


async def test_a_start_after_the_position_passes_over_nothing(bed: DebeziumEnv) -> None:
    stream = await made(bed)
    await bed.driver.pause(stream.name)
    bed.execute("INSERT INTO orders VALUES (3)")
    later = end(bed)
    bed.execute("INSERT INTO orders VALUES (4)")
    plan = await bed.driver.plan_replay(stream.name, Checkpoint(lsn=later), method=REWIND)
    assert "the stream has not sent all changes before the start" in plan.effects[1]
    await replayed(bed, stream, Checkpoint(lsn=later))
    await bed.caught_up(stream.name)
    assert bed.state(stream).keys() == {1, 2, 3, 4}


async def test_a_bookmark_without_a_limit_is_refused(bed: DebeziumEnv, postgres: Postgres) -> None:
    stream = await made(bed, bookmarks=None)
    limit_slots(postgres, "-1")
    for changes, property in (({"bookmarks": ["a"]}, "bookmarks"), ({"onDelete": "keepBookmark"}, "onDelete")):
        error = await bed.refused(Stream.model_validate({**stream.wire(), **changes}))
        assert isinstance(error, SourceLimit) and error.property == property
        assert "the disk of the server would fill up" in error.message


# --- what a deleted stream leaves -------------------------------------------------------------------------------------


async def deleted(bed: DebeziumEnv) -> Stream:
    """A stream that was deleted, and has left a bookmark; with changes since."""
    stream = await made(bed, onDelete="keepBookmark")
    await bed.driver.delete_stream(stream.name)
    assert bookmark_slots(bed) == []
    assert stream.name not in bed.connectors()
    bed.execute("INSERT INTO orders VALUES (3, 'eu'), (4, 'us'); DELETE FROM orders WHERE id = 1")
    return stream


def again(stream: Stream, start: object = "earliest", **changes: object) -> Stream:
    owner = {"urn": "urn:another", "issue": "another"}
    return Stream.model_validate({**stream.wire(), "owner": owner, "startFrom": start, **changes})


async def test_a_stream_goes_on_from_what_a_deleted_one_has_left(bed: DebeziumEnv) -> None:
    stream = await deleted(bed)
    before = sent(bed, stream)
    error = await bed.refused(again(stream, None))
    assert isinstance(error, SourceSetup) and error.property == "startFrom"
    assert "a deleted stream of this name left a bookmark at" in error.message
    assert "startFrom: earliest" in str(error.fix)
    error = await bed.refused(again(stream, include=["app.*"], filter="id > 1"))
    assert "a stream with other tables or filters" in error.message

    next_ = again(stream)
    await bed.driver.upsert_stream(next_)
    await bed.caught_up(stream.name)
    assert sent(bed, stream)[len(before) :] == [("c", 3), ("c", 4), ("d", 1)], "no first snapshot, and nothing lost"
    bed.execute("INSERT INTO orders VALUES (5)")
    await bed.caught_up(stream.name)
    await bed.changed(next_, startFrom=None, onDelete="remove")
    await bed.driver.delete_stream(stream.name)
    assert (bed.slot(stream.name), bed.publications(), bed.helpers()) == (None, set(), set())


def kept_at(bed: DebeziumEnv, stream: Stream) -> object:
    return (bed.slot(stream.name) or {})["confirmed_flush_lsn"]


async def test_another_administrator_does_not_take_a_bookmark(bed: DebeziumEnv, postgres: Postgres) -> None:
    stream = await deleted(bed)
    kept, login = kept_at(bed, stream), bed.admin.with_name(f"{bed.owner}-other.properties")
    other = make_role(postgres, unique("own"), PASSWORD, replication=False)
    bed.sql(f'GRANT CREATE ON DATABASE "{bed.database}" TO "{other}"; GRANT USAGE ON SCHEMA app TO "{other}"')
    login.write_text(f"username={other}\npassword={PASSWORD}\n")
    error = await bed.refused(again(stream, source={**stream.source.wire(), "adminAuthRef": f"file://{login}"}))
    assert isinstance(error, SourceSetup) and error.property == "source.adminAuthRef"
    assert f"belongs to the role {bed.owner}" in error.message
    assert stream.name not in bed.connectors()
    assert kept_at(bed, stream) == kept
    await bed.driver.upsert_stream(again(stream))
    await bed.caught_up(stream.name)


async def test_a_snapshot_needs_no_bookmark_and_leaves_it(bed: DebeziumEnv) -> None:
    stream = await deleted(bed)
    kept, options = kept_at(bed, stream), {**stream.options, "topic.prefix": f"copy-{stream.name}"}
    await bed.driver.upsert_stream(
        again(stream, None, mode="snapshot", onDelete="remove", bookmarks=[], options=options)
    )
    await bed.driver.delete_stream(stream.name)
    assert kept_at(bed, stream) == kept
    await bed.driver.upsert_stream(again(stream))
    await bed.caught_up(stream.name)


async def test_no_bookmark_is_left_while_tables_are_read(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders SELECT n, 'eu', repeat('x', 400) FROM generate_series(1, 40000) n")
    stream = await bed.made(onDelete="keepBookmark", options={"max.batch.size": 256, "max.queue.size": 512})
    with pytest.raises(ReplayRefused, match="no bookmark can be left: the stream is still reading its tables"):
        await bed.driver.delete_stream(stream.name)
    await bed.caught_up(stream.name)
    assert len(bed.state(stream)) == 40000
    await bed.driver.delete_stream(stream.name)
    assert bed.slot(stream.name) is not None


async def test_what_was_not_sent_before_a_changed_filter_is_not_skipped_silently(bed: DebeziumEnv) -> None:
    stream = await made(bed, filter="id > 0", onDelete="keepBookmark", bookmarks=None)
    await bed.driver.pause(stream.name)
    bed.execute("INSERT INTO orders VALUES (3, 'eu')")
    narrower = Stream.model_validate({**stream.wire(), "filter": "region = 'eu'", "desiredState": "paused"})
    await bed.driver.upsert_stream(narrower)
    await bed.driver.delete_stream(stream.name)
    with pytest.raises(ReplayNotRetained, match="and the current filter applies since"):
        await bed.driver.upsert_stream(again(narrower, desiredState="running"))


async def test_a_paused_stream_is_replayed_from_its_newest_bookmark(bed: DebeziumEnv) -> None:
    stream = await made(bed)
    await bed.driver.pause(stream.name)
    stream = Stream.model_validate({**stream.wire(), "bookmarks": ["first", "second"], "desiredState": "paused"})
    await bed.driver.upsert_stream(stream)
    bed.execute("INSERT INTO orders VALUES (3)")
    plan = await bed.driver.plan_replay(stream.name, Checkpoint(lsn="second"))
    assert plan.method is REWIND
    assert plan.effects[-1] == "the stream is paused; the replay starts when it resumes"


async def test_a_bookmark_that_somebody_dropped_is_told(bed: DebeziumEnv) -> None:
    stream = await deleted(bed)
    bed.sql("SELECT pg_drop_replication_slot(%s)", stream.name.replace("-", "_"))
    for start in ("earliest", None):
        error = await bed.refused(again(stream, start))
        assert "the slot of the bookmark no longer exists" in error.message
    assert error.fix is not None
    bed.sql(error.fix.removeprefix("remove what is left: "))
    await bed.driver.upsert_stream(again(stream, None))
    await bed.caught_up(stream.name)
    assert {2, 3, 4} <= bed.state(stream).keys()


async def test_a_stream_may_begin_later_than_the_bookmark(bed: DebeziumEnv) -> None:
    stream = await deleted(bed)
    later = end(bed)
    bed.execute("INSERT INTO orders VALUES (6)")
    ((now,),) = bed.sql("SELECT clock_timestamp()")
    assert await bed.driver.preflight(again(stream, {"wall": now.isoformat()})) != []  # the topic exists, as a warning
    for start in ({"lsn": "0/1"}, {"lsn": "FFFFFF/0"}, {"wall": "2020-01-01T00:00:00Z"}):
        with pytest.raises(ReplayNotRetained, match="holds the changes committed since"):
            await bed.driver.upsert_stream(again(stream, start))
        assert bed.slot(stream.name) is not None
    before = sent(bed, stream)
    await bed.driver.upsert_stream(again(stream, {"lsn": later}))
    await bed.caught_up(stream.name)
    assert sent(bed, stream)[len(before) :] == [("c", 6)]


async def test_a_creation_that_fails_gives_the_bookmark_back(bed: DebeziumEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await deleted(bed)
    recipe = bed.driver._recipe._recipes["postgres"]  # type: ignore[attr-defined]

    async def fails(*_: object) -> None:
        raise SourceLimit("no place")

    monkeypatch.setattr(recipe, "_go_on_after", fails)
    with pytest.raises(SourceLimit):
        await bed.driver.upsert_stream(again(stream))
    assert stream.name not in bed.connectors()
    other = bed.another()
    before = sent(bed, stream)
    await other.upsert_stream(again(stream))
    await bed.caught_up(stream.name)
    assert sent(bed, stream)[len(before) :] == [("c", 3), ("c", 4), ("d", 1)]


async def test_without_a_bookmark_a_start_is_refused(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    for start in ("earliest", {"lsn": "0/1"}):
        error = await bed.refused(bed.stream(startFrom=start))
        assert isinstance(error, SourcePosition) and error.property == "startFrom"
        assert "the database has no bookmark of a deleted stream of this name" in error.message
    stream = await bed.made()
    prefix = {"topic.prefix": f"{stream.name}-moved"}
    moved = Stream.model_validate({**stream.wire(), "startFrom": "earliest", "options": {**stream.options, **prefix}})
    error = await bed.refused(moved)
    assert error.property == "startFrom"


async def test_of_two_connect_clusters_one_takes_the_bookmark(bed: DebeziumEnv, kafka: Pair, open_bed: OpenBed) -> None:
    """Both see it in their previews; the database decides who gets it."""
    stream = await deleted(bed)
    other = open_bed(bed.server, kafka.east)
    there = other.stream(name=stream.name, source={"uri": bed.uri, **bed.logins_at(kafka.east)}, startFrom="earliest")
    before = sent(bed, stream)
    ours, theirs = await asyncio.gather(
        bed.driver.upsert_stream(again(stream)), other.driver.upsert_stream(there), return_exceptions=True
    )
    assert [ours, theirs].count(None) == 1, (ours, theirs)
    assert isinstance(ours or theirs, SourceSetup)
    winner = bed if ours is None else other
    await winner.caught_up(stream.name)
    assert sent(winner, stream)[len(before) if winner is bed else 0 :] == [("c", 3), ("c", 4), ("d", 1)]
