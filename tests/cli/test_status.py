"""`replicator status`, `pause` and `resume` on a live stream."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from replicator.cli.output import rough
from replicator.cli.status import _cells, show_statuses
from replicator.cli.where import Where
from replicator.model import Checkpoint, StreamState, StreamStatus, format_size
from replicator.replicator import Description

from tests.agent.support import Host, call, caught_up
from tests.engines import add_rows, make_database
from tests.waiting import wait_until

pytestmark = pytest.mark.engine


def look(host: Host, *arguments: str) -> tuple[int, str, str]:
    return call("status", *arguments, "--address", host.address)


def test_the_table_has_one_line_a_stream(live: Host) -> None:
    code, out, err = look(live)
    assert (code, err) == (0, "")
    heading, line = out.splitlines()
    assert heading.split() == ["name", "state", "lag", "behind", "checkpoint", "last", "event", "errors/h"]
    cells = line.split()
    assert cells[:5] == ["orders", "running", "0.0", "s", "0"]
    assert len(cells[5]) == 16 and int(cells[5], 16) > 1
    assert cells[-3:] == ["s", "ago", "0"]


def test_json_is_a_list_of_statuses_with_null_for_unknown(live: Host) -> None:
    code, out, _ = look(live, "orders", "--json")
    assert code == 0
    [found] = json.loads(out)
    assert found["findings"] == []
    assert (found["id"], found["backend"], found["owner"]) == ("litestream/default/orders", "litestream", "urn:orders")
    assert found["source"] == {"kind": "sqlite", "uri": f"sqlite://{live.database()}"}
    assert found["destination"]["uri"] == f"file://{live.folder}/replicas/orders"
    more = {"id", "backend", "owner", "source", "destination", "findings"}
    status = StreamStatus.model_validate({key: value for key, value in found.items() if key not in more})
    assert (status.name, status.state, status.lag_events) == ("orders", StreamState.RUNNING, 0)
    assert status.last_checkpoint is not None and status.last_checkpoint.lsn is not None
    assert found["bytesReplicated"] is None
    assert json.loads(look(live, "--json")[1])[0]["name"] == "orders"


def test_a_stream_that_is_not_there_ends_with_1(live: Host) -> None:
    assert look(live, "nothing") == (
        1,
        "",
        "error: stream 'nothing': the agent has no such stream [RPL-STREAM-NOTFOUND]\n"
        f"  → see what is there: replicator list --address {live.address}\n",
    )


def test_without_an_agent_it_says_how_to_start_one(host: Host) -> None:
    code, out, err = look(host)
    assert (code, out) == (1, "")
    assert f"no agent runs at {host.address}" in err
    assert f"→ start it: replicator agent start --socket {host.socket}" in err


def test_without_a_stream_it_says_so(host: Host) -> None:
    host.start()
    assert look(host) == (0, "there are no streams\n", "")
    assert look(host, "--json") == (0, "[]\n", "")


def test_pause_says_what_it_costs_and_resume_loses_nothing(live: Host) -> None:
    code, out, err = call("pause", "orders", "--address", live.address)
    assert (code, err) == (0, "")
    first, last = out.splitlines()
    assert first.startswith("orders is paused. While it is: the replica stands still")
    assert last == f"Go on with: replicator resume --address {live.address} orders"
    add_rows(live.database(), 5)
    line = look(live)[1].splitlines()[1].split()
    assert line[:4] == ["orders", "paused", "-", "-"]
    assert call("resume", "orders", "--address", live.address) == (0, "orders is running\n", "")

    async def is_caught_up() -> None:
        async with live.client() as client:
            await caught_up(client)

    asyncio.run(is_caught_up())


def test_a_failure_is_shown_whole(host: Host) -> None:
    database = make_database(host.database())
    host.start()

    async def declare() -> None:
        async with host.client() as client:
            await client.upsert_stream(host.stream())

    asyncio.run(declare())
    database.rename(database.with_suffix(".away"))
    wait_until(lambda: "failed" in look(host)[1], timeout=15, what="the agent sees that the file is gone")
    code, out, _ = look(host)
    assert code == 1
    assert look(host, "--json")[0] == 1
    assert out.splitlines()[-1].startswith("last error of orders: ")
    assert str(database) in out.splitlines()[-1]


def test_what_is_unknown_is_a_dash() -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert _cells(StreamStatus(name="a", state=StreamState.SNAPSHOT), now) == ("a", "snapshot", *["-"] * 5)


@pytest.mark.parametrize(
    ("backend", "address", "options"),
    [
        (None, None, ""),
        (None, "ssh://app@db.example", " --address ssh://app@db.example"),
        ("kafka-mirror", "http://w:8083", " --backend kafka-mirror --address http://w:8083"),
        ("memory", "unix:///a b.sock", " --backend memory --address 'unix:///a b.sock'"),
    ],
)
def test_a_hint_leads_to_the_same_place(backend: str | None, address: str | None, options: str) -> None:
    hint = Where(backend, address).hint("see replicator list, and go on with: replicator resume orders")
    assert hint == f"see replicator list{options}, and go on with: replicator resume{options} orders"


@pytest.mark.parametrize(
    ("terminal", "wide", "shown"), [(True, False, False), (True, True, True), (False, False, True)]
)
def test_a_long_position_is_cut_on_a_terminal_alone(
    terminal: bool, wide: bool, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    lsn = ";".join(f"topic-{number}=1,2,3" for number in range(100))
    status = StreamStatus(name="a", state=StreamState.RUNNING, last_checkpoint=Checkpoint(lsn=lsn), lag_events=7)
    show_statuses({"memory/default/a": Description(stream=None, status=status)}, wide=wide, several=False)
    out = capsys.readouterr().out
    assert (lsn in out, "7" in out) == (shown, True)


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_are_left_out_where_the_environment_says_so(
    no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    failed = StreamStatus(name="a", state=StreamState.FAILED)
    show_statuses({"memory/default/a": Description(stream=None, status=failed)}, wide=False, several=False)
    assert ("\x1b[31mfailed" in capsys.readouterr().out) is coloured


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (0.4, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (200000, "2 d")]
)
def test_spans_are_rough(seconds: float, text: str) -> None:
    assert rough(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000_000_000, "2000.0 GB")]
)
def test_sizes_have_units(count: int, text: str) -> None:
    assert format_size(count) == text


@pytest.mark.parametrize(
    ("events", "seconds", "shown"),
    [(0, 0.0, "0.0 s"), (6, 0.0, "<0.1 s"), (6, 0.04, "<0.1 s"), (6, 0.05, "0.1 s"), (6, 9.0, "9.0 s"), (6, None, "-")],
)
def test_a_lag_with_waiting_events_is_never_shown_as_none(events: int, seconds: float | None, shown: str) -> None:
    status = StreamStatus(name="a", state=StreamState.RUNNING, lag_events=events, lag_seconds=seconds)
    assert _cells(status, datetime.now(UTC))[2] == shown
