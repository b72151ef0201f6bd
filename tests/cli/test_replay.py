"""`replicator replay` on a live stream: the plan, the question, the run, the same key again."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
from datetime import UTC, datetime

import pytest
from replicator.backends.sqlite.database import content_hash

from tests.agent.support import COMMAND, Host, call, caught_up
from tests.engines import add_rows

pytestmark = pytest.mark.engine


def replay(host: Host, *arguments: str) -> tuple[int, str, str]:
    return call("replay", "orders", *arguments, "--address", host.address)


def position(host: Host) -> str:
    """The last position that is uploaded."""
    [status] = json.loads(call("status", "orders", "--json", "--address", host.address)[1])
    lsn = status["lastCheckpoint"]["lsn"]
    assert isinstance(lsn, str)
    return lsn


def write_on(host: Host) -> None:
    async def body() -> None:
        add_rows(host.database(), 10)
        async with host.client() as client:
            await caught_up(client)

    asyncio.run(body())


def test_the_plan_is_said_and_nothing_else_happens(live: Host) -> None:
    lsn, target = position(live), live.folder / "planned.db"
    code, out, err = replay(live, "--lsn", lsn, "--target", str(target), "--plan")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"Replay of orders by copy, from {lsn} (20")
    assert any(line.startswith("Retained is what lies between 0") for line in lines)
    assert any(line.startswith("It reads ") and line.endswith("B.") for line in lines)
    assert f"The database as of transaction {lsn} is written to {target} on its host." in lines
    assert not target.exists()


def test_a_copy_is_exact_and_the_same_command_again_joins_it(live: Host) -> None:
    lsn, then, target = position(live), asyncio.run(content_hash(live.database())), live.folder / "copy.db"
    write_on(live)
    request = ("--lsn", lsn, "--target", str(target), "--yes")
    code, out, err = replay(live, *request)
    assert code == 0
    assert err == ""
    assert out.splitlines()[-1] == f"done: the database as of {lsn} is at {target}"
    assert asyncio.run(content_hash(target)) == then
    assert asyncio.run(content_hash(live.database())) != then
    [key] = [line.removeprefix("Its key is ").rstrip(".") for line in out.splitlines() if line.startswith("Its key is")]

    before = target.stat().st_mtime_ns
    code, out, _ = replay(live, *request)
    assert code == 0
    first, last = out.splitlines()
    assert first.startswith(f"The replay {key} ran already; it began 20")
    assert last == f"done: the database as of {lsn} is at {target}"
    assert target.stat().st_mtime_ns == before

    code, _, err = replay(live, *request, "--key", "another")
    assert code == 1
    assert "exists, and nothing is written over" in err
    target.unlink()
    code, out, _ = replay(live, *request)
    gone = f"the copy was written to {target}, and was removed since; a replay with another key writes it again"
    assert (code, out.splitlines()[-1]) == (0, f"done: {gone}")
    assert not target.exists()


def test_a_time_is_resolved_to_the_point_before_it(live: Host) -> None:
    target = str(live.folder / "timed.db")
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    code, out, err = replay(live, "--time", now, "--target", target, "--plan")
    assert (code, err) == (0, "")
    assert f"from {position(live)} (" in out.splitlines()[0]
    assert f"That is where it can start for {now}, which was asked for." in out
    code, _, err = replay(live, "--time", "2020-01-01T00:00:00Z", "--target", target, "--plan")
    assert code == 1
    assert "[RPL-REPLAY-RETENTION]" in err


def test_without_a_terminal_it_does_not_ask(live: Host) -> None:
    code, out, err = replay(live, "--lsn", position(live), "--target", str(live.folder / "unasked.db"))
    assert (code, out) == (2, "")
    assert "there is no terminal to ask on" in err
    assert not (live.folder / "unasked.db").exists()


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_on_a_terminal_it_asks(live: Host, answer: str, code: int) -> None:
    target = live.folder / f"asked-{answer}.db"
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [COMMAND, "replay", "orders", "--lsn", position(live), f"--target={target}", f"--address={live.address}"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.write(ours, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Do it? [y/N]:" in out
    assert process.returncode == code
    assert target.exists() == (answer == "y")
    assert ("Nothing was done." in out) == (answer == "n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say where to start"),
        (("--lsn", "1", "--time", "2026-01-31T12:00:00Z"), "say where to start"),
        (("--time", "yesterday"), "needs a date, a time and a time zone"),
        (("--time", "2026-01-31T12:00:00"), "needs a time zone"),
        (("--lsn", "1", "--method", "magic"), "'magic' is not a method; there are auto, copy, reseed"),
    ],
)
def test_a_wrong_command_line_ends_with_2(host: Host, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = replay(host, *arguments, "--yes")
    assert (code, out) == (2, "")
    assert words in " ".join(err.split())


def test_what_the_engine_refuses_is_an_error_with_a_way_out(live: Host) -> None:
    code, _, err = replay(live, "--lsn", "00000000000fffff", "--target", str(live.folder / "never.db"), "--plan")
    assert code == 1
    assert "00000000000fffff is not retained; the nearest points are" in err
    code, _, err = replay(live, "--lsn", position(live), "--method", "log_rewind", "--yes")
    assert code == 1
    assert "[RPL-CAP-UNSUPPORTED]" in err


def test_a_reseed_is_planned_with_what_it_does_to_the_destination(live: Host) -> None:
    code, out, err = replay(live, "--lsn", position(live), "--method", "reseed", "--plan")
    assert (code, err) == (0, "")
    assert "The destination gets again what it holds already." in out
    assert "The position is ignored" in out


def test_a_replay_that_fails_ends_with_1(live: Host) -> None:
    # The folder is there when the plan is made, and nothing can be made in it.
    code, out, _ = replay(live, "--lsn", position(live), "--target", "/proc/copy.db", "--key", "will-fail", "--yes")
    assert code == 1
    assert out.splitlines()[-1].startswith("failed: ")
