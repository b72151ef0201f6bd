"""The record of a stream in its connector's configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest
from replicator.backends.kafka_connect.record import CONFIG_LIMIT, HEADER, KEY, ReplayRecord, StreamRecord
from replicator.errors import RecordUnreadable
from replicator.model import Checkpoint
from replicator.replicator import ReplayMethod, ReplayProgress, ReplayState

from tests import releases
from tests.backends.kafka_connect.mirror.builders import NOON, declare, replay_record

KIND = "kafka-mirror"
WHOLE = StreamRecord(
    stream=declare(
        mode="cdc",
        exclude=["a.*", "b"],
        startFrom={"lsn": "orders=1", "wall": "2026-01-31T12:00:00Z"},
        options={
            "tasks.max": 2,
            "groups": "app-$1.*",
            "groups.exclude": "${env:HOME}",
            "emit.heartbeats.enabled": True,
        },
        owner={"urn": "urn:ü", "token": "sha256:0123"},
    ),
    source_cluster="east",
    topics={"orders": "id"},
    creating=True,
    replays=(replay_record("one"), replay_record("two", applied=False)),
)


def without_defaults_of_the_program(stream: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stream.items() if key not in ("waitFor", "deletionProtection")}


@pytest.mark.parametrize("record", [StreamRecord(stream=declare()), WHOLE], ids=["least", "whole"])
def test_it_is_read_back_and_holds_nothing_that_connect_would_replace(record: StreamRecord) -> None:
    keys = record.keys(KIND)
    assert StreamRecord.read(keys, KIND) == record
    assert "$" not in keys[KEY] + keys[HEADER]
    wire = record.wire()
    assert json.loads(keys[KEY]) == {**wire, "stream": without_defaults_of_the_program(wire["stream"])}
    assert json.loads(keys[HEADER]) == {"version": 2, "backend": KIND}
    assert record.keys(KIND) == keys


def test_a_record_holds_no_token_in_clear_and_nothing_that_only_the_program_needs() -> None:
    declared = declare(waitFor="running", deletionProtection=True, owner={"urn": "urn:ü", "token": "hunter2"})
    record = StreamRecord(stream=declared)
    keys = record.keys(KIND)
    assert not [word for word in ("hunter2", "waitFor", "deletionProtection") if word in keys[KEY] + keys[HEADER]]
    assert StreamRecord.read(keys, KIND) == StreamRecord(stream=declared.recorded())


def test_a_record_of_release_0_1_is_read_in_its_present_form() -> None:
    declared = declare(waitFor="running", owner={"urn": "urn:ü", "token": "t"})
    old = json.dumps({"stream": declared.wire(), "making": False, "side": "destination", "topics": {}, "rewinds": []})
    assert "waitFor" in old
    assert StreamRecord.read({KEY: old}, KIND) == StreamRecord(stream=declared.recorded())


@pytest.mark.parametrize("config", [{}, {"replicator": "x"}])
def test_there_is_no_record(config: dict[str, str]) -> None:
    assert StreamRecord.read(config, KIND) is None


GOOD = WHOLE.keys(KIND)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({KEY: ""}, "cannot be read"),
        ({KEY: "no JSON"}, "cannot be read"),
        ({KEY: "[]"}, "cannot be read"),
        ({KEY: "{}"}, "no 'stream' in it"),
        ({KEY: "[" * 100_000}, "cannot be read"),
        ({KEY: '{"stream": {"name": "orders"}}'}, "stream.source: Field required"),
        ({KEY: GOOD[KEY][:-1]}, "cannot be read"),
        ({**GOOD, KEY: GOOD[KEY].replace('"making"', '"unknown"')}, "unknown: Extra inputs"),
        ({HEADER: GOOD[HEADER]}, "no 'replicator.stream' in it"),
        ({**GOOD, HEADER: "{}"}, "version: Field required"),
        ({**GOOD, HEADER: '{"version": 3, "backend": "kafka-mirror", "more": 1}'}, "has version 3"),
        ({**GOOD, HEADER: '{"version": 2, "backend": "debezium"}'}, "of the backend debezium"),
    ],
)
def test_what_cannot_be_read_is_not_absent(config: dict[str, str], says: str) -> None:
    with pytest.raises(RecordUnreadable) as refused:
        StreamRecord.read(config, KIND)
    assert says in refused.value.message
    assert refused.value.fix


def test_a_replay_is_found_and_changed_by_its_key() -> None:
    one, two = WHOLE.replays
    assert (WHOLE.replay_record("one"), WHOLE.replay_record("two"), WHOLE.replay_record("three")) == (one, two, None)
    applied = two.model_copy(update={"applied": True})
    assert WHOLE.with_replay(applied).replays == (one, applied)


@pytest.mark.parametrize(
    ("replays", "cut_off"),
    [
        ((), False),
        ((replay_record(applied=True),), False),
        ((replay_record("one", applied=True), replay_record("two", applied=False)), True),
        ((replay_record(applied=False).model_copy(
            update={"progress": replay_record().progress.model_copy(update={"finished_at": NOON})}
        ),), False),
    ],
)  # fmt: skip
def test_a_replay_is_cut_off_until_it_is_applied_or_given_up(replays: tuple[ReplayRecord, ...], cut_off: bool) -> None:
    assert (WHOLE.model_copy(update={"replays": replays}).cut_off() is not None) is cut_off


OLD_READER = """
import sys
from replicator.backends.connect.marker import Marker
marker = Marker.read({"replicator.stream": sys.argv[1]})
print(marker and marker.text())
"""


def test_the_release_before_reads_the_record_and_what_it_writes_is_read() -> None:
    printed = releases.run(releases.FIRST, OLD_READER, WHOLE.keys(KIND)[KEY])
    assert "waitFor" in printed, "it fills in what only the program needs"
    assert StreamRecord.read({KEY: printed}, KIND) == WHOLE


PARTITIONS = ";".join(f"topic-{topic}={','.join(['1234567'] * 24)}" for topic in range(100))


def replay(number: int, *, ended: bool = True) -> ReplayRecord:
    progress = ReplayProgress(
        key=f"key-{number}",
        stream="orders",
        state=ReplayState.DONE if ended else ReplayState.RUNNING,
        method=ReplayMethod.LOG_REWIND,
        start=Checkpoint(lsn=f"{PARTITIONS};n={number}"),
        resolved=Checkpoint(lsn=PARTITIONS),
        events=number,
        started_at=NOON,
        finished_at=NOON if ended else None,
    )
    return ReplayRecord(progress=progress, start=PARTITIONS, until=PARTITIONS, applied=True)


def test_old_replays_lose_their_partitions_before_the_record_is_too_long_for_connect() -> None:
    replays = tuple(replay(number, ended=number not in (0, 19)) for number in range(20))
    whole = StreamRecord(stream=declare(owner=None), replays=replays)
    config = {"connector.class": "A", **whole.keys(KIND)}
    assert len(json.dumps(config)) > 1 << 20
    fitted = whole.fitted(config, KIND)
    assert fitted is not None
    written = {**config, **fitted.keys(KIND)}
    assert len(json.dumps(written)) < CONFIG_LIMIT
    read = StreamRecord.read(written, KIND)
    assert read is not None
    kept = [found == before for found, before in zip(read.replays, replays, strict=True)]
    outlined = kept.index(True, 1)
    assert kept == [True, *[False] * (outlined - 1), *[True] * (20 - outlined)]
    assert 1 < outlined < 19
    for number, found in enumerate(read.replays):
        assert (found.progress.key, found.progress.events) == (f"key-{number}", number)
        assert found.began_at(replays[number].progress.start)
        assert not found.began_at(replays[number - 1].progress.start)
    again = read.fitted(written, KIND)
    assert again == read


def test_a_record_that_cannot_be_short_enough_does_not_fit() -> None:
    replays = tuple(replay(number, ended=False) for number in range(20))
    whole = StreamRecord(stream=declare(), replays=replays)
    assert whole.fitted(whole.keys(KIND), KIND) is None
    one = whole.model_copy(update={"replays": replays[:1]})
    assert one.fitted({**one.keys(KIND), "topics": "x" * CONFIG_LIMIT}, KIND) is None
    assert one.fitted(one.keys(KIND), KIND) == one


@pytest.mark.parametrize("key", [KEY, HEADER])
def test_a_record_in_depth_is_one_that_cannot_be_read(key: str) -> None:
    keys = WHOLE.keys(KIND) | {key: "[" * 200_000}
    with pytest.raises(RecordUnreadable, match=f"its record cannot be read: {key}"):
        StreamRecord.read(keys, KIND)
