"""What is told of a Java stack trace where a placeholder stands for a secret."""

from __future__ import annotations

import pytest
from replicator.backends.kafka_connect.connector import read_connector, read_status

SECRET = "c4n4ry"
CONFIG = {"connector.class": "Mirror", "consumer.max.poll.records": "${env:X}", "topics": "orders"}
WRONG_VALUE = (
    f"org.apache.kafka.common.config.ConfigException: Invalid value {SECRET} for configuration "
    "consumer.max.poll.records: Not a number of type INT\n\tat org.apache.kafka.common.config.C.parse(C.java:9)\n"
)
TOO_LARGE = (
    "org.apache.kafka.connect.errors.ConnectException: Unrecoverable exception from producer send callback\n"
    "\tat org.apache.kafka.connect.runtime.WorkerTask.run(WorkerTask.java:298)\n"
    "Caused by: org.apache.kafka.common.errors.RecordTooLargeException: The message is 2000088 bytes.\n\t... 9 more\n"
)


def status(trace: str) -> dict[str, object]:
    return {
        "name": "orders",
        "type": "source",
        "connector": {"state": "RUNNING", "worker_id": "w:1"},
        "tasks": [{"id": 0, "state": "FAILED", "worker_id": "w:1", "trace": trace}],
    }


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        (WRONG_VALUE, "org.apache.kafka.common.config.ConfigException (setting consumer.max.poll.records)"),
        (
            TOO_LARGE,
            "org.apache.kafka.connect.errors.ConnectException Caused by: "
            "org.apache.kafka.common.errors.RecordTooLargeException: The message is 2000088 bytes.",
        ),
        (f'java.lang.NumberFormatException: For input string: "{SECRET}"', "java.lang.NumberFormatException"),
        (f"a.b.C$D: {SECRET}\nCaused by: a.b.E\n\tat x", "a.b.C$D Caused by: a.b.E"),
        (f"{SECRET} of another form", "the trace is not shown, because the configuration has secrets"),
    ],
)
def test_a_trace_is_reduced_to_classes_and_settings(trace: str, expected: str) -> None:
    info = {"name": "orders", "type": "source", "config": CONFIG}
    assert read_connector(info, status(trace), str).trace == expected
    assert SECRET not in str(read_status(status(trace), str)), "the configuration is not known"


def test_without_placeholders_it_is_whole() -> None:
    info = {"name": "orders", "type": "source", "config": {"topics": "orders"}}
    assert "Invalid value c4n4ry for configuration" in str(read_connector(info, status(WRONG_VALUE), str).trace)
