"""Which settings of an adopted connector stay as they are when the declaration changes."""

from __future__ import annotations

import pytest
from replicator.backends.kafka_connect.deployed import DeployedStream, foreign_settings
from replicator.backends.kafka_connect.kept_settings import carry_over, keeps_login, kept_of
from replicator.backends.kafka_connect.record import StreamRecord

from tests.backends.kafka_connect.mirror.builders import connector, declare

LOGIN = ("user", "password")
THERE = {"user": "hand", "password": "in clear", "tasks": "4", "topics": "a|b"}
BUILT = {"user": "${u}", "password": "${p}", "tasks": "1", "topics": "a", "mode": "x"}


def adopted(*kept: str) -> DeployedStream:
    return DeployedStream(connector("orders", "RUNNING", **THERE), StreamRecord(stream=declare(), kept=kept))


def test_what_differs_at_the_adoption_is_kept() -> None:
    assert kept_of(adopted(), {**BUILT, "topics": "a|b"}) == ("mode", "password", "tasks", "user")


@pytest.mark.parametrize(
    ("changed", "kept", "config"),
    [
        ({}, ("mode", "password", "tasks", "topics", "user"), THERE),
        ({"topics": "a,c"}, ("mode", "password", "tasks", "user"), {**THERE, "topics": "a,c"}),
        ({"mode": "y"}, ("password", "tasks", "topics", "user"), {**THERE, "mode": "y"}),
        ({"user": "${v}"}, ("mode", "tasks", "topics"), {**THERE, "user": "${v}", "password": "${p}"}),
        ({"new": "1"}, ("mode", "password", "tasks", "topics", "user"), {**THERE, "new": "1"}),
    ],
)
def test_a_setting_stays_until_the_declaration_changes_it(
    changed: dict[str, str], kept: tuple[str, ...], config: dict[str, str]
) -> None:
    deployed = adopted("mode", "password", "tasks", "topics", "user")
    assert carry_over(deployed, BUILT, {**BUILT, **changed}, [LOGIN]) == (kept, config)


def test_what_is_kept_is_no_foreign_change() -> None:
    deployed = adopted("mode", "password", "tasks", "topics")
    assert foreign_settings(deployed.connector, BUILT, deployed.record.kept) == {"user": "hand"}


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("tasks.max", "value"),
        ("snapshot.query", "[redacted]"),
        ("value.converter.basic.auth.user.info", "[redacted]"),
        ("value.converter.new.credentials", "[redacted]"),
        ("source.cluster.sasl.client.callback.handler.class", "[redacted]"),
    ],
)
def test_what_may_hold_a_secret_is_not_shown(key: str, shown: str) -> None:
    assert foreign_settings(connector("orders", "RUNNING", **{key: "value"}), {}, ()) == {key: shown}


def test_a_login_is_kept_while_its_end_stays() -> None:
    stream = declare()
    other = stream.source.model_copy(update={"auth_ref": "env://KAFKA_*"})
    assert keeps_login(adopted("password"), LOGIN, stream.source, stream.source)
    assert not keeps_login(adopted("password"), LOGIN, stream.source, other)
    assert not keeps_login(adopted("tasks"), LOGIN, stream.source, stream.source)
    assert not keeps_login(None, LOGIN, stream.source, stream.source)
