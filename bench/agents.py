"""An agent that takes up many databases, over litestream's own calls for the same."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

from replicator.backends.sqlite.daemon_config import DaemonSettings, daemon_argv, shared_daemon
from replicator.model import Stream
from replicator.remote.client import RemoteReplicator

from bench.goals import GOALS
from bench.measure import Result, in_turn, judge
from tests.engines import find_engine, make_database
from tests.waiting import wait_until

AT_ONCE = 8
_LIMIT = 60.0  # seconds for one call
_STOP = 60.0  # seconds that a process may take to end
_WARM_UP = "warm-up"  # one database before the clock: it starts the agent's litestream, which the floor has running


class KafkaEndpoint:
    """A folder with databases, all alike, and the folder where their replicas go."""

    def __init__(self, folder: Path, databases: int) -> None:
        self.folder = folder
        self.names = [f"db-{number:04}" for number in range(databases)]
        template = make_database(folder / "template.db", rows=20)
        (folder / "source").mkdir()
        for name in (_WARM_UP, *self.names):
            shutil.copy(template, self.source(name))

    def source(self, name: str) -> Path:
        return self.folder / "source" / f"{name}.db"

    def replica(self, name: str) -> Path:
        return self.folder / "replica" / name

    def expect_replicas(self) -> None:
        """Fail where a database was not uploaded: a side that skips its work would look fast."""
        missing = [name for name in self.names if not any(self.replica(name).rglob("*.ltx"))]
        if missing:
            raise RuntimeError(f"{len(missing)} of {len(self.names)} databases have no replica, such as {missing[0]}")


def agent_100(folder: Path, pairs: int, databases: int) -> list[Result]:
    """Make streams, 8 at once; each is uploaded when its call returns."""
    numbers = count()

    def place() -> KafkaEndpoint:
        return KafkaEndpoint(folder / str(next(numbers)), databases)

    values, floors = in_turn(
        pairs, lambda: _bare_seconds(place()), lambda: agent_seconds(place(), at_a_time=databases)[0]
    )
    return [judge(GOALS["agent_100"], values, floors)]


# --- the floor -----------------------------------------------------------------------------------------------------


class _Control(http.client.HTTPConnection):
    """litestream's control socket, with a connection that is kept."""

    def __init__(self, path: Path) -> None:
        super().__init__("litestream", timeout=_LIMIT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_LIMIT)
        self.sock.connect(str(self._path))

    def post(self, route: str, body: dict[str, object]) -> dict[str, object]:
        self.request("POST", route, json.dumps(body), {"Content-Type": "application/json"})
        reply = self.getresponse()
        content = reply.read()
        if reply.status != http.client.OK:
            raise RuntimeError(f"litestream answers {route} with {reply.status}: {content.decode(errors='replace')}")
        answer: dict[str, object] = json.loads(content)
        return answer


def _bare_seconds(place: KafkaEndpoint) -> float:
    """Open, empty the WAL, `/register`, `/sync` with wait, for each database."""
    control = place.folder / "socket"
    config = place.folder / "litestream.yml"
    config.write_text(shared_daemon(DaemonSettings(socket=control)))

    def some(names: list[str]) -> None:
        with closing(_Control(control)) as connection:
            for name in names:
                _replicate(connection, place, name)

    with _running(daemon_argv(find_engine("litestream"), config), place.folder / "log"):
        wait_until(lambda: _answers(control), timeout=_LIMIT, what="litestream answers")
        some([_WARM_UP])
        began = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(some, [place.names[first::AT_ONCE] for first in range(AT_ONCE)]))
        took = time.perf_counter() - began
    place.expect_replicas()
    return took


def _replicate(control: _Control, place: KafkaEndpoint, name: str) -> None:
    path = place.source(name)
    with closing(sqlite3.connect(path)) as database:
        busy, *_ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise RuntimeError(f"{path} is busy, and nothing else has it open")
    control.post("/register", {"path": str(path), "replica_url": f"file://{place.replica(name)}"})
    control.post("/sync", {"path": str(path), "wait": True, "timeout": int(_LIMIT)})


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


# --- the agent -----------------------------------------------------------------------------------------------------


def agent_seconds(place: KafkaEndpoint, at_a_time: int) -> list[float]:
    """`upsert_stream` through the agent's socket, for so many databases at a time; the seconds of each time."""
    address = place.folder / "socket"
    replicator = str(Path(sys.executable).parent / "replicator")
    command = [replicator, "agent", "run", "--socket", str(address), "--state", str(place.folder / "agent")]
    with _running(command, place.folder / "log"):
        wait_until(lambda: _answers(address), timeout=_LIMIT, what="the agent answers")
        took = asyncio.run(_upsert_all(place, f"unix://{address}", at_a_time))
    place.expect_replicas()
    return took


async def _upsert_all(place: KafkaEndpoint, address: str, at_a_time: int) -> list[float]:
    replicator = RemoteReplicator("litestream", address, start_hint="start it")
    gate = asyncio.Semaphore(AT_ONCE)
    took = []

    async def upsert(name: str) -> None:
        source = {"kind": "sqlite", "uri": f"sqlite://{place.source(name)}"}
        destination = {"kind": "s3", "uri": f"file://{place.replica(name)}"}
        stream = Stream.model_validate({"name": name, "source": source, "destination": destination})
        async with gate:
            await replicator.upsert_stream(stream)

    try:
        await upsert(_WARM_UP)
        for first in range(0, len(place.names), at_a_time):
            began = time.perf_counter()
            await asyncio.gather(*map(upsert, place.names[first : first + at_a_time]))
            took.append(time.perf_counter() - began)
        return took
    finally:
        await replicator.aclose()


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    """A process until the block ends; its log is told where the block fails."""
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process,
    ):
        try:
            yield
        except Exception as error:
            error.add_note(f"the log of {command[0]}:\n{log.read_text(errors='replace')[-2000:]}")
            raise
        finally:
            process.terminate()
            try:
                process.wait(_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
