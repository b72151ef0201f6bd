"""docs/limits.md: the limits that it names are those of the code."""

from __future__ import annotations

import re

from replicator import http_unix, model
from replicator import replicator as seam
from replicator.agent import files, policy_file
from replicator.agent import log as agent_log
from replicator.authref import _MAX_FILE
from replicator.backends.kafka_connect import cluster, record, rest
from replicator.backends.kafka_connect.mirror.source_view import MOST_TIMES
from replicator.backends.sqlite import traffic, uploads
from replicator.cli import daemonize, logs
from replicator.lifecycle.wait import DEFAULT_TIMEOUT
from replicator.remote import address, connection, inbound, pending, routes

from tests.test_documentation import DOCS

PAGE = (DOCS / "limits.md").read_text("utf-8")
ROWS: dict[str, str] = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", PAGE, re.MULTILINE))
KIB, MIB = 1 << 10, 1 << 20


def row(begins: str) -> str:
    """What the page says of the one thing whose name begins so."""
    (found,) = [value for name, value in ROWS.items() if name.startswith(begins)]
    return found


def test_the_limits_of_names_and_texts() -> None:
    assert row("name of a stream").startswith(f"{model.NAME_LIMIT} characters")
    for name, pattern in (("name of a bookmark", model.BOOKMARK_NAME), ("name of a region", model.REGION)):
        length = int(row(name).split()[0])
        assert re.match(pattern, "a" * length)
        assert not re.match(pattern, "a" * (length + 1))
    assert row("a text input") == f"{model.TEXT_LIMIT:,} characters"
    assert row("a position").startswith(f"{model.LSN_LIMIT:,} characters")
    assert row("path of a socket") == f"{address.SOCKET_PATH_LIMIT - 1} bytes"


def test_the_limits_of_an_agent() -> None:
    assert row("a request to an agent") == f"{routes.HEAD_LIMIT // KIB} KiB, {routes.BODY_LIMIT // MIB} MiB"
    assert http_unix._BODY_LIMIT == rest._BODY_LIMIT
    assert row("an answer of an agent") == f"{http_unix._BODY_LIMIT // MIB} MiB"
    assert inbound._SHARE == 4
    most = f"at most {inbound._MOST}; a client opens at most {connection._CONNECTIONS}"
    assert row("connections to an agent").endswith(most)
    assert row("operations of an agent") == f"{pending.MOST:,}; an answer is kept for {pending.KEPT_FOR / 60:g} minutes"
    assert policy_file._LIMIT == _MAX_FILE
    assert row("a policy file") == f"{_MAX_FILE // MIB} MiB"
    assert row("a file of the registry") == f"{files._MOST // MIB} MiB"
    assert seam.LOG_LINES == logs.MOST_LINES
    assert row("lines of `replicator logs`") == f"{seam.LOG_LINES:,} lines, {seam.LOG_BYTES // KIB} KiB"
    assert row("the log of an agent").startswith(f"{agent_log._MOST_BYTES / 1e6:g} MB")
    assert row("stop of an agent") == f"{daemonize.STOP_WITHIN:g} seconds"


def test_the_limits_of_streams() -> None:
    assert row("configuration of a connector") == f"{record.CONFIG_LIMIT // KIB} KiB"
    assert row("replays that a stream on Kafka Connect") == str(record.KEPT_REPLAYS)
    assert row("changes, and looks") == f"{cluster.CHANGES}, and {cluster.READS}"
    assert row("partitions whose oldest") == str(MOST_TIMES)
    assert row("a wait of an `up`") == f"{DEFAULT_TIMEOUT / 60:g} minutes"
    assert uploads.PART == 5 * MIB
    assert traffic.STILL_FOR == 60
    assert row("a file above 5 MB") == f"given up below {traffic._PROGRESS // KIB} kB in a minute"
