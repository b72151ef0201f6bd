"""`replicator agent takeover` on the host of a new agent."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator.cli.agent_takeover import _plan
from replicator.model import Checkpoint
from replicator.replicator import Takeover

from tests.agent.support import Host, call, replicate_orders
from tests.agent.support import host as make_host
from tests.engines import add_rows

pytestmark = pytest.mark.engine


@pytest.fixture
def gone() -> Iterator[Host]:
    """A host whose agent was killed, and whose records are lost; what it uploaded is on another file system."""
    with make_host() as made:
        made.start()
        replicate_orders(made)
        made.end(signal.SIGKILL)
        shutil.rmtree(made.state)
        yield made


HERE = socket.gethostname()


def place(gone: Host) -> str:
    return f"file://{gone.folder}/replicas/orders"


def take_over(host: Host, gone: Host, *more: str) -> tuple[int, str, str]:
    return call("agent", "takeover", place(gone), "--socket", str(host.socket), *more)


def test_a_plan_changes_nothing(host: Host, gone: Host) -> None:
    host.start()
    code, out, err = take_over(host, gone, "--dry-run")
    assert (code, err) == (0, "")
    newest, claimed, runs, then = out.splitlines()
    assert newest.startswith(f"The newest transaction at {place(gone)} is 0000000000000")
    assert f" on host {socket.gethostname()} claims it since " in claimed
    assert claimed.endswith("for its stream 'orders', which urn:orders manages.")
    assert "stops that stream within 5 minutes" in runs
    assert then == f"The next stream there begins with a whole copy under {place(gone)}/r2. What is there stays."
    assert take_over(host, gone, "--dry-run")[1] == out


def test_the_next_stream_begins_beside_what_is_there(host: Host, gone: Host) -> None:
    host.start()
    database = host.database()
    restored = asyncio.run(gone.restore())
    shutil.copy(restored, database)
    code, out, err = take_over(host, gone, "--database", str(database), "--lost-host", HERE)
    assert (code, err) == (0, "")
    assert f"{database} has the content of that transaction." in out
    assert out.endswith("and run:\n  pulumi up --refresh --run-program\n")

    stream = host.stream(destination={"kind": "s3", "uri": place(gone)})

    async def declare() -> None:
        async with host.client() as client:
            await client.upsert_stream(stream)

    asyncio.run(declare())
    assert call("wait", "orders", "--address", host.address)[0] == 0
    objects = json.loads(call("describe", "orders", "--address", host.address, "--json")[1])["engineObjects"]
    assert objects["replica"] == f"{place(gone)}/r2"
    code, _, err = take_over(host, gone, "--lost-host", HERE)
    assert code == 1
    assert "error: destination.uri: this agent replicates its stream 'orders' to" in err


def test_a_database_with_other_content_is_taken_only_on_purpose(host: Host, gone: Host) -> None:
    host.start()
    database = host.database()
    shutil.copy(asyncio.run(gone.restore()), database)
    add_rows(database, 1)
    code, out, err = take_over(host, gone, "--database", str(database), "--lost-host", HERE)
    assert code == 2
    assert f"{database} does not have the content of that transaction." in out
    assert "--accept-difference" in err
    (_, claimed, *_) = take_over(host, gone, "--dry-run")[1].splitlines()
    assert "urn:orders manages" in claimed
    assert take_over(host, gone, "--database", str(database), "--lost-host", HERE, "--accept-difference")[0] == 0


def test_without_a_terminal_it_asks_nobody(host: Host, gone: Host) -> None:
    host.start()
    code, out, err = take_over(host, gone)
    assert (code, out) == (2, "")
    assert "there is no terminal to ask on" in err


@pytest.mark.parametrize(
    ("more", "code"), [(["--yes"], 2), (["--lost-host", "another-host"], 1), (["--yes", "--lost-host", "another"], 1)]
)
def test_only_the_name_of_the_lost_host_confirms_it(more: list[str], code: int, host: Host, gone: Host) -> None:
    host.start()
    found, out, err = take_over(host, gone, *more)
    assert found == code
    assert "name the host that is gone" in err if code == 2 else f"the claim names the host {HERE}" in out
    assert "urn:orders manages" in take_over(host, gone, "--dry-run")[1]


def test_as_json(host: Host, gone: Host) -> None:
    host.start()
    code, out, _ = take_over(host, gone, "--dry-run", "--json")
    found = Takeover.model_validate_json(out)
    assert (code, found.stream, found.host, found.same) == (0, "orders", socket.gethostname(), None)


def test_a_url_that_is_none(host: Host) -> None:
    host.start()
    code, _, err = call("agent", "takeover", "orders", "--socket", str(host.socket), "--dry-run")
    assert (code, "such as s3://" in " ".join(err.split())) == (2, True)


def test_what_nobody_claims_is_said_so() -> None:
    found = Takeover(newest=Checkpoint(lsn="000000000000000c"), next_prefix="s3://b/x/r2")
    assert list(_plan("s3://b/x", Path("/srv/shop.db"), found)) == [
        "The newest transaction at s3://b/x is 000000000000000c.",
        "No agent claims it.",
        "The next stream there begins with a whole copy under s3://b/x/r2. What is there stays.",
    ]
    assert next(iter(_plan("s3://b/x", None, Takeover(next_prefix="s3://b/x/r2")))) == "s3://b/x holds no transaction."
