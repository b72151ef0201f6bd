"""docs/troubleshooting.md: its texts are what the product says, and its codes exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from datetime import UTC, datetime

import pytest
from replicator.backends.kafka_connect.debezium.status import _held
from replicator.backends.kafka_connect.mirror.replay_planner import refuse_gaps
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres.slots import Slot
from replicator.errors import BY_CODE, AgentUnreachable, ReplayNotRetained
from replicator.lifecycle.preflight import _unseen, sentence

from tests.agent.support import Host, command, replicate_orders
from tests.agent.support import host as make_host
from tests.backends.kafka_connect.mirror.builders import at, declare, seen
from tests.test_documentation import DOCS, parts
from tests.waiting import wait_until
from tools.docs import OF_THE_PLUGIN

PAGE = (DOCS / "troubleshooting.md").read_text("utf-8")
GOLDEN: dict[str, str] = json.loads((DOCS.parent / "tests/golden/errors.json").read_text("utf-8"))


def squeeze(text: str) -> str:
    """A text without its line breaks and its indentation."""
    return " ".join(text.split())


QUOTES = [squeeze(token.content) for token in parts(PAGE) if token.type == "fence" and token.info == "text"]


def quote(word: str) -> str:
    """The one quote that holds a word."""
    (found,) = [text for text in QUOTES if word in text]
    return found


def unseen() -> str:
    """What a preview says of an agent that is down."""
    message, fix = GOLDEN["RPL-AGENT-DOWN"].split(" [RPL-AGENT-DOWN]\n  → ")
    return sentence(_unseen(AgentUnreachable(message, fix=fix)))


def gap() -> str:
    """What a mirror says whose source has deleted what comes next."""
    with pytest.raises(ReplayNotRetained) as raised:
        refuse_gaps(
            StreamRecord(stream=declare(backend="kafka-mirror")), at("orders=40"), seen("orders=200", "orders=100")
        )
    return str(raised.value)


def slot() -> str:
    """What the status of a stopped Debezium stream says of its slot."""
    found = Slot(
        name="orders",
        plugin="pgoutput",
        database="shop",
        active_pid=None,
        confirmed=900_000_000,
        restart=700_000_000,
        held=4_300_000_000,
        wal_status="extended",
        left=None,
        end=5_000_000_000,
        now=datetime(2026, 1, 31, tzinfo=UTC),
    )
    (finding,) = _held(found, None)
    return finding.message


def pulumi() -> str:
    """What Pulumi says, as another page has it, whose test runs it."""
    (found,) = re.findall("^no resource plugin .*$", (DOCS / "installation.md").read_text("utf-8"), re.MULTILINE)
    return str(found)


OF_AN_ENGINE = ("ended with", "$ replicator status")
"""The quotes of the test below that starts an agent."""


def test_every_quote_is_what_the_product_says() -> None:
    known = [squeeze(text) for text in (*GOLDEN.values(), unseen(), gap(), slot(), pulumi())]
    others = [text for text in QUOTES if not any(text in said for said in known)]
    assert others == [quote(word) for word in reversed(OF_AN_ENGINE)]
    assert len(QUOTES) > 8


def test_every_code_exists() -> None:
    named = set(re.findall(r"RPL-[A-Z]+-[A-Z]+", PAGE))
    assert named <= {*BY_CODE, *OF_THE_PLUGIN}
    assert len(named) > 15


def test_every_symptom_of_the_table_has_a_section() -> None:
    """And every section is in the table, but the last one."""
    table = re.findall(r"^\| .* \| \[.*\]\(#(.*)\) \|$", PAGE.partition("\n## ")[0], re.MULTILINE)
    headings = re.findall("^## (.*)$", PAGE, re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert sorted(table) == sorted(names[:-1])


@pytest.mark.engine
def test_a_process_that_was_killed_and_a_replica_that_was_deleted_are_told_so() -> None:
    with make_host() as host:
        host.start(*host.grant_all())
        replicate_orders(host)
        (litestream,) = host.litestreams()
        os.kill(litestream, signal.SIGKILL)
        wait_until(lambda: "ended with" in host.log(), what="the agent tells it")
        (line,) = [line for line in host.log().splitlines() if "ended with" in line]
        time, _, told = line.partition(" ")
        assert time.endswith("Z")
        assert re.sub(r"\S*/litestream", "litestream", told) == quote("ended with")

        wait_until(host.litestreams, what="litestream runs again")
        assert command("wait", "orders", "--address", host.address).returncode == 0
        shutil.rmtree(host.folder / "replicas/orders")
        wait_until(lambda: failed(host), what="the stream has failed", timeout=120, interval=1)
        ended = command("status", "--address", host.address)
        said = ended.stdout.replace(str(host.folder), "/var/lib/shop")
        assert (ended.returncode, squeeze(f"$ replicator status {said}")) == (1, quote("$ replicator status"))


def failed(host: Host) -> bool:
    return command("status", "--quiet", "--address", host.address).returncode == 1
