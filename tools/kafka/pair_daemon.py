"""Keeps one pair of Kafka clusters running for several processes. Its workers have Debezium's plugins.

`keep` starts a daemon process where there is none, and gives the pair's addresses. The daemon, `python pair_daemon.py
FOLDER [--users FILE] [--postgres]`, ends the pair when it is told to, by SIGTERM, or when nobody has a shared lock on
FILE any more. The kernel drops a lock when its holder dies, so a run that is killed leaves no daemon; and no daemon
leaves a broker. With `--postgres` it keeps a PostgreSQL server beside them, whose address `kept_database` gives.

In FOLDER are: `lock`, which the daemon holds and which has its process id; `pair.json`, the addresses, once all runs;
`database.json`, that of PostgreSQL; `daemon.log`; and `run`, the files of all servers, which the next daemon removes.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from tests.engines import EngineNotReady
from tests.waiting import wait_until
from tools.kafka.pair import Pair, running_pair
from tools.kafka.process import find_jars, find_java, write_private
from tools.postgres import SUPERUSER, Postgres, find_program

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 120.0
PLUGINS = ("debezium-postgres", "jdbc-sink")
_PAIR: TypeAdapter[Pair] = TypeAdapter(Pair)


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server, by the address of its database `postgres`, and its superuser."""

    uri: str
    user: str
    password: str


_DATABASE: TypeAdapter[Database] = TypeAdapter(Database)


def keep(folder: Path, users: Path | None = None, *, postgres: bool = False) -> Pair:
    """The pair that a daemon in `folder` holds, started if there is none.

    :param users: the daemon ends when nobody has a shared lock on this file; the caller has one. None: only by `end`.
    :param postgres: whether a daemon that is started keeps a PostgreSQL server too.

    Raises EngineMissing, BuildError and EngineNotReady.
    """
    find_java()
    for name in ("runtime", *PLUGINS):
        find_jars(name)
    if postgres:
        find_program("postgres")
    described = folder / "pair.json"
    spawned = False
    with held(folder / "starting"):
        deadline = time.monotonic() + START_TIMEOUT
        while not (running(folder) and described.exists()):
            if running(folder) and time.monotonic() < deadline:
                time.sleep(0.05)  # it starts, or ends since its last user is gone
            elif spawned or running(folder):
                tail = (folder / "daemon.log").read_text(errors="replace")[-2000:]
                raise EngineNotReady(f"the Kafka clusters did not start:\n{tail}")
            else:
                described.unlink(missing_ok=True)
                _spawn(folder, users, postgres=postgres)
                spawned = True
        return _PAIR.validate_json(described.read_bytes())


def kept_database(folder: Path) -> Database:
    """The PostgreSQL server of a daemon that `keep` gave with one."""
    return _DATABASE.validate_json((folder / "database.json").read_bytes())


def running(folder: Path) -> bool:
    """Whether there is a daemon in `folder`."""
    try:
        with (folder / "lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def end(folder: Path, timeout: float = 30.0) -> bool:
    """End the daemon in `folder` with its pair, and wait for that; False where there was none."""
    if not running(folder):
        return False
    os.kill(int((folder / "lock").read_text()), signal.SIGTERM)
    wait_until(lambda: not running(folder), timeout=timeout, what="the Kafka clusters end")
    return True


@contextmanager
def held(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[IO[str]]:
    """A lock on a file, waited for and held inside the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        fcntl.flock(handle, how)
        yield handle


def _spawn(folder: Path, users: Path | None, *, postgres: bool) -> None:
    command = [
        sys.executable,
        "-m",
        "tools.kafka.pair_daemon",
        str(folder),
        *(["--users", str(users)] if users else []),
        *(["--postgres"] if postgres else []),
    ]
    with (folder / "daemon.log").open("wb") as log:
        subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)


def _serve(folder: Path, users: Path | None, *, postgres: bool) -> None:
    """Go into the background, with the lock held, and keep the pair, and PostgreSQL where that is wanted."""
    described, files = folder / "pair.json", folder / "run"
    with held(folder / "lock") as lock, ExitStack() as servers:
        if os.fork() > 0:
            os._exit(0)
        os.setsid()  # an interrupt at the terminal is for the run, whose end the daemon notices
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        shutil.rmtree(files, ignore_errors=True)
        if postgres:
            server = servers.enter_context(Postgres(files / "postgres"))
            database = Database(server.uri(), SUPERUSER, server.password)
            write_private(folder / "database.json", _DATABASE.dump_json(database, indent=2).decode())
        pair = servers.enter_context(running_pair(files, plugins=[find_jars(name) for name in PLUGINS]))
        fresh = folder / "pair.json.new"
        fresh.write_bytes(_PAIR.dump_json(pair, indent=2))
        fresh.rename(described)
        if users is None:
            while True:
                signal.pause()
        # Who comes now waits for this lock, and then finds neither the pair nor, soon, its daemon.
        with held(users):
            described.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Keep two Kafka clusters running.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=Path)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    _serve(options.folder, options.users, postgres=options.postgres)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
