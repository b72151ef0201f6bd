"""How long the plugin takes to be there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.goals import GOALS
from bench.measure import Result, in_turn, judge

PLUGIN = Path(sys.executable).parent / "pulumi-resource-replicator"

# The line ends the clock on both sides, so that no end of a process counts.
_FLOOR = (sys.executable, "-c", "import grpc.aio, google.protobuf.struct_pb2; print(0, flush=True)")
# An engine's address, where nothing listens: nothing is sent before a call asks for it.
_VALUE = (str(PLUGIN), "127.0.0.1:1")


def _environment() -> Mapping[str, str]:
    """With bytecode on disk, as an installed plugin has it."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


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
    for command in (_FLOOR, _VALUE):
        _seconds_to_first_line(command)  # writes the bytecode
    values, floors = in_turn(pairs, lambda: _seconds_to_first_line(_FLOOR), lambda: _seconds_to_first_line(_VALUE))
    return judge(GOALS["spawn_to_port"], values, floors)
