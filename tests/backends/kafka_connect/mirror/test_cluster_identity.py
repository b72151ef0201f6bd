"""On which cluster a mirror's worker stands: the whole truth table. One in the wrong place loops."""

from __future__ import annotations

from typing import Any

import pytest
from replicator.backends.kafka.admin import Cluster
from replicator.backends.kafka_connect.mirror.cluster_identity import ClusterPair, recorded_ids, side_of
from replicator.backends.kafka_connect.mirror.connector_configs import Side
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.errors import DestinationDenied, InvalidStream, ReplicatorError, SourceDenied

from tests.backends.kafka_connect.mirror.builders import IDENTITY, declare

EAST, WEST, THIRD = (Cluster(name, 1) for name in ("east", "west", "third"))
DARK, DENIED = SourceDenied("no way in", property="source.authRef"), DestinationDenied("no way in")
SOURCE, DESTINATION = Side.SOURCE, Side.DESTINATION
Refusal = tuple[type[ReplicatorError], str | None]


def refused(property: str | None = None, kind: type[ReplicatorError] = InvalidStream) -> Refusal:
    return kind, property


SAID = "options.worker.cluster"
DARK_SOURCE = refused("source.authRef", SourceDenied)
DARK_DESTINATION = refused("destination.uri", DestinationDenied)


@pytest.mark.parametrize(
    ("source", "destination", "worker", "unsaid", "said_source", "said_destination"),
    [
        (EAST, WEST, "west", DESTINATION, refused(SAID), DESTINATION),
        (EAST, WEST, "east", SOURCE, SOURCE, refused(SAID)),
        (EAST, WEST, "third", refused(), refused(), refused()),
        (EAST, EAST, "east", *[refused("destination.uri")] * 3),
        (EAST, EAST, "third", *[refused("destination.uri")] * 3),
        (EAST, DENIED, "east", DARK_DESTINATION, SOURCE, refused(SAID)),
        (EAST, DENIED, "west", DARK_DESTINATION, refused(SAID), DESTINATION),
        (DARK, WEST, "west", DARK_SOURCE, refused(SAID), DESTINATION),
        (DARK, WEST, "east", DARK_SOURCE, SOURCE, refused(SAID)),
        (DARK, DENIED, "west", DARK_SOURCE, SOURCE, DESTINATION),
    ],
)
def test_every_case(
    source: Cluster | ReplicatorError,
    destination: Cluster | ReplicatorError,
    worker: str,
    unsaid: Side | Refusal,
    said_source: Side | Refusal,
    said_destination: Side | Refusal,
) -> None:
    view = ClusterPair(source, destination)
    for said, expected in ((None, unsaid), ("source", said_source), ("destination", said_destination)):
        stream = declare(options={"worker.cluster": said} if said else {})
        if isinstance(expected, Side):
            assert side_of(stream, view, worker) is expected
        else:
            kind, property = expected
            with pytest.raises(kind) as error:
                side_of(stream, view, worker)
            assert error.value.property == property
            assert error.value.fix


def test_another_word_is_refused() -> None:
    with pytest.raises(InvalidStream) as error:
        side_of(declare(options={"worker.cluster": "west"}), ClusterPair(EAST, WEST), "west")
    assert error.value.property == SAID


def test_what_is_not_seen_is_told_with_the_way_to_say_it() -> None:
    with pytest.raises(SourceDenied, match="loop is unknown: no way in") as error:
        side_of(declare(), ClusterPair(DARK, WEST), "west")
    assert "options worker.cluster: destination" in str(error.value.fix)


def test_ids_that_are_not_seen_are_none() -> None:
    view = ClusterPair(DARK, WEST)
    assert (view.id("source"), view.id("destination")) == (None, "west")


BEFORE = declare(include=["orders", "shop*"], exclude=["a*"], source={"uri": "kafka://a:1,b:2"})


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"desiredState": "paused", "options": {"tasks.max": 2}}, True),
        ({"source": {"uri": "kafka://b:2,a:1"}}, True),
        ({"include": ["orders"], "exclude": ["a*", "b*"]}, True),
        ({"source": {"uri": "kafka://c:3"}}, False),
        ({"destination": {"uri": "kafka://c:3"}}, False),
        ({"source": {"region": "north"}}, False),
        ({"options": IDENTITY}, False),
        ({"include": ["orders", "shop*", "more"]}, False),
        ({"include": []}, False),
        ({"exclude": []}, False),
    ],
)
def test_recorded_ids_hold_as_long_as_a_change_moves_nothing(changes: dict[str, Any], known: bool) -> None:
    record = StreamRecord(stream=BEFORE, source_cluster="east", destination_cluster="west")
    given = {"include": BEFORE.include, "exclude": BEFORE.exclude, "source": {"uri": BEFORE.source.uri}} | changes
    given["source"] = {"uri": BEFORE.source.uri} | given["source"]
    found = recorded_ids(record, declare(**given))
    assert found == ({"source": "east", "destination": "west"} if known else {})


def test_recorded_ids_are_those_of_a_stream_that_is_made() -> None:
    record = StreamRecord(stream=BEFORE, source_cluster=None, destination_cluster="west")
    assert recorded_ids(record, BEFORE) == {"destination": "west"}
    assert recorded_ids(record.model_copy(update={"creating": True}), BEFORE) == {}
    assert recorded_ids(None, BEFORE) == {}
    everything = record.model_copy(update={"stream": declare(include=[])})
    assert recorded_ids(everything, declare(include=["orders"])) == {"destination": "west"}
    assert recorded_ids(everything, declare(include=["connect-configs"])) == {}, "all topics are all but Connect's own"
