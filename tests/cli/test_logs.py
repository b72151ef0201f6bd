"""`replicator logs` on live streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from replicator.backends.sqlite.process_log import ANEW
from replicator.cli.logs import MOST_LINES, readable
from replicator.model import Stream
from replicator.replicator import LOG_LINES

from tests.agent.support import COMMAND, Host, call
from tests.agent.support import host as make_host
from tests.engines import S3Server, add_rows, make_database, s3_server
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

STARTED = "INFO litestream version="
"""The first line of each litestream process, which names no database."""


def logs(host: Host, *arguments: str) -> tuple[int, str, str]:
    return call("logs", *arguments, "--address", host.address)


def declare(host: Host, *streams: Stream) -> None:
    async def body() -> None:
        async with host.client() as client:
            for stream in streams:
                await client.upsert_stream(stream)

    for stream in streams:
        make_database(Path(stream.source.uri.removeprefix("sqlite://")), rows=3)
    asyncio.run(body())


def twin(host: Host) -> Stream:
    """A stream of a database in another folder, with the file name of that of `orders`."""
    (host.folder / "x").mkdir()
    return host.stream("twin", source={"kind": "sqlite", "uri": f"sqlite://{host.folder}/x/orders.db"})


def break_replica(host: Host, name: str, database: Path | None = None) -> None:
    """Put a file in the place of a replica, and change the database, so that litestream logs an error."""
    replica = host.folder / "replicas" / name
    replica.rename(replica.with_name(f"{name}-away"))
    replica.write_text("")
    add_rows(database or host.database(name))


def has_error(host: Host, name: str) -> bool:
    return "not a directory" in logs(host, name)[1]


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    """An agent with one process for `orders`, `users` and `twin`, of which the last two have errors in the log."""
    with make_host() as made:
        made.start()
        declare(made, made.stream(), made.stream("users"), twin(made))
        for name, database in (("users", made.database("users")), ("twin", made.folder / "x" / "orders.db")):
            break_replica(made, name, database)
            wait_until(partial(has_error, made, name), what=f"an error of {name}")
        yield made


def test_streams_of_one_process_see_their_own_lines_alone(shared: Host) -> None:
    errors = {}
    for name in ("orders", "users", "twin"):
        code, out, _ = logs(shared, name)
        assert code == 0
        assert STARTED in out
        errors[name] = [line for line in out.splitlines() if "not a directory" in line]
    assert errors["orders"] == []
    assert errors["users"] and errors["twin"]
    assert all(f" db={shared.database('users')} " in line for line in errors["users"])
    assert all(f" db={shared.folder}/x/orders.db " in line for line in errors["twin"])
    assert "users" not in logs(shared, "orders")[1] + logs(shared, "twin")[1]


def test_a_line_is_for_people_or_as_the_engine_wrote_it(shared: Host) -> None:
    last = logs(shared, "users", "--lines", "1")[1]
    time, level, _ = last.split(" ", 2)
    raw = json.loads(logs(shared, "users", "--lines", "1", "--json")[1])
    assert (raw["time"], raw["level"]) == (time, level)
    assert raw["msg"] in last and f" error={json.dumps(raw['error'])}" in last
    assert len(last.splitlines()) == 1


def test_the_number_of_lines(shared: Host) -> None:
    whole = logs(shared, "orders")[1].splitlines()
    assert logs(shared, "orders", "--lines", "2")[1].splitlines() == whole[-2:]
    assert logs(shared, "orders", "--lines", "0")[:2] == (0, "")
    assert logs(shared, "orders", "--lines", "1001")[0] == 2
    assert MOST_LINES == LOG_LINES


def test_a_stream_that_is_not_there_ends_with_1(shared: Host) -> None:
    code, out, err = logs(shared, "nothing", "--follow")
    assert (code, out) == (1, "")
    assert err.startswith("error: stream 'nothing': the agent has no such stream [RPL-STREAM-NOTFOUND]\n")


def test_without_an_agent_it_says_how_to_start_one(host: Host) -> None:
    code, out, err = logs(host, "orders", "--follow")
    assert (code, out) == (1, "")
    assert f"→ start it: replicator agent start --socket {host.socket}" in err


def test_a_stream_without_a_process_shows_what_its_last_one_left_and_what_to_do(host: Host) -> None:
    host.start()
    declare(host, host.stream(checkpointInterval="1s"))
    _, running, err = logs(host, "orders")
    assert err == ""
    assert f"initialized db path={host.database()}" in running
    assert call("pause", "orders", "--address", host.address)[0] == 0
    code, paused, err = logs(host, "orders")
    assert code == 0
    assert paused.startswith(running) and "litestream shut down" in paused
    assert err == (
        "no litestream process replicates it: it is paused; the lines are from the log file of its last process; "
        "continue with: replicator resume orders\n"
    )
    for file in host.state.rglob("litestream.log*"):
        file.unlink()
    code, out, err = logs(host, "orders")
    assert (code, out) == (0, "")
    assert "it is paused" in err
    assert call("resume", "orders", "--address", host.address)[0] == 0
    assert STARTED in logs(host, "orders")[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("store")) as server:
        server.make_bucket("backups")
        yield server


def test_a_secret_is_not_shown(host: Host, store: S3Server) -> None:
    secret = store.owner.secret_access_key
    host.environment |= {"OWNER_ACCESS_KEY_ID": store.owner.access_key_id, "OWNER_SECRET_ACCESS_KEY": secret}
    host.start()
    # litestream logs the place of a replica, so a secret in it is one that the engine prints.
    uri = store.url("backups", f"in/{secret}")
    destination = {"kind": "s3", "uri": uri, "authRef": "env://OWNER_*"}
    declare(host, host.stream(destination=destination, checkpointInterval="1s"))
    for options in ((), ("--json",)):
        _, out, err = logs(host, "orders", *options)
        assert "in/[redacted]" in out
        assert secret not in out + err
    assert call("pause", "orders", "--address", host.address)[0] == 0
    _, out, err = logs(host, "orders")
    assert "in/[redacted]" in out
    assert secret not in out + err


class Follower:
    """`replicator logs NAME --follow` in a process of its own."""

    def __init__(self, host: Host, name: str) -> None:
        self._files = (host.folder / "out", host.folder / "err")
        with self._files[0].open("w") as out, self._files[1].open("w") as err:
            self.process = subprocess.Popen(
                [COMMAND, "logs", name, "--follow", "--address", host.address], stdout=out, stderr=err
            )

    @property
    def out(self) -> str:
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        return self._files[1].read_text()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)


@contextlib.contextmanager
def following(host: Host, name: str = "orders") -> Iterator[Follower]:
    """A follower that has printed the first lines."""
    made = Follower(host, name)
    try:
        wait_until(lambda: STARTED in made.out, what="its first lines")
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def test_follow_prints_new_lines_until_it_is_ended(host: Host) -> None:
    host.start()
    declare(host, host.stream(), host.stream("users"))
    with following(host, "users") as follower:
        before = follower.out
        break_replica(host, "users")
        wait_until(lambda: "not a directory" in follower.out, what="the line of the change")
        assert follower.out.startswith(before)
        assert len(set(follower.out.splitlines())) == len(follower.out.splitlines()), "no line comes twice"
        assert follower.end() == 130
        assert "Traceback" not in follower.err


def test_follow_goes_on_after_a_restart_of_litestream(host: Host) -> None:
    host.start()
    declare(host, host.stream())
    with following(host) as follower:
        [pid] = host.litestreams()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: follower.out.count(STARTED) == 2, what="the lines of the next process")
        assert follower.end() == 130
        assert follower.err == ""


def test_follow_goes_on_after_a_pause_without_a_line_twice(host: Host) -> None:
    host.start()
    declare(host, host.stream(checkpointInterval="1s"))
    with following(host) as follower:
        assert call("pause", "orders", "--address", host.address)[0] == 0
        wait_until(lambda: "litestream shut down" in follower.out, what="the last line of the process")
        wait_until(lambda: "it is paused" in follower.err, what="the reason")
        assert call("resume", "orders", "--address", host.address)[0] == 0
        wait_until(lambda: follower.out.count(STARTED) == 2, what="the lines of the next process")
        lines = follower.out.splitlines()
        assert len(set(lines)) == len(lines), "no line comes twice"
        assert follower.err.count(ANEW) == 1


def test_follow_goes_on_after_a_restart_of_the_agent(host: Host) -> None:
    host.start()
    declare(host, host.stream())
    with following(host) as follower:
        host.end()
        wait_until(lambda: "waiting: " in follower.err, what="the agent is away")
        host.start()
        wait_until(lambda: follower.out.count(STARTED) == 2, what="the lines of the next process")
        assert follower.err.count(f"{ANEW}\n") == 1
        assert follower.end() == 130
        assert follower.err.count("waiting: ") == 1


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            '{"time":"T","level":"INFO","msg":"litestream","version":"0.5.17","level":"info"}',
            "T INFO litestream version=0.5.17 level=info",
        ),
        (
            '{"time":"T","level":"INFO","msg":"done","txid":{"min":"1","max":"2"},"size":7,"last":true,"none":null}',
            "T INFO done txid.min=1 txid.max=2 size=7 last=true none=null",
        ),
        ('{"msg":"m","a":"two words","b":"x=1","c":"","d":["/a.db"]}', 'm a="two words" b="x=1" c="" d=["/a.db"]'),
        ('{"msg":"\\u001b[31mred","a":"\\u001b]0;x\\u0007"}', '\\x1b[31mred a="\\u001b]0;x\\u0007"'),
        ("Error: \x1b[31mcannot\topen", "Error: \\x1b[31mcannot\\topen"),
        ('{"cut":"off…', '{"cut":"off…'),
        ("[1]", "[1]"),
        ("", ""),
    ],
)
def test_a_line_for_people(line: str, shown: str) -> None:
    assert readable(line) == shown
