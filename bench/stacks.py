"""Programs of many streams on the real CLI: with our plugin, and with one that does nothing.

Both sides have the same program, the CLI's own parallelism, and a state folder of their own. Our plugin manages the
memory backend, which is a process of its own and takes 50 ms for each call.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import floor_plugin
from bench.goals import GOALS
from bench.measure import Result, judge
from bench.memory import Memory, serving
from tests.pulumi import SCRIPTS, Project, plugins_of

LATENCY = "50ms"
RSS_FLOOR = 120.0  # MB, which is what the plugin may take

_LIMIT = 600.0  # seconds for one operation, which is far more than any should take
_LISTINGS = ("describe", "list_streams")
# Hundreds of streams come into a state much faster without writing it down after each.
_WITHOUT_CHECKPOINTS = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}

_OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "up": ("up", "--yes", "--skip-preview"),
    "preview": ("preview", "--expect-no-changes"),
    "refresh": ("refresh", "--yes", "--skip-preview", "--expect-no-changes"),
    "destroy": ("destroy", "--yes", "--skip-preview"),
}


@dataclass
class Stack:
    """A stack of many streams on the real CLI.

    :param count: the number of streams.
    """

    project: Project
    count: int

    def run(self, operation: str, *arguments: str) -> float:
        """Run an operation; the seconds that it took."""
        began = time.perf_counter()
        self.project.run(*_OPERATIONS[operation], "--stack", self.project.stack, *arguments, timeout=_LIMIT)
        return time.perf_counter() - began

    def fill(self) -> None:
        """Bring all streams into the state, fast and without a measurement."""
        self.project.environment = _WITHOUT_CHECKPOINTS
        self.run("up")
        self.project.environment = {}
        self.expect_full()

    def expect_full(self) -> None:
        """Fail where the state lacks a stream: a side that skips its work would look fast."""
        streams = [name for name in self.project.resources() if name.startswith("stream-")]
        if len(streams) != self.count:
            raise RuntimeError(f"{self.project.name}: {len(streams)} of {self.count} streams are in the state")


@dataclass
class Side(Stack):
    """One of two stacks to compare, and how often its plugin has called the memory backend."""

    memory: Memory
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[str, list[Mapping[str, int]]] = field(default_factory=lambda: defaultdict(list))

    def measure(self, operation: str) -> None:
        """Run an operation, and note its time and its backend calls."""
        before = self.memory.calls()
        self.seconds[operation].append(self.run(operation))
        self.calls[operation].append({name: n - before[name] for name, n in self.memory.calls().items()})


def program(block: Mapping[str, Any], streams: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A YAML program of streams with a provider of its own.

    :param block: the provider's configuration.
    :param streams: the properties of each.
    """
    resources = {
        f"stream-{number:04}": {
            "type": "replicator:index:Stream",
            "properties": dict(properties),
            "options": {"provider": "${provider}"},
        }
        for number, properties in enumerate(streams)
    }
    return {"resources": {"provider": {"type": "pulumi:providers:replicator", "properties": dict(block)}, **resources}}


def stack(folder: Path, plugins: Path, program: Mapping[str, Any]) -> Project:
    """A new stack of a program, with the plugin in a folder."""
    project = Project(folder, name=f"bench-{folder.name}", plugins=plugins)
    project.write_yaml(program)
    project.init()
    return project


def of_memory(number: int) -> dict[str, Any]:
    """Return the properties of one of many streams of the memory backend."""
    return {
        "backend": "memory",
        "source": {"kind": "postgres", "uri": f"postgres://db.example/shop{number}"},
        "destination": {"kind": "kafka", "uri": f"kafka://broker.example:9092/shop{number}"},
    }


@contextmanager
def sides(folder: Path, count: int) -> Iterator[tuple[Side, Side]]:
    """Two new stacks: with the plugin that does nothing, and with ours."""
    nothing = floor_plugin.install(folder / "nothing")
    with serving(folder / "memory", LATENCY) as memory:
        written = program({"memory": {"address": memory.address}}, map(of_memory, range(count)))
        floor, value = (
            Side(stack(folder / name, plugins, written), count, memory)
            for name, plugins in (("floor", nothing), ("value", SCRIPTS))
        )
        yield floor, value


def life_cycle(folder: Path, laps: int, count: int) -> list[Result]:
    """Up, preview, refresh and destroy, `laps` times; preview and refresh, which are short, twice in each."""
    with sides(folder, count) as (floor, value):
        for _ in range(laps):
            for operation in ("up", "preview", "refresh", "preview", "refresh", "destroy"):
                for side in (floor, value):
                    side.measure(operation)
                    if operation == "up":
                        side.expect_full()
    return [
        judge(
            GOALS[f"{name}_200"], value.seconds[name], floor.seconds[name], find_faults(name, count, value.calls[name])
        )
        for name in _OPERATIONS
    ]


def thousand(folder: Path, laps: int, count: int) -> list[Result]:
    """A preview with nothing to do, and the memory that the plugin takes for it and for a refresh."""
    with sides(folder, count) as (floor, value):
        for side in (floor, value):
            side.fill()
            side.measure("preview")  # the first one after `fill` finds cold files
            side.seconds.clear()
        for _ in range(laps):
            for side in (floor, value):
                side.measure("preview")
        megabytes = [max(_peak(value.project, name) for name in ("preview", "refresh")) for _ in range(laps)]
    faults = find_faults("preview", count, value.calls["preview"])
    return [
        judge(GOALS["preview_1000"], value.seconds["preview"], floor.seconds["preview"], faults),
        judge(GOALS["plugin_rss"], megabytes, [RSS_FLOOR] * laps),
    ]


def find_faults(operation: str, count: int, calls: list[Mapping[str, int]]) -> list[str]:
    """Backend calls that an operation on `count` streams should not have made, in sentences; `calls` has each run's."""
    faults = []
    for made in calls:
        listings = sum(made[name] for name in _LISTINGS)
        others = {name: n for name, n in made.items() if n and name not in _LISTINGS}
        if operation == "up" and (sum(made.values()) > 2 * count or made["upsert_stream"] != count):
            faults.append(f"up made {_words(made)} for {count} streams; two calls for each are enough")
        elif operation == "preview" and (listings > 1 or others):
            faults.append(f"preview made {_words(made)}; one listing is the most")
        elif operation == "refresh" and (listings != 1 or others):
            faults.append(f"refresh made {_words(made)}; one listing is enough")
        elif operation == "destroy" and (made["delete_stream"] != count or sum(made.values()) != count):
            faults.append(f"destroy made {_words(made)} for {count} streams")
    return sorted(set(faults))


def _words(calls: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in calls.items() if n) or "no calls"


def _peak(project: Project, operation: str) -> float:
    """The most memory that a plugin process had during an operation, in MB: Linux keeps the highest mark of each."""
    command = project.command(*_OPERATIONS[operation], "--stack", project.stack)
    deadline = time.monotonic() + _LIMIT
    highest = 0.0
    log = project.folder / "operation.log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, cwd=project.folder, env=project.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as process,
    ):
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
                raise TimeoutError(f"{operation} did not end within {_LIMIT:g} s")
            highest = max([highest, *map(_high_water, plugins_of(process.pid))])
            time.sleep(0.05)
    if process.returncode or not highest:
        raise RuntimeError(f"{operation} failed, or no plugin was seen:\n{log.read_text()[-2000:]}")
    return highest


def _high_water(pid: int) -> float:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has ended since it was listed
    return int(found[1]) / 1024 if found else 0.0
