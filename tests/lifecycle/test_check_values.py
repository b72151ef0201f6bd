"""Check: values that are wrong as they stand, values that are not known yet, and that nothing is too odd for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from replicator.model import Stream

from tests.lifecycle.builders import S3, SQLITE, checked, inputs, json_values, streams

CANARY = "hunter2-'\"$-canary"
ENUM = "must be one of "
TIME = 'needs a date, a time and a time zone, as in "2026-01-31T12:00:00Z"'
DURATION = 'is not a duration; write one such as "10s" or "1m30s"'
NO_DURATIONS = ("10s - 5s", "10mm", "1h, 30m", "1h 30m", "10s;5s", "1y", "10 s", " 10s", "1..5s", "10S", "1_0s", "s")

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"source": ...}, "source", "is required"),
    ({"source": {}}, "source.kind", "is required"),
    ({"source": {"kind": "sqlite"}}, "source.uri", "is required"),
    ({"source": "sqlite:///a"}, "source", "must be an object"),
    ({"source": {**SQLITE, "kind": "mysql"}}, "source.kind", ENUM),
    ({"source": {**SQLITE, "uri": ""}}, "source.uri", "must not be empty"),
    ({"source": {**SQLITE, "uri": 5}}, "source.uri", "must be a string"),
    ({"source": {**SQLITE, "uri": "sqlite:///" + "x" * 2000}}, "source.uri", "is longer than 2000 characters"),
    ({"source": {**SQLITE, "uri": "sqlite://app.db"}}, "source.uri", "must look like sqlite:///var/lib/app/app.db"),
    ({"source": {**SQLITE, "uri": "/srv/app.db"}}, "source.uri", "has a uri such as sqlite://…"),
    ({"source": {**SQLITE, "uri": "sqlite:///a\nb"}}, "source.uri", "holds a control character"),
    ({"source": {**SQLITE, "region": "US East"}}, "source.region", "must be a word such as us-east"),
    ({"source": {**SQLITE, "url": "x"}}, "source.url", "is not known here; did you mean uri?"),
    ({"source": {**SQLITE, "Kind": "x"}}, "source.Kind", "is not known here; did you mean kind?"),
    ({"source": {**SQLITE, "auth_ref": "x"}}, "source.auth_ref", "is not known here; did you mean authRef?"),
    ({"destination": {**S3, "uri": "s3://bucket"}}, "destination.uri", "a prefix of its own in the bucket"),
    ({"destination": {**S3, "uri": "file://var"}}, "destination.uri", "must look like file:///var/backups/app"),
    ({"destination": {**S3, "uri": "https://b/p"}}, "destination.uri", "is a web address; write s3://bucket/prefix"),
    ({"destination": {**S3, "uri": "gs://b/p"}}, "destination.uri", "has a uri such as s3://… or file://…"),
    ({"destination": {**S3, "uri": "s3://[b/p"}}, "destination.uri", "cannot be read as a URI"),
    ({"mode": "everything"}, "mode", ENUM + "'cdc', 'snapshot' or 'snapshot_then_cdc'"),
    ({"mode": ["cdc"]}, "mode", ENUM),
    ({"conflict": {}}, "conflict", ENUM),
    ({"desiredState": "stopped"}, "desiredState", ENUM + "'running' or 'paused'"),
    ({"waitFor": "done"}, "waitFor", ENUM),
    ({"checkpointInterval": "soon"}, "checkpointInterval", DURATION),
    ({"checkpointInterval": "PT10S"}, "checkpointInterval", DURATION),
    ({"checkpointInterval": 10}, "checkpointInterval", DURATION),
    *(({"checkpointInterval": text}, "checkpointInterval", DURATION) for text in NO_DURATIONS),
    ({"checkpointInterval": "0s"}, "checkpointInterval", "must be longer than zero"),
    ({"checkpointInterval": "-1s"}, "checkpointInterval", "must be longer than zero"),
    ({"checkpointInterval": "9" * 30 + "h"}, "checkpointInterval", DURATION),
    ({"deletionProtection": "true"}, "deletionProtection", "must be true or false"),
    ({"purgeDestination": "false"}, "purgeDestination", "must be true or false"),
    ({"purgeDestination": 0}, "purgeDestination", "must be true or false"),
    ({"include": "orders"}, "include", "must be a list"),
    ({"include": ["orders", 1]}, "include[1]", "must be a string"),
    ({"include": [""]}, "include[0]", "must not be empty"),
    ({"startFrom": "now"}, "startFrom", ENUM + "'earliest' or 'latest', or an object"),
    ({"startFrom": {}}, "startFrom", "needs lsn or wall"),
    ({"startFrom": {"wall": "20260131"}}, "startFrom.wall", TIME),
    ({"startFrom": {"wall": 5}}, "startFrom.wall", TIME),
    ({"startFrom": {"wall": "2026-01-31T12:00:00"}}, "startFrom.wall", "needs a time zone"),
    ({"startFrom": {"wall": "0001-01-01T00:00:00+14:00"}}, "startFrom.wall", "is before the year 1"),
    ({"startFrom": {"wall": "at noon: sharp"}}, "startFrom.wall", "must be a time such as"),
    ({"startFrom": {"lns": "1"}}, "startFrom.lns", "is not known here; did you mean lsn?"),
    ({"options": ["a"]}, "options", "must be an object"),
    ({"options": {"url": "x"}}, "options.url", "is no option: write destination.uri of the stream"),
    (
        {"options": {"sync-interval": "1s"}},
        "options.sync-interval",
        "is no option: write checkpointInterval of the stream",
    ),
    ({"options": {"db.password": "x"}}, "options.db.password", "looks like a secret"),
    ({"options": {"access_key_id": "x"}}, "options.access_key_id", "looks like a secret"),
    ({"options": {"secretAccessKey": "x"}}, "options.secretAccessKey", "looks like a secret"),
    ({"options": {"age": {"identities": []}}}, "options.age", "looks like a secret"),
    ({"options": {"busy-timeout": "1h, 30m"}}, "options.busy-timeout", DURATION),
    ({"options": {"busy-timeout": 5}}, "options.busy-timeout", DURATION),
    ({"options": {"truncate-page-n": " 2"}}, "options.truncate-page-n", "must be a whole number; write 2"),
    ({"options": {"busy-timeuot": "1s"}}, "options.busy-timeuot", "is not an option of litestream; it takes busy-"),
    ({"checkpoint_interval": "1s"}, "checkpoint_interval", "is not known here; did you mean checkpointInterval?"),
    ({"purge_destination": True}, "purge_destination", "is not known here; did you mean purgeDestination?"),
    ({"desintation": S3}, "desintation", "is not known here; did you mean destination?"),
    ({"Mode": "cdc"}, "Mode", "is not known here; did you mean mode?"),
    ({"owner": {"urn": "x"}}, "owner", "is not known here"),
    ({"whatever": 1}, "whatever", "is not known here"),
    ({"backend": 5}, "backend", "must be a string"),
]


@pytest.mark.parametrize(
    ("changes", "path", "reason"), WRONG, ids=[f"{path}-{i}" for i, (_, path, _) in enumerate(WRONG)]
)
def test_a_value_that_is_wrong(changes: dict[str, Any], path: str, reason: str) -> None:
    found = checked(inputs(**changes))
    at = [failure for failure in found.failures if failure.path == path and failure.code != "RPL-CAP-UNSUPPORTED"]
    if path.startswith("options.busy-timeu"):
        at = [failure for failure in found.failures if failure.path == path]
    assert [failure.reason for failure in at if reason in failure.reason] == [failure.reason for failure in at] != []
    assert found.stream is None


@pytest.mark.parametrize(
    ("changes", "path", "code"),
    [
        ({"destination": {**S3, "uri": f"s3://key:{CANARY}@bucket/p"}}, "destination.uri", "RPL-STREAM-INVALID"),
        (
            {"destination": {**S3, "uri": f"s3://b/p?secret-access-key={CANARY}"}},
            "destination.uri",
            "RPL-STREAM-INVALID",
        ),
        ({"destination": {**S3, "uri": f"s3://b/p?access_key_id={CANARY}"}}, "destination.uri", "RPL-STREAM-INVALID"),
        ({"destination": {**S3, "uri": f"s3://b/p?a=1&sslPassword={CANARY}"}}, "destination.uri", "RPL-STREAM-INVALID"),
        ({"destination": {**S3, "authRef": CANARY}}, "destination.authRef", "RPL-AUTH-SYNTAX"),
        ({"source": {**SQLITE, "authRef": f"env://{CANARY}"}}, "source.authRef", "RPL-AUTH-SYNTAX"),
        ({"source": {**SQLITE, "adminAuthRef": f"vault://{CANARY}"}}, "source.adminAuthRef", "RPL-AUTH-SYNTAX"),
        ({"source": {**SQLITE, "password": CANARY}}, "source.password", "RPL-STREAM-INVALID"),
        ({"source": {**SQLITE, "kind": CANARY}}, "source.kind", "RPL-STREAM-INVALID"),
        ({"source": {**SQLITE, "region": CANARY}}, "source.region", "RPL-STREAM-INVALID"),
        ({"options": {"password": CANARY}}, "options.password", "RPL-STREAM-INVALID"),
        ({"checkpointInterval": CANARY}, "checkpointInterval", "RPL-STREAM-INVALID"),
        ({"startFrom": {"wall": f"12:00 {CANARY}"}}, "startFrom.wall", "RPL-STREAM-INVALID"),
        ({"name": CANARY}, "name", "RPL-STREAM-INVALID"),
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(changes: dict[str, Any], path: str, code: str) -> None:
    failures = checked(inputs(**changes)).failures
    assert (path, code) in [(failure.path, failure.code) for failure in failures]
    assert CANARY not in " ".join(map(str, failures))


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {**SQLITE, "uri": "sqlite:///srv/a b/ü.db"}},
        {"destination": {**S3, "uri": "s3://bucket/a/b?endpoint=http://127.0.0.1:9000&region=eu-central-1"}},
        {"destination": {"kind": "s3", "uri": "file:///var/backups/app"}},
        {"destination": {**S3, "authRef": "file:///run/secrets/s3.json"}},
        {"options": {"busy-timeout": "1s"}, "checkpointInterval": "1m30s"},
        {"options": {"truncate-page-n": "2", "min-checkpoint-page-count": 5.0, "busy-timeout": None}},
        {"checkpointInterval": "1d"},
        {"desiredState": "paused", "waitFor": "caught_up", "deletionProtection": True},
    ],
)
def test_a_value_that_is_right(changes: dict[str, Any]) -> None:
    assert checked(inputs(**changes)).failures == []


@pytest.mark.parametrize(
    ("given", "unknown", "paths"),
    [
        ({"source": ...}, ["source"], []),
        ({"source": {"kind": "sqlite"}}, ["source.uri"], []),
        ({"source": {"kind": "sqlite", "regoin": "x"}}, ["source.uri"], ["source.regoin"]),
        ({"include": ...}, ["include"], []),
        ({"options": {}}, ["options.busy-timeout"], []),
        ({"source": {"kind": "sqlite"}, "mode": "cdc"}, ["source.uri"], ["mode"]),
        ({"startFrom": {}}, ["startFrom.lsn"], ["startFrom"]),
        ({"source": {"kind": "sqlite"}}, ["destination.uri"], ["source.uri"]),
    ],
)
def test_unknown_values_excuse_only_themselves(given: dict[str, Any], unknown: list[str], paths: list[str]) -> None:
    found = checked(inputs(**given), unknown)
    assert [failure.path for failure in found.failures] == paths
    assert found.stream is None


PROPERTIES = [*(field.alias or name for name, field in Stream.model_fields.items()), "nonsense"]


@given(st.dictionaries(st.sampled_from(PROPERTIES) | st.text(max_size=8), json_values, max_size=6), json_values)
@example({"mode": {}}, None)
@example({"source": {"kind": []}, "destination": {"kind": {}}}, None)
@example({"options": {"": None}, "backend": "memory"}, None)
def test_nothing_is_too_odd(given: dict[str, Any], old: Any) -> None:
    """Whatever arrives: no exception, and what is filled in stays the same the second time."""
    before = old if isinstance(old, dict) else {}
    first = checked(given, old=before)
    second = checked(first.inputs, old=before)
    assert list(second.inputs) == list(first.inputs)
    assert repr(second.inputs) == repr(first.inputs)  # NaN is not equal to itself
    assert sorted(map(str, second.failures)) == sorted(map(str, first.failures))


@given(streams)
def test_check_takes_what_it_gave(stream: Any) -> None:
    given = stream.wire()
    given.pop("owner", None)
    found = checked(given)
    if found.stream is not None:
        assert checked(found.inputs) == found
        assert found.stream == stream.model_copy(update={"owner": None})
