"""Sizes of one agent and of one program with many SQLite databases: `python bench/sizes.py [COUNT…]`.

It prints the rows of docs/limits.md: memory, files and times with so many databases (1, 100 and 300 if nothing is
given), which nobody writes to, and the times of the CLI for a YAML program of the first 100. The replicas go to folders
of the same disk. Nothing is compared and nothing fails: these are absolute numbers of one machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in bench/ alone
from replicator.remote.client import RemoteReplicator

from bench.agents import AT_ONCE
from tests.agent.support import Host, command, host
from tests.engines import make_database
from tests.pulumi import Project

COUNTS = (1, 100, 300)
PROGRAM = 100
_SETTLE = 10.0  # seconds after the last upload, for the work that follows it
_LIMIT = 600.0


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or list(COUNTS)
    with host() as made:
        process = made.start(*made.grant_all())
        status = ("status", "--address", made.address)
        for before, count in zip([0, *counts], counts, strict=False):
            took = asyncio.run(_add(made, before, count))
            time.sleep(_SETTLE)
            _say(f"{count} databases: the last {count - before} of them made in", f"{took:.1f} s")
            _say("  memory of the agent", f"{_memory(process.pid):.0f} MB")
            _say("  memory of litestream", f"{sum(map(_memory, made.litestreams())):.0f} MB")
            _say("  open files of agent and litestream", str(sum(map(_files, [process.pid, *made.litestreams()]))))
            _say("  processor while nothing is written", f"{_busy(process.pid, *made.litestreams()):.0%} of a core")
            _say("  a status of all, as a call", f"{_timed(lambda: asyncio.run(_look(made))):.2f} s")
            _say("  the command replicator status", f"{_timed(partial(command, *status)):.2f} s")
            _say("  the registry", f"{_bytes(made.state / 'registry') / count / 1000:.1f} kB for each stream")
            _say("  the folder daemons", f"{_bytes(made.state / 'daemons') / 1000:.0f} kB")
            side = made.folder / f".{_names(count)[-1]}.db-litestream"
            _say("  the side folder of an idle database", f"{_bytes(side) / 1000:.0f} kB")
        made.end()
        began = time.monotonic()
        made.start(*made.grant_all())
        asyncio.run(_all_run(made))
        _say(f"restart of the agent until all {counts[-1]} run", f"{time.monotonic() - began:.1f} s")
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder, host() as made:
        made.start(*made.grant_all())
        _program(Path(folder), made)


def _names(count: int) -> list[str]:
    return [f"db-{number:04}" for number in range(count)]


async def _add(made: Host, before: int, count: int) -> float:
    client = RemoteReplicator("litestream", made.address, start_hint="start it")
    gate = asyncio.Semaphore(AT_ONCE)

    async def declare(name: str) -> None:
        async with gate:
            await client.upsert_stream(made.stream(name))

    new = _names(count)[before:]
    for name in new:
        make_database(made.database(name), rows=20)
    began = time.monotonic()
    try:
        await asyncio.gather(*map(declare, new))
        return time.monotonic() - began
    finally:
        await client.aclose()


async def _look(made: Host) -> list[str]:
    client = RemoteReplicator("litestream", made.address, start_hint="start it")
    try:
        found = await client.describe()
        return [description.status.state.value for description in found]
    finally:
        await client.aclose()


async def _all_run(made: Host) -> None:
    async with asyncio.timeout(_LIMIT):
        while set(await _look(made)) != {"running"}:
            await asyncio.sleep(0.5)


def _program(folder: Path, made: Host) -> None:
    """A YAML program of `PROGRAM` streams on the real agent, with the CLI's own parallelism."""
    project = Project(folder)
    resources = {}
    for name in _names(PROGRAM):
        make_database(made.database(name), rows=20)
        ends = made.stream(name).model_dump(
            mode="json", by_alias=True, exclude_none=True, include={"source", "destination"}
        )
        resources[name] = {"type": "replicator:index:Stream", "properties": {"name": name, **ends}}
    project.write_yaml(
        {"resources": resources, "config": {"replicator:litestream": {"value": {"address": made.address}}}}
    )
    project.run("stack", "init", project.stack)
    for title, arguments in (
        ("preview of the first up", ("preview",)),
        ("first up", ("up", "--yes", "--skip-preview")),
        ("preview without a change", ("preview", "--expect-no-changes")),
        ("up without a change", ("up", "--yes", "--skip-preview", "--expect-no-changes")),
        ("refresh", ("refresh", "--yes", "--skip-preview")),
    ):
        took = _timed(partial(project.run, *arguments, "--stack", project.stack, timeout=_LIMIT))
        _say(f"{title}, {PROGRAM} streams", f"{took:.1f} s")
    state = max(
        (path for path in folder.rglob("*.json") if "stacks" in path.parts), key=lambda path: path.stat().st_size
    )
    _say("the state", f"{state.stat().st_size / PROGRAM / 1000:.1f} kB for each stream")
    took = _timed(lambda: project.run("destroy", "--yes", "--skip-preview", "--stack", project.stack, timeout=_LIMIT))
    _say(f"destroy, {PROGRAM} streams", f"{took:.1f} s")


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _memory(process: int) -> float:
    """The resident memory of a process, in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {process} tells no memory")


def _files(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208


def _busy(*processes: int, over: float = 10.0) -> float:
    """How much of one core processes take."""

    def ticks() -> int:
        return sum(sum(map(int, Path(f"/proc/{one}/stat").read_text().split()[13:15])) for one in processes)

    before = ticks()
    time.sleep(over)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / over


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _say(what: str, value: str) -> None:
    print(f"{what}: {value}", flush=True)


if __name__ == "__main__":
    main()
