"""Agents that kill themselves at a chosen effect: `python -m tests.faults.agent_main`.

This process imports the agent once and forks one for each line of JSON on its stdin; it answers with the process id.
At the end of stdin it answers with those that still live, and ends them. A child runs the real command `replicator
agent run`, whose effects are wrapped. As long as the file `plan` exists, each effect is counted and written to the file
`trace`; where it is the one that the plan names, the agent gets SIGKILL, or its litestream processes do.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import replicator.agent.run
import replicator.cli.agent  # noqa: F401 - once here, not once in each agent
from replicator.agent.child import Child
from replicator.agent.registry import FileStore
from replicator.backends.sqlite import daemon_pool, replays, stream_manager
from replicator.backends.sqlite.copies import Work
from replicator.backends.sqlite.daemon_process import Control
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import FolderLocation
from replicator.cli import main

from tests.faults.processes import litestreams

EFFECTS: tuple[tuple[Any, str], ...] = (
    (FileStore, "put"),
    (FileStore, "remove"),
    (FileStore, "save_tombstone"),
    (FileStore, "delete_tombstone"),
    (Child, "start"),
    (Child, "stop"),
    (Control, "register"),
    (Control, "unregister"),
    (CommandLine, "reset"),
    (CommandLine, "restore"),
    (CommandLine, "replicate_once"),
    (daemon_pool, "checkpoint_truncate"),
    (stream_manager, "rmtree"),
    (Work, "publish"),
    (replays, "tidy"),
    (FolderLocation, "purge_prefix"),
)
"""Everything that the agent changes: its registry, its processes, the engine, the files beside the databases."""


class Faults:
    """Counts effects from the moment when the plan is there.

    :param folder: of the cell. `plan` in it holds `{"at": 3, "when": "before", "victim": "agent"}` (or `"engine"`), or
        `{}` where nothing is killed. `trace` gets one line for each effect, and one line `killed` before the first
        kill. Where nothing is killed, a line also holds the number of litestream processes when the effect begins.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plan = folder / "plan"
        self._trace = folder / "trace"
        self._count = 0
        self._lock = Lock()

    def around(self, name: str, effect: Callable[..., Any]) -> Callable[..., Any]:
        """The effect with the two places at which it can be cut off."""

        @functools.wraps(effect)
        async def later(*arguments: Any, **options: Any) -> Any:
            place = self._begin(name)
            result = await effect(*arguments, **options)
            self._end(place)
            return result

        @functools.wraps(effect)
        def now(*arguments: Any, **options: Any) -> Any:
            place = self._begin(name)
            result = effect(*arguments, **options)
            self._end(place)
            return result

        return later if inspect.iscoroutinefunction(effect) else now

    def _begin(self, name: str) -> int:
        with self._lock:
            if not self._plan.exists():
                return 0
            self._count += 1
            place = self._count
            self._write(name if self._planned() else f"{name} {len(litestreams(self._folder))}")
        self._kill(place, "before")
        return place

    def _end(self, place: int) -> None:
        if place:
            self._kill(place, "after")

    def _kill(self, place: int, when: str) -> None:
        plan = self._planned()
        if (plan.get("at"), plan.get("when")) != (place, when):
            return
        victims = [os.getpid()] if plan["victim"] == "agent" else litestreams(self._folder)
        if victims:
            self._write("killed")
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def _planned(self) -> dict[str, Any]:
        plan: dict[str, Any] = json.loads(self._plan.read_text())
        return plan

    def _write(self, line: str) -> None:
        with self._trace.open("a") as file:
            file.write(f"{line}\n")


def write_late() -> None:
    """A naive registry: nothing is on disk before a stream is ready."""
    put = FileStore.put

    async def late(self: FileStore, record: Any) -> None:
        if record.phase == "making":
            self._records[record.name] = record
        else:
            await put(self, record)

    FileStore.put = late  # type: ignore[method-assign]


def trust_the_wal() -> None:
    """A naive resume: it takes the WAL to be as litestream left it."""

    async def untouched(*_: Any, **__: Any) -> bool:
        return True

    daemon_pool.checkpoint_truncate = untouched  # type: ignore[attr-defined]


NAIVE: dict[str, Callable[[], None]] = {"writes late": write_late, "trusts the WAL": trust_the_wal}
"""What the matrix must not let pass."""


def run_agent(folder: Path, naive: str | None) -> None:
    """Run the agent of one cell until it ends."""
    log = os.open(folder / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    if naive:
        NAIVE[naive]()
    faults = Faults(folder)
    for owner, name in EFFECTS:
        setattr(owner, name, faults.around(name, getattr(owner, name)))
    sys.argv = ["replicator", "agent", "run", "--socket", str(folder / "socket"), "--state", str(folder / "state")]
    main()


def serve() -> None:
    """Fork an agent for each line."""
    alive: set[int] = set()

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                alive.discard(ended)

    for line in sys.stdin:
        reap()
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run_agent(Path(wanted["folder"]), wanted["naive"])
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                os._exit(code)
        alive.add(child)
        print(child, flush=True)
    reap()
    for child in alive:
        os.kill(child, signal.SIGKILL)
    print(json.dumps(sorted(alive)), flush=True)


if __name__ == "__main__":
    serve()
