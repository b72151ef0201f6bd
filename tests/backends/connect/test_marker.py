"""The record of a stream in its connector's configuration."""

from __future__ import annotations

import json

import pytest
from replicator.backends.connect.marker import KEY, Marker, Rewind

from tests.backends.connect.mirror.given import NOON, declare, rewind

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
        owner={"urn": "urn:ü", "token": "t"},
    ),
    source_cluster="east",
    topics={"orders": "id"},
    making=True,
    rewinds=(rewind("one"), rewind("two", applied=False)),
)


@pytest.mark.parametrize("marker", [Marker(stream=declare()), WHOLE], ids=["least", "whole"])
def test_it_is_read_back_and_holds_nothing_that_connect_would_replace(marker: Marker) -> None:
    text = marker.text()
    assert Marker.read({KEY: text}) == marker
    assert "$" not in text
    assert json.loads(text) == marker.wire()
    assert marker.text() == text


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"replicator": WHOLE.text()},
        {KEY: ""},
        {KEY: "no JSON"},
        {KEY: "[]"},
        {KEY: "{}"},
        {KEY: '{"stream": {"name": "orders"}}'},
        {KEY: WHOLE.text()[:-1]},
        {KEY: WHOLE.text().replace('"making"', '"unknown"')},
    ],
)
def test_what_cannot_be_read_is_no_record(config: dict[str, str]) -> None:
    assert Marker.read(config) is None


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
