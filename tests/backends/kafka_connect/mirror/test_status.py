"""The status of a mirror, from what Connect and the source's brokers say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from replicator.backends.kafka.admin import Found, Topic
from replicator.backends.kafka.positions import Partition, write
from replicator.backends.kafka_connect.connector import Offset
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.failures import HOUR, Failures
from replicator.backends.kafka_connect.mirror.copies import Copies
from replicator.backends.kafka_connect.mirror.mirror_recipe import moves
from replicator.backends.kafka_connect.mirror.source_view import SourceView, lag_of
from replicator.backends.kafka_connect.mirror.status import Seen, gaps, is_done, next_offsets, status_of
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord
from replicator.errors import DestinationDenied, EngineRefused
from replicator.model import StreamState

from tests.backends.kafka_connect.mirror.builders import (
    IDENTITY,
    NOON,
    at,
    connector,
    declare,
    deployed,
    replay_record,
    seen,
)

MARKER = StreamRecord(stream=declare(), topics={"orders": "orders"})
RUNNING, PAUSED, FAILED, CATCHING_UP = (
    StreamState.RUNNING,
    StreamState.PAUSED,
    StreamState.FAILED,
    StreamState.CATCHING_UP,
)
FIRST, SECOND = Partition("orders", 0), Partition("orders", 1)
MILLISECONDS = int(NOON.timestamp() * 1000)


def test_the_engine_stores_what_was_copied_last_and_we_say_what_comes_next() -> None:
    where = {"cluster": "source", "topic": "orders"}
    stored = [
        Offset({**where, "partition": 0}, {"offset": 41}),
        Offset({**where, "partition": 1}, {"offset": 0}),
        Offset({**where, "partition": 2}, None),
        Offset({**where, "partition": 0, "cluster": "west"}, {"offset": 3}),
    ]
    assert next_offsets(stored, "source") == {FIRST: 42, SECOND: 1}


@pytest.mark.parametrize(
    ("stored", "source", "expected"),
    [
        ("orders=5", seen("orders=5"), ""),
        ("orders=2", seen("orders=5"), "orders=3"),
        ("orders=2,5", seen("orders=5,5"), "orders=3"),
        ("", seen("orders=5,7"), "orders=5,7"),
        ("", seen("orders=5,7", "orders=2,7"), "orders=3"),  # what is retained no longer is not behind but lost
        ("orders=1", seen("orders=5", "orders=4"), "orders=1"),
        ("orders=9", seen("orders=5"), ""),
        ("users=1", seen("orders=1"), "orders=1"),
        ("", seen(""), ""),
    ],
)
def test_lag_is_what_the_source_has_and_was_not_copied(stored: str, source: SourceView, expected: str) -> None:
    assert write(lag_of(at(stored), source)) == (expected or None)


MADE_AGAIN = "orders was deleted and made again; the stored offset {} may be of the old topic"


@pytest.mark.parametrize(
    ("stored", "source", "expected"),
    [
        ("orders=5", seen("orders=5"), {}),
        ("orders=2", seen("orders=5", "orders=2"), {}),
        ("", seen("orders=5", "orders=2"), {}),
        ("orders=2", seen("orders=5", "orders=3"), {FIRST: "orders/0: offsets 2 to 2 are no longer retained"}),
        ("orders=1,3", seen("orders=5,5", "orders=5,4"),
         {FIRST: "orders/0: offsets 1 to 4 are no longer retained",
          SECOND: "orders/1: offsets 3 to 3 are no longer retained"}),
        ("orders=6", seen("orders=5"), {FIRST: MADE_AGAIN.format(6)}),
        ("orders=3", seen("orders=5", ids={"orders": "other"}), {FIRST: MADE_AGAIN.format(3)}),
        ("users=3", seen("users=5", ids={"users": "other"}), {}),  # made after the stream: its id is not known
        ("users=3", seen("orders=5"), {}),  # the topic is gone, and was not made again
        ("orders=3,3", seen("orders=5"), {}),  # made again with fewer partitions: nothing can be said of the last
    ],
)  # fmt: skip
def test_a_gap_is_told_with_what_is_lost(stored: str, source: SourceView, expected: dict[Partition, str]) -> None:
    assert gaps(MARKER, at(stored), source) == expected


def parts(states: str, of_part: str) -> DeployedStream:
    stream = deployed(MARKER, states)
    return DeployedStream(stream.connector, MARKER, (connector("orders.checkpoint", of_part),))


ONE_DONE = MARKER.model_copy(update={"replays": (replay_record(until="orders=5"),)})
NOT_APPLIED = MARKER.model_copy(update={"replays": (replay_record(until="orders=5", applied=False),)})


@pytest.mark.parametrize(
    ("stream", "stored", "source", "expected"),
    [
        (deployed(MARKER), "orders=5", seen("orders=5"), RUNNING),
        (deployed(MARKER), "orders=3", seen("orders=5"), RUNNING),
        (deployed(MARKER), "", seen("orders=5"), CATCHING_UP),  # nothing of it was copied yet
        (deployed(MARKER), "", seen("orders=0"), RUNNING),
        (deployed(MARKER), "", None, RUNNING),
        (deployed(MARKER, "RUNNING UNASSIGNED"), "orders=5", seen("orders=5"), CATCHING_UP),
        (deployed(MARKER, "UNASSIGNED"), "orders=5", seen("orders=5"), CATCHING_UP),
        (deployed(MARKER, "RUNNING"), "orders=5", seen("orders=5"), CATCHING_UP),
        (deployed(MARKER, "RUNNING RUNNING PAUSED"), "orders=5", seen("orders=5"), CATCHING_UP),
        (deployed(MARKER, "PAUSED PAUSED"), "orders=3", seen("orders=5"), PAUSED),
        (deployed(MARKER, "STOPPED"), "orders=3", seen("orders=5"), PAUSED),
        (deployed(MARKER, "UNASSIGNED PAUSED"), "orders=3", seen("orders=5"), PAUSED),
        (deployed(MARKER, "RUNNING FAILED", trace="boom"), "orders=5", seen("orders=5"), FAILED),
        (deployed(MARKER, "RUNNING RUNNING FAILED", trace="boom"), "orders=5", None, FAILED),
        (deployed(MARKER, "FAILED", trace="boom"), "orders=5", seen("orders=5"), FAILED),
        (deployed(MARKER, "PAUSED FAILED", trace="boom"), "orders=5", seen("orders=5"), FAILED),
        (deployed(MARKER), "orders=2", seen("orders=5", "orders=3"), FAILED),
        (deployed(MARKER, "PAUSED PAUSED"), "orders=2", seen("orders=5", "orders=3"), FAILED),
        (deployed(MARKER, "PAUSED"), "orders=1", seen("orders=1"), PAUSED),
        (parts("RUNNING RUNNING", "RUNNING RUNNING"), "orders=5", seen("orders=5"), RUNNING),
        (parts("RUNNING RUNNING", "PAUSED PAUSED"), "orders=5", seen("orders=5"), PAUSED),
        (parts("RUNNING RUNNING", "RUNNING FAILED"), "orders=5", seen("orders=5"), FAILED),
        (parts("RUNNING RUNNING", "RUNNING"), "orders=5", seen("orders=5"), RUNNING),  # no group to follow
        (deployed(ONE_DONE), "orders=5", seen("orders=9"), RUNNING),
        (deployed(ONE_DONE), "orders=4", seen("orders=9"), CATCHING_UP),
        (deployed(NOT_APPLIED), "orders=9", seen("orders=9"), CATCHING_UP),
    ],
)
def test_the_state_is_that_of_the_worst_part(
    stream: DeployedStream, stored: str, source: SourceView | None, expected: StreamState
) -> None:
    found = status_of(stream, at(stored), Seen(source), NOON)
    assert found.state is expected
    assert bool(found.last_error) is (expected is FAILED) or str(found.last_error).startswith("the age of what waits")


COPY = "source.orders"
ALL = StreamRecord(stream=declare(), topics={"orders": "orders"}, starts="")
FROM_THE_END = StreamRecord(stream=declare(mode="cdc"))
TRANSFORMED = StreamRecord(stream=declare(options={"transforms": "x"}))


def copies(ends: str, *, partitions: int | None = None, **rest: Any) -> Copies:
    """Copies of the topic `orders` by their end offsets; none for an empty text."""
    latest = {Partition(COPY, number): end for number, end in enumerate(map(int, ends.split(",")))} if ends else {}
    topics = {COPY: Topic(COPY, partitions or len(latest))} if ends else {}
    return Copies(topics, latest, **rest)


DENIED = {COPY: DestinationDenied("no")}
UNREADABLE = {"orders": Topic("orders", 1, readable=False)}
ADMIN = StreamRecord(stream=declare(source={"adminAuthRef": "env://ADMIN_*", "authRef": "env://E_*"}), starts="")


@pytest.mark.parametrize(
    ("record", "stored", "source", "there", "state", "told"),
    [
        (ALL, "orders=5", seen("orders=5"), copies("5"), RUNNING, None),
        (ALL, "orders=5", seen("orders=5"), copies("3"), RUNNING, None),  # the brokers have to find it thin
        (ALL, "orders=5", seen("orders=5"), copies("3", thin={Partition(COPY, 0)}), FAILED, "ends at offset 3"),
        (ALL, "orders=5", seen("orders=5"), copies("0"), FAILED, "ends at offset 0, and 5 offsets of orders/0"),
        (ALL, "orders=5", seen("orders=5", "orders=5"), copies("0"), RUNNING, None),  # nothing is left to lack
        (ALL, "orders=5", seen("orders=5"), copies(""), FAILED, "is not at the destination, and 5 offsets"),
        (ALL, "orders=5,5", seen("orders=5,5"), copies("5", partitions=1), FAILED, "source.orders/1 is not at the"),
        (ALL, "orders=5", seen("orders=5,0"), copies("5", partitions=1), CATCHING_UP, "has 1 partition at the"),
        (ALL, "", seen("orders=0"), copies(""), CATCHING_UP, "source.orders is not at the destination yet"),
        (ALL, "", seen("orders=0"), copies("", refusals=DENIED), FAILED, "the credentials may not create it"),
        (ALL, "", seen("orders=0"), copies("", refusals={COPY: EngineRefused("policy")}), FAILED, "created at the"),
        (ALL, "orders=5", seen("orders=5"), copies("", hidden={COPY}), RUNNING, None),
        (ALL, "orders=5", seen("orders=5"), None, RUNNING, None),
        (ALL.model_copy(update={"starts": "orders=5"}), "orders=5", seen("orders=5"), copies("0"), RUNNING, None),
        (FROM_THE_END, "orders=5", seen("orders=5"), copies("0"), RUNNING, None),  # where it began is unknown
        (TRANSFORMED, "orders=5", seen("orders=5"), copies("0"), RUNNING, None),
        (ALL, "", seen("", hidden={"orders"}), copies(""), FAILED, "may not read orders at the source (or it does not"),
        (ALL, "orders=5", replace(seen("orders=5"), topics=UNREADABLE), copies("5"), FAILED, "may not read orders at"),
        (ADMIN, "orders=5", seen("", hidden={"orders"}), copies(""), CATCHING_UP, "adminAuthRef may not read orders"),
        (ALL, "orders=5", seen("orders=5", untold={"orders"}), copies("5"), CATCHING_UP, "did not tell the offsets of"),
        (ALL, "orders=3", seen("orders=5"), copies("5"), RUNNING, "the age of what waits is not known"),
    ],
)  # fmt: skip
def test_the_state_looks_at_both_ends(
    record: StreamRecord, stored: str, source: SourceView, there: Copies | None, state: StreamState, told: str | None
) -> None:
    found = status_of(deployed(record), at(stored), Seen(source, there), NOON)
    assert found.state is state
    assert (found.last_error is None) if told is None else (told in str(found.last_error))


@pytest.mark.parametrize(
    ("starts", "stored", "source", "there", "lsn"),
    [
        ("", "orders=5,5", seen("orders=5,5"), copies("5,0"), "orders=-,0"),
        ("orders=2", "orders=5", seen("orders=5"), copies("0"), "orders=2"),
        ("orders=2", "orders=5", seen("orders=5", "orders=3"), copies(""), "orders=3"),
    ],
)
def test_the_replay_begins_where_the_stream_did_and_takes_what_is_lost_alone(
    starts: str, stored: str, source: SourceView, there: Copies, lsn: str
) -> None:
    record = StreamRecord(stream=declare(mode="cdc"), starts=starts)
    found = status_of(deployed(record), at(stored), Seen(source, there), NOON)
    assert f'replicator replay kafka-mirror/default/orders --lsn "{lsn}"' in str(found.last_error)


@pytest.mark.parametrize("source", [seen("", hidden={"orders"}), seen("orders=5", untold={"orders"})])
def test_what_is_not_told_of_a_topic_makes_the_lag_unknown(source: SourceView) -> None:
    found = status_of(deployed(ALL), at("orders=5"), Seen(source), NOON)
    assert (found.lag_events, found.lag_seconds) == (None, None)


@pytest.mark.parametrize(
    ("starts", "stored", "replays", "expected"),
    [
        (None, "orders=5", (), None),
        ("", "orders=5,7", (), 12),
        ("orders=2,7", "orders=5,7", (), 3),
        ("orders=2", "", (), 0),
        ("", "orders=1", (replay_record(until="orders=5"),), 5),  # a replay copies a second time
        ("", "orders=9", (replay_record(until="orders=5"),), 9),
    ],
)
def test_offsets_are_counted_from_the_start(
    starts: str | None, stored: str, replays: tuple[ReplayRecord, ...], expected: int | None
) -> None:
    record = MARKER.model_copy(update={"starts": starts, "replays": replays})
    assert status_of(deployed(record), at(stored), Seen(None), NOON).events_replicated == expected


@pytest.mark.parametrize(
    ("stored", "source", "expected"),
    [
        ("orders=5", seen("orders=5", newest={FIRST: Found(4, MILLISECONDS)}), NOON),
        ("orders=3", seen("orders=5", copied={FIRST: MILLISECONDS}), NOON),
        ("orders=3", seen("orders=5"), None),  # it was not read
        ("orders=3,9", seen("orders=5,9", copied={FIRST: MILLISECONDS}, newest={SECOND: Found(8, 1)}), NOON),
        ("orders=3,3", seen("orders=5,9", copied={FIRST: MILLISECONDS + 9, SECOND: MILLISECONDS}), NOON),
        ("orders=3,3", seen("orders=5,9", copied={FIRST: MILLISECONDS}), None),
    ],
)
def test_the_time_of_a_checkpoint_is_of_what_is_copied(stored: str, source: SourceView, expected: object) -> None:
    found = status_of(deployed(MARKER), at(stored), Seen(source), NOON).last_checkpoint
    assert found is not None
    assert found.wall == expected


def test_failures_are_counted_when_they_are_seen_first() -> None:
    now = [0.0]
    failures = Failures(lambda: now[0])
    good, bad, worse = (
        deployed(MARKER),
        deployed(MARKER, "RUNNING FAILED", trace="boom"),
        deployed(MARKER, "FAILED", trace="bang"),
    )
    assert [failures.count(item) for item in (good, bad, bad, good, bad, worse)] == [None, 1, 1, 1, 2, 3]
    now[0] = HOUR + 1
    assert failures.count(worse) is None


def test_a_failure_names_the_topics_that_wait() -> None:
    broken = deployed(MARKER, "RUNNING FAILED", trace="boom")
    found = status_of(broken, at("orders=3,5"), Seen(seen("orders=5,5")), NOON)
    assert found.last_error == "boom; not copied: orders/0 from offset 3"


def test_a_stream_that_finds_no_topic_waits_for_one_and_says_so() -> None:
    found = status_of(deployed(MARKER, "RUNNING"), at(""), Seen(seen("")), NOON)
    assert (found.state, found.lag_events) == (CATCHING_UP, 0)
    assert "no topic of the source matches include yet" in str(found.last_error)


def test_the_error_is_the_engines_own_words() -> None:
    found = status_of(deployed(MARKER, "RUNNING FAILED", trace="boom"), at("orders=5"), Seen(seen("orders=5")), NOON)
    assert found.last_error == "boom"


def waiting(seconds: float) -> dict[str, Any]:
    return {"waiting": {FIRST: MILLISECONDS - round(seconds * 1000)}}


@pytest.mark.parametrize(
    ("stored", "source", "events", "seconds"),
    [
        ("orders=5", seen("orders=5"), 0, 0.0),
        ("orders=3", seen("orders=5", **waiting(1.5)), 2, 1.5),
        ("orders=3", seen("orders=5", **waiting(-3)), 2, 0.0),  # a producer whose clock is ahead
        ("orders=3", seen("orders=5", **waiting(-3600)), 2, None),  # an application that sets timestamps of its own
        ("orders=3", seen("orders=5"), 2, None),  # its time could not be read
        ("orders=3,4", seen("orders=5,5", waiting={FIRST: MILLISECONDS - 1000, SECOND: MILLISECONDS - 9000}), 3, 9.0),
        ("orders=3", None, None, None),
    ],
)
def test_numbers_are_exact_or_null(
    stored: str, source: SourceView | None, events: int | None, seconds: float | None
) -> None:
    found = status_of(deployed(MARKER), at(stored), Seen(source), NOON)
    assert (found.lag_events, found.lag_seconds) == (events, seconds)
    assert found.last_checkpoint is not None
    assert found.last_checkpoint.lsn == stored
    assert (found.bytes_replicated, found.events_replicated, found.errors_last_hour) == (None, None, None)


def test_the_age_is_unknown_where_a_record_that_may_be_the_oldest_was_not_read() -> None:
    source = seen("orders=5,5", **waiting(1.5), unread=frozenset({SECOND}))
    found = status_of(deployed(MARKER), at("orders=3,4"), Seen(source), NOON)
    assert (found.lag_events, found.lag_seconds) == (3, None)
    assert found.last_error == "the age of what waits is not known: no record of orders/1 was read within 2 s"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, None),
        (seen("orders=5"), None),
        (seen("orders=5", newest={FIRST: Found(4, MILLISECONDS), SECOND: Found(1, MILLISECONDS - 9)}), NOON),
        (seen("orders=5", newest={FIRST: Found(4, None)}), None),
    ],
)
def test_the_last_event_is_the_newest_at_the_source(source: SourceView | None, expected: object) -> None:
    assert status_of(deployed(MARKER), {}, Seen(source), NOON + timedelta(hours=1)).last_event == expected


def test_before_the_first_record_there_is_no_checkpoint() -> None:
    assert status_of(deployed(MARKER), {}, Seen(seen("orders=0")), NOON).last_checkpoint is None


@pytest.mark.parametrize(
    ("stored", "applied", "done"),
    [("orders=5", True, True), ("orders=6", True, True), ("orders=4", True, False), ("", True, False),
     ("users=9", True, False), ("orders=5", False, False)],
)  # fmt: skip
def test_a_replay_is_done_behind_what_was_copied_before(stored: str, applied: bool, done: bool) -> None:
    assert is_done(replay_record(until="orders=5", applied=applied), at(stored)) is done


def test_a_replay_of_nothing_is_done_once_it_is_applied() -> None:
    assert is_done(replay_record(until=""), {})


EAST, WEST = "kafka://east:9092", "kafka://west:9092"
OTHER = "kafka://other:9092"


@pytest.mark.parametrize(
    ("change", "clusters", "elsewhere"),
    [
        ({}, ("e", "w"), False),
        ({"exclude": ["x"]}, ("e", "w"), False),
        ({"source": {"uri": OTHER}}, ("e", "w"), False),  # other brokers of the same cluster
        ({"source": {"uri": OTHER}}, ("f", "w"), True),
        ({"source": {"uri": OTHER}}, (None, "w"), True),  # not known, so not the same
        ({"destination": {"uri": OTHER}}, ("e", "w"), False),
        ({"destination": {"uri": OTHER}}, ("e", "x"), True),
        ({"destination": {"uri": OTHER}}, ("e", None), True),
        ({}, ("f", "w"), True),  # built again at the same address
        ({}, ("e", "x"), True),
        ({}, (None, None), False),
        ({"source": {"region": "eu"}}, ("e", "w"), True),
        ({"destination": {"region": "eu"}}, ("e", "w"), True),
        ({"options": {"source.cluster.alias": "shop"}}, ("e", "w"), True),
        ({"options": IDENTITY}, ("e", "w"), True),
    ],
)
def test_positions_hold_only_for_the_same_topics_at_both_ends(
    change: dict[str, Any], clusters: tuple[str | None, str | None], elsewhere: bool
) -> None:
    old = StreamRecord(stream=declare(), source_cluster="e", destination_cluster="w")
    new = StreamRecord(stream=declare(**change), source_cluster=clusters[0], destination_cluster=clusters[1])
    assert moves(old, new) is elsewhere


@pytest.mark.parametrize("end", ["source", "destination"])
def test_positions_of_clusters_that_were_never_seen_hold_for_one_address_only(end: str) -> None:
    old = StreamRecord(stream=declare())
    assert not moves(old, StreamRecord(stream=declare(exclude=["x"])))
    assert moves(old, StreamRecord(stream=declare(**{end: {"uri": OTHER}})))
