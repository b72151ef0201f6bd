"""Stacks that a release made: its program, the state it wrote, and the streams that the engine had then.

`states/` has a folder for each release, which `tools/keep_state.py` makes, and `next/` with the programs for the next
one. The engine's address in them is `ADDRESS`, which stands for that of the engine in a test.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter
from replicator.model import Checkpoint, Stream

from tests.e2e.memory import Memory
from tests.pulumi import Project

STATES = Path(__file__).with_name("states")
NEXT = "next"
ADDRESS = "unix:///run/replicator/memory.sock"
PROGRAMS = {"plugin": "plugin.yaml", "sdk": "sdk.py", "dynamic": "dynamic.py"}
"""The program of each way to the code."""

_POSITIONS = ("sourcePosition", "stackTrace")
"""Places in source code: a state need not have them, and they tell about the machine."""
_STREAMS = TypeAdapter(list[Stream])


@dataclass(frozen=True, slots=True)
class Kept:
    """One stack.

    :param release: the folder of the release.
    :param way: one of `PROGRAMS`.
    """

    release: str
    way: str

    @property
    def program(self) -> Path:
        """What the stack was made from."""
        return STATES / self.release / PROGRAMS[self.way]

    @property
    def state(self) -> Path:
        """The state, as `pulumi stack export` writes it."""
        return STATES / self.release / f"{self.way}.state.json"

    @property
    def engine(self) -> Path:
        """The streams of the engine, as its API lists them."""
        return STATES / self.release / f"{self.way}.engine.json"


def releases() -> list[Kept]:
    """Every stack that is kept."""
    folders = sorted(path.name for path in STATES.iterdir() if path.name != NEXT)
    return [Kept(release, way) for release in folders for way in PROGRAMS]


def write_program(kept: Kept, project: Project, memory: Memory) -> None:
    """Write the program into a project with a stack, and configure it."""
    text = kept.program.read_text("utf-8").replace(ADDRESS, memory.address)
    if kept.program.suffix == ".yaml":
        project.write_yaml(yaml.safe_load(text))
    else:
        project.write_python(text)
        project.configure("replicator:memory", {"address": memory.address})


def keep(kept: Kept, program: Path, project: Project, memory: Memory) -> None:
    """Write down what a release has made of a program."""
    kept.state.parent.mkdir(parents=True, exist_ok=True)
    kept.program.write_bytes(program.read_bytes())
    exported = project.run("stack", "export", "--stack", project.stack).json
    for resource in exported["deployment"]["resources"]:
        for key in _POSITIONS:
            resource.pop(key, None)
    kept.state.write_text(_text(exported).replace(memory.address, ADDRESS), "utf-8")
    streams = sorted(memory.streams(), key=lambda stream: stream.name)
    kept.engine.write_text(_text([stream.wire() for stream in streams]), "utf-8")


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def exported(kept: Kept, memory: Memory) -> dict[str, Any]:
    """What `pulumi stack export` printed, with the address of this engine."""
    found: dict[str, Any] = json.loads(kept.state.read_text("utf-8").replace(ADDRESS, memory.address))
    return found


def bring_back(kept: Kept, memory: Memory) -> None:
    """Make the streams and the replays that the engine had."""
    for stream in _STREAMS.validate_json(kept.engine.read_bytes()):
        memory.declare(stream)
    for resource in exported(kept, memory)["deployment"]["resources"]:
        if resource["type"] == "replicator:index:ReplayRun":
            name = resource["inputs"]["stream"].rpartition("/")[2]
            start = Checkpoint.model_validate(resource["inputs"]["start"])
            memory.start_replay(name, start, key=resource["outputs"]["key"])
