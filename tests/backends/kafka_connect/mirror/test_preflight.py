"""What a preview says of a mirror besides loops and logins: settings that do not work, and what a pause costs."""

from __future__ import annotations

from typing import Any

import pytest
from replicator.errors import DestinationInUse, InvalidStream, ReplayNotRetained
from replicator.model import DesiredState
from replicator.replicator import Severity

from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv

pytestmark = pytest.mark.engine

GROUPS = {"sync.group.offsets.enabled": True}


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"replication.factor": 2}, "replication.factor"),
        (GROUPS, "offset-syncs.topic.replication.factor"),
        (GROUPS | {"offset-syncs.topic.replication.factor": 1}, "checkpoints.topic.replication.factor"),
        ({"emit.heartbeats.enabled": True}, "heartbeats.topic.replication.factor"),
        ({"tasks.max": "many"}, "tasks.max"),
        ({"replication.policy.class": "com.example.Policy"}, "replication.policy.class"),
        ({"worker.cluster": "here"}, "worker.cluster"),
    ],
)
async def test_an_option_that_cannot_work_is_refused_by_its_name(
    bed: MirrorEnv, options: dict[str, Any], option: str
) -> None:
    stream = bed.stream("orders", options=options)
    (finding,) = await bed.driver.preflight(stream)
    assert (finding.severity, finding.property) == (Severity.ERROR, f"options.{option}")
    with pytest.raises(InvalidStream) as refused:
        await bed.driver.upsert_stream(stream)
    assert refused.value.property == finding.property


async def test_a_pause_says_how_long_the_source_keeps_what_was_not_copied(bed: MirrorEnv) -> None:
    short, long = bed.topic(retention_ms="7200000"), bed.topic(retention_ms="-1")
    compacted = bed.topic(cleanup_policy="compact", retention_ms="1000")
    stream = bed.stream(short, include=[short, long, compacted])
    assert await bed.driver.preflight(stream) == []
    paused = stream.model_copy(update={"desired_state": DesiredState.PAUSED})
    (warning,) = await bed.driver.preflight(paused)
    assert (warning.severity, warning.code, warning.property) == (
        Severity.WARNING,
        ReplayNotRetained.code,
        "desiredState",
    )
    assert f"{short} keeps a record for 2h at most" in warning.message
    assert await bed.driver.preflight(paused.model_copy(update={"include": (long, compacted)})) == []


async def test_topics_that_are_there_already_are_told(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.topic(at=bed.destination, name=bed.copy_of(topic))
    (warning,) = await bed.driver.preflight(bed.stream(topic))
    assert (warning.severity, warning.code) == (Severity.WARNING, DestinationInUse.code)
    assert bed.copy_of(topic) in warning.message
