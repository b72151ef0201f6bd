"""The words as types: durations, times, URIs, and the form on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from replicator.model import (
    SCHEMES,
    Checkpoint,
    Endpoint,
    EndpointKind,
    Owner,
    Stream,
    StreamState,
    StreamStatus,
    format_duration,
    format_time,
    token_digest,
)

from tests.lifecycle.builders import S3, SQLITE, instants, stream, streams


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10s", timedelta(seconds=10)),
        ("1m30s", timedelta(seconds=90)),
        ("1.5h", timedelta(minutes=90)),
        ("250ms", timedelta(milliseconds=250)),
        ("1us", timedelta(microseconds=1)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert stream(checkpointInterval=text).checkpoint_interval == expected


@given(st.timedeltas(timedelta(microseconds=1), timedelta(days=366)))
def test_a_duration_survives_its_own_text(value: timedelta) -> None:
    assert stream(checkpointInterval=format_duration(value)).checkpoint_interval == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00.000Z"),
        (datetime(2026, 1, 31, 13, 0, 0, 1999, tzinfo=timezone(timedelta(hours=1))), "2026-01-31T12:00:00.001Z"),
    ],
)
def test_times(value: datetime, expected: str) -> None:
    assert format_time(value) == expected
    assert Checkpoint(wall=value).wire() == {"wall": expected}


@given(instants)
def test_a_time_survives_its_own_text_but_for_what_is_below_a_millisecond(value: datetime) -> None:
    again = Checkpoint.model_validate(Checkpoint(wall=value).wire()).wall
    assert again is not None
    assert timedelta() <= value - again < timedelta(milliseconds=1)


@pytest.mark.parametrize("value", ["2026-01-31", "20260131", "1769860800", 1769860800, 1.5, True, "12:00", ""])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(ValidationError):
        Checkpoint.model_validate({"wall": value})


@given(streams)
def test_a_stream_survives_the_wire(one: Stream) -> None:
    wire = one.wire()
    again = Stream.model_validate(wire)
    assert again.wire() == wire
    assert "_" not in "".join(key for key in wire)


def test_unset_properties_are_left_out_of_the_wire() -> None:
    assert stream().wire().keys() == {
        "name", "source", "destination", "backend", "mode", "include", "exclude", "conflict", "desiredState",
        "waitFor", "deletionProtection", "purgeDestination", "options",
    }  # fmt: skip
    assert StreamStatus(name="a", state=StreamState.RUNNING).wire() == {"name": "a", "state": "running"}


def test_patterns_are_sets() -> None:
    assert stream(include=["b", "a", "b"]).include == ("a", "b")


def test_models_are_frozen_and_hide_what_they_refuse() -> None:
    with pytest.raises(ValidationError):
        stream().mode = None  # type: ignore[assignment]
    with pytest.raises(ValidationError) as caught:
        Endpoint.model_validate({**SQLITE, "password": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (Owner(urn="a", token="t"), Owner(urn="b", token=token_digest("t")), True),
        (Owner(urn="a", token=token_digest("t")), Owner(urn="b", token=token_digest("t")), True),  # an import
        (Owner(urn="a", token="t"), Owner(urn="b", token="t"), True),  # a record of release 0.1
        (Owner(urn="a", issue="t"), Owner(urn="a", token=token_digest("t")), True),  # the same call again
        (Owner(urn="a", token="old", issue="t"), Owner(urn="a", token=token_digest("t")), True),
        (Owner(urn="a", token="t"), Owner(urn="a", token=token_digest("u")), False),
        (Owner(urn="a", token="t"), Owner(urn="a"), False),
        (Owner(urn="a"), Owner(urn="a", token=token_digest("t")), False),
        (Owner(urn="a"), Owner(urn="a"), False),
    ],
)
def test_the_token_decides_and_not_the_urn(one: Owner, two: Owner, same: bool) -> None:
    assert one.owns(two) is same


def test_a_record_holds_neither_a_token_in_clear_nor_what_only_the_program_needs() -> None:
    declared = stream(waitFor="running", deletionProtection=True).model_copy(
        update={"owner": Owner(urn="a", token="t", issue="i", claim=True)}
    )
    recorded = declared.recorded()
    assert recorded == stream().model_copy(update={"owner": Owner(urn="a", token=token_digest("t"))})
    assert recorded.recorded() == recorded


def test_a_claim_is_no_part_of_the_record() -> None:
    assert Owner(urn="a", claim=True).wire() == {"urn": "a", "claim": True}  # the engine's side is told of it
    assert Owner(urn="a").wire() == {"urn": "a"}


GOOD = {
    "postgres": ["postgres://db/orders", "postgresql://app@db:5432/orders?sslmode=require"],
    "sqlite": ["sqlite:///srv/a.db", "sqlite:///srv/a b.db"],
    "base": ["base:///srv/base"],
    "s3": ["s3://bucket/prefix", "s3://bucket/a/b?endpoint=http://127.0.0.1:9000&region=x", "file:///var/backups"],
    "nats": ["nats://host:4222/bucket", "tls://host"],
    "kafka": ["kafka://a:9092,b:9092/topic"],
}
BAD = {
    "postgres": ["mysql://db/a", "postgres:/db", "db", "", "postgres://app:pw@db/a", "postgres://db/a?password=x"],
    "sqlite": ["sqlite://a.db", "sqlite:///", "sqlite:///a?b", "sqlite:///a#b", "sqlite:///a\n", "SQLITE:///a"],
    "base": ["base://srv", "base:///"],
    "s3": ["s3://bucket", "s3://bucket/", "s3:///prefix", "s3://b?x/y", "s3://b/p?X-Amz-Signature=1", "file://x/y"],
    "nats": ["nats://a:b@host", "nats://host?token=x", "http://host"],
    "kafka": ["kafka://a:9092?sasl.password=x", "kafka://a\x00"],
}


@pytest.mark.parametrize(("kind", "uri"), [(kind, uri) for kind, uris in GOOD.items() for uri in uris])
def test_a_uri_that_is_right(kind: str, uri: str) -> None:
    assert Endpoint.model_validate({"kind": kind, "uri": uri}).uri == uri


@pytest.mark.parametrize(("kind", "uri"), [(kind, uri) for kind, uris in BAD.items() for uri in uris])
def test_a_uri_that_is_refused(kind: str, uri: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Endpoint.model_validate({"kind": kind, "uri": uri})
    assert "input_value" not in str(caught.value)


def test_each_kind_has_a_scheme_and_examples_here() -> None:
    assert SCHEMES.keys() == set(EndpointKind)
    assert GOOD.keys() == BAD.keys() == set(EndpointKind)


@pytest.mark.parametrize("region", ["us-east", "eu-fra", "7", "a" * 32])
def test_a_region_is_any_word(region: str) -> None:
    assert Endpoint.model_validate({**S3, "region": region}).region == region


@pytest.mark.parametrize("region", ["", "US", "-a", "a b", "a/b", "a" * 33])
def test_what_is_no_region(region: str) -> None:
    with pytest.raises(ValidationError):
        Endpoint.model_validate({**S3, "region": region})
