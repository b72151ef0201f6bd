"""How long the plugin takes to be there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.goals import GOALS
from bench.measure import Result, in_turn, judge
from tools.dist import BINARY, build, here
from tools.gobuild import Cache, cache_root

PLUGIN = Path(sys.executable).parent / BINARY

# The line ends the clock on both sides, so that no end of a process counts.
_FLOOR = (sys.executable, "-c", "import grpc.aio, google.protobuf.struct_pb2; print(0, flush=True)")
_NOBODY = "127.0.0.1:1"
"""An engine's address, where nothing listens: nothing is sent before a call asks for it."""
_VALUE = (str(PLUGIN), _NOBODY)


def _environment() -> Mapping[str, str]:
    """With bytecode on disk, as an installed plugin has it, and the Python of this environment first on PATH."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PATH": f"{Path(os.path.realpath(sys.executable)).parent}{os.pathsep}{kept.get('PATH', '')}"}


def _seconds_to_first_line(command: Sequence[str]) -> float:
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = time.perf_counter() - began
        process.kill()
    if not line.strip().isdigit():
        raise RuntimeError(f"no port line from {' '.join(command)}")
    return took


def spawn_to_port(pairs: int) -> Result:
    """From the start of the process to the port line."""
    return _compare("spawn_to_port", pairs, _FLOOR, _VALUE)


def installed_to_port(folder: Path, pairs: int) -> Result:
    """The same, of the plugin in the tarball."""
    tarball = build(folder / "dist", here(), Cache(cache_root(os.environ)))[-1]
    shutil.unpack_archive(tarball, folder / "plugin", filter="data")
    return _compare("installed_to_port", pairs, _VALUE, (str(folder / "plugin" / BINARY), _NOBODY))


def _compare(name: str, pairs: int, floor: Sequence[str], value: Sequence[str]) -> Result:
    for command in (floor, value):
        _seconds_to_first_line(command)  # writes the bytecode
    values, floors = in_turn(pairs, lambda: _seconds_to_first_line(floor), lambda: _seconds_to_first_line(value))
    return judge(GOALS[name], values, floors)
