"""`replicator describe`, `replays` and `wait` on live streams."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from datetime import datetime

import pytest

from tests.agent.support import COMMAND, Host, call
from tests.engines import add_rows, make_database
from tests.waiting import wait_until

pytestmark = pytest.mark.engine


def replay(host: Host, key: str) -> str:
    """Write a copy under a key, and return its path."""
    (found,) = json.loads(call("status", "orders", "--address", host.address, "--json")[1])
    copy = str(host.folder / f"{key}.db")
    lsn = found["lastCheckpoint"]["lsn"]
    made = call("replay", "orders", "--lsn", lsn, "--target", copy, "--key", key, "--yes", "--address", host.address)
    assert made[0] == 0, made
    return copy


def test_one_view_of_all_that_is_known(live: Host) -> None:
    copy = replay(live, "incident-1")
    code, out, err = call("describe", "orders", "--address", live.address)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    labels = dict(line.split(":", 1) for line in lines[: lines.index("Declaration:")])
    assert {key: value.strip() for key, value in labels.items() if key in ("Name", "Id", "State", "Owner", "Lag")} == {
        "Name": "orders",
        "Id": "litestream/default/orders",
        "State": "running",
        "Owner": "urn:orders",
        "Lag": "0 s, 0 events behind",
    }
    assert f"    uri: sqlite://{live.database()}" in lines
    objects = lines[lines.index("Engine objects:") :]
    assert any(line.startswith("  sideFolder: ") for line in objects)
    row = lines[-1].split()
    assert (row[0], row[1], row[2]) == ("incident-1", "done", "copy")
    assert copy in lines[-1]

    code, out, _ = call("describe", "litestream/default/orders", "--address", live.address, "--json")
    found = json.loads(out)
    assert (code, found["name"], found["declaration"]["source"]["kind"]) == (0, "orders", "sqlite")
    assert [item["key"] for item in found["replays"]] == ["incident-1"]


def test_replays_are_listed_newest_first(live: Host) -> None:
    for key in ("incident-2", "incident-3"):
        replay(live, key)
    code, out, _ = call("replays", "orders", "--address", live.address)
    assert code == 0
    heading, *rows = (line.split() for line in out.splitlines())
    assert heading == ["key", "state", "method", "began", "took", "from", "result"]
    assert [row[0] for row in rows][:2] == ["incident-3", "incident-2"]
    found = json.loads(call("replays", "orders", "--address", live.address, "-o", "json")[1])
    began = [datetime.fromisoformat(item["startedAt"]) for item in found]
    assert began == sorted(began, reverse=True)


def test_of_a_stream_without_replays_nothing_is_listed(host: Host) -> None:
    host.start()
    make_database(host.database())

    async def declare() -> None:
        async with host.client() as client:
            await client.upsert_stream(host.stream())

    asyncio.run(declare())
    assert call("replays", "orders", "--address", host.address) == (0, "orders has no replays\n", "")
    assert "Replays:" not in call("describe", "orders", "--address", host.address)[1]


@pytest.mark.parametrize("command", ["describe", "replays", "wait"])
def test_a_stream_that_is_not_there(command: str, live: Host) -> None:
    code, out, err = call(command, "nothing", "--address", live.address)
    assert (code, out) == (1, "")
    assert "error: stream 'nothing': the agent has no such stream [RPL-STREAM-NOTFOUND]" in err


def test_a_failed_stream_ends_describe_with_1(host: Host) -> None:
    database = make_database(host.database())
    host.start()

    async def declare() -> None:
        async with host.client() as client:
            await client.upsert_stream(host.stream())

    asyncio.run(declare())
    database.rename(database.with_suffix(".away"))
    wait_until(lambda: call("describe", "orders", "--address", host.address)[0] == 1, what="it has failed", timeout=15)
    code, out, _ = call("wait", "orders", "--timeout", "5s", "--address", host.address)
    assert code == 1
    assert out.startswith("orders is failed: ")


def test_a_wait_ends_when_all_has_arrived(live: Host) -> None:
    add_rows(live.database(), 50)
    code, out, err = call("wait", "orders", "--for", "caught_up", "--timeout", "30s", "--address", live.address)
    assert (code, out, err) == (0, "orders is running\n", "")
    (found,) = json.loads(call("status", "orders", "--address", live.address, "--json")[1])
    assert found["lagEvents"] == 0


def test_a_wait_for_a_paused_stream_says_so(live: Host) -> None:
    call("pause", "orders", "--address", live.address)
    try:
        assert call("wait", "orders", "--address", live.address)[:2] == (1, "orders is paused\n")
    finally:
        call("resume", "orders", "--address", live.address)


def test_a_wait_in_vain_says_how_to_see_why(live: Host) -> None:
    call("wait", "orders", "--address", live.address)
    for pid in live.litestreams():  # it writes no more, and nothing says that it failed
        subprocess.run(["kill", "-STOP", str(pid)], check=True)
    try:
        add_rows(live.database(), 5)
        code, _, err = call("wait", "orders", "--timeout", "1s", "--address", live.address)
        assert code == 1
        assert "the wait for caught up took longer than 1 s; nothing was undone" in err
        assert f"or see why: replicator describe --address {live.address} orders" in err
        waiting = subprocess.Popen(
            [COMMAND, "wait", "orders", "--address", live.address], stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        assert "waiting" in waiting.stderr.readline() or waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(20) == 130
        waiting.stderr.close()
    finally:
        for pid in live.litestreams():
            subprocess.run(["kill", "-CONT", str(pid)], check=True)
