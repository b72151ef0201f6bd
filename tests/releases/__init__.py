"""Releases of before, as wheels: what they wrote and speak is tested against them, and not against a copy of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FIRST = Path(__file__).with_name("replicator_provider-0.1.0-py3-none-any.whl")
"""It speaks protocol 1, and writes records without a version."""

_WITHIN = 30.0


def environment(wheel: Path) -> dict[str, str]:
    """The environment of a Python that imports a release, and not this checkout."""
    return {**os.environ, "PYTHONPATH": str(wheel), "PYTHONSAFEPATH": "1"}


def run(wheel: Path, script: str, *arguments: str) -> str:
    """Run a script with a release; return what it prints."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment(wheel), capture_output=True, text=True, timeout=_WITHIN, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(wheel: Path, socket: Path) -> Iterator[str]:
    """The memory backend of a release, in a process of its own; gives its address."""
    command = [sys.executable, "-m", "replicator.cli", "serve", "--backend", "memory", "--socket", str(socket)]
    process = subprocess.Popen(command, env=environment(wheel), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on")
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.communicate(timeout=_WITHIN)
