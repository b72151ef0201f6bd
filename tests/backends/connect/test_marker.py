"""The record of a stream in its connector's configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest
from replicator.backends.connect.marker import HEADER, KEY, Marker, Rewind
from replicator.errors import RecordUnreadable

from tests import releases
from tests.backends.connect.mirror.given import NOON, declare, rewind

KIND = "kafka-mirror"
WHOLE = Marker(
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
    making=True,
    rewinds=(rewind("one"), rewind("two", applied=False)),
)


def without_defaults_of_the_program(stream: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stream.items() if key not in ("waitFor", "deletionProtection")}


@pytest.mark.parametrize("marker", [Marker(stream=declare()), WHOLE], ids=["least", "whole"])
def test_it_is_read_back_and_holds_nothing_that_connect_would_replace(marker: Marker) -> None:
    keys = marker.keys(KIND)
    assert Marker.read(keys, KIND) == marker
    assert "$" not in keys[KEY] + keys[HEADER]
    wire = marker.wire()
    assert json.loads(keys[KEY]) == {**wire, "stream": without_defaults_of_the_program(wire["stream"])}
    assert json.loads(keys[HEADER]) == {"version": 2, "backend": KIND}
    assert marker.keys(KIND) == keys


def test_a_record_holds_no_token_in_clear_and_nothing_that_only_the_program_needs() -> None:
    declared = declare(waitFor="running", deletionProtection=True, owner={"urn": "urn:ü", "token": "hunter2"})
    marker = Marker(stream=declared)
    keys = marker.keys(KIND)
    assert not [word for word in ("hunter2", "waitFor", "deletionProtection") if word in keys[KEY] + keys[HEADER]]
    assert Marker.read(keys, KIND) == Marker(stream=declared.recorded())


def test_a_record_of_release_0_1_is_read_in_its_present_form() -> None:
    declared = declare(waitFor="running", owner={"urn": "urn:ü", "token": "t"})
    old = json.dumps({"stream": declared.wire(), "making": False, "side": "destination", "topics": {}, "rewinds": []})
    assert "waitFor" in old
    assert Marker.read({KEY: old}, KIND) == Marker(stream=declared.recorded())


@pytest.mark.parametrize("config", [{}, {"replicator": "x"}])
def test_there_is_no_record(config: dict[str, str]) -> None:
    assert Marker.read(config, KIND) is None


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
        Marker.read(config, KIND)
    assert says in refused.value.message
    assert refused.value.fix


def test_a_replay_is_found_and_changed_by_its_key() -> None:
    one, two = WHOLE.rewinds
    assert (WHOLE.rewind("one"), WHOLE.rewind("two"), WHOLE.rewind("three")) == (one, two, None)
    applied = two.model_copy(update={"applied": True})
    assert WHOLE.with_rewind(applied).rewinds == (one, applied)


@pytest.mark.parametrize(
    ("rewinds", "cut_off"),
    [
        ((), False),
        ((rewind(applied=True),), False),
        ((rewind("one", applied=True), rewind("two", applied=False)), True),
        ((rewind(applied=False).model_copy(
            update={"progress": rewind().progress.model_copy(update={"finished_at": NOON})}
        ),), False),
    ],
)  # fmt: skip
def test_a_replay_is_cut_off_until_it_is_applied_or_given_up(rewinds: tuple[Rewind, ...], cut_off: bool) -> None:
    assert (WHOLE.model_copy(update={"rewinds": rewinds}).cut_off() is not None) is cut_off


OLD_READER = """
import sys
from replicator.backends.connect.marker import Marker
marker = Marker.read({"replicator.stream": sys.argv[1]})
print(marker and marker.text())
"""


def test_the_release_before_reads_the_record_and_what_it_writes_is_read() -> None:
    printed = releases.run(releases.FIRST, OLD_READER, WHOLE.keys(KIND)[KEY])
    assert "waitFor" in printed, "it fills in what only the program needs"
    assert Marker.read({KEY: printed}, KIND) == WHOLE
