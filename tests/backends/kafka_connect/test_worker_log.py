"""What Kafka Connect tells of its log: the traces of what has failed, or where the log is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.kafka_connect.worker_log import NOTE, traces_of
from replicator.errors import Unsupported

from tests.backends.kafka_connect.mirror.builders import connector, declare, deployed

RECORD = StreamRecord(stream=declare())


def stream(states: str, *, others: str | None = None) -> DeployedStream:
    """A stream by the states of its connector, and perhaps of a second one."""
    made = deployed(RECORD, states, trace="a.b.C: it broke")
    beside = () if others is None else (connector("orders-groups", others, trace="d.E"),)
    return replace(made, others=beside)


def test_without_a_failure_the_error_says_where_the_log_is() -> None:
    with pytest.raises(Unsupported, match="its connectors are on w:1") as caught:
        traces_of(stream("RUNNING RUNNING", others="RUNNING"), None, 100)
    assert caught.value.stream == "orders"
    assert caught.value.fix == (
        "look in the log of w:1 for lines with the name of a connector of the stream: orders, orders-groups"
    )


def test_without_a_worker_the_error_says_so() -> None:
    made = stream("UNASSIGNED")
    away = replace(made, connector=replace(made.connector, worker=None))
    with pytest.raises(Unsupported, match="no worker has its connectors now") as caught:
        traces_of(away, None, 100)
    assert caught.value.fix is not None and caught.value.fix.startswith("look in the logs of the workers for lines")


def test_what_has_failed_is_told_with_its_worker() -> None:
    found = traces_of(stream("FAILED RUNNING FAILED", others="RUNNING FAILED"), None, 100)
    assert found.lines == (
        "connector orders failed on w:1: a.b.C: it broke",
        "task 1 of connector orders failed on w:1: a.b.C: it broke",
        "task 0 of connector orders-groups failed on w:1: d.E",
    )
    assert found.note == NOTE
    assert traces_of(stream("FAILED RUNNING FAILED", others="RUNNING FAILED"), None, 1).lines == found.lines[-1:]


def test_after_a_cursor_only_other_failures_are_lines() -> None:
    failed, well = stream("RUNNING FAILED"), stream("RUNNING RUNNING")
    first = traces_of(failed, None, 100)
    assert traces_of(failed, first.cursor, 100).lines == ()
    healed = traces_of(well, first.cursor, 100)
    assert (healed.lines, healed.note) == ((), None)
    assert traces_of(failed, healed.cursor, 100).lines == first.lines
