"""Keeps the stacks that this release makes, so that every later one is tested to preview them clean.

    python tools/keep_state.py

It builds the tarball and the wheel, installs them where nothing else is, runs the programs in tests/e2e/states/next,
and writes states/<version> beside it. What a released version wrote is never made anew.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone
from replicator import __version__

from tests.e2e import wheel_env
from tests.e2e.memory import serving
from tests.e2e.state_fixtures import NEXT, PROGRAMS, STATES, Kept, keep, write_program
from tests.pulumi import Project, cli_folder
from tools.dist import build, here
from tools.gobuild import BuildError, Cache, cache_root, say


def make(folder: Path) -> None:
    """Run each program with what a user would install, and keep what came of it."""
    wheel, sdk, tarball = build(folder, here(), Cache(cache_root(os.environ)))
    path = f"{cli_folder()}{os.pathsep}{Path(os.path.realpath(sys.executable)).parent}"
    for way, program in PROGRAMS.items():
        python = wheel_env.make(folder / f"{way}-python", sdk if way == "sdk" else wheel)
        environment = {"PATH": path, "PULUMI_PYTHON_CMD": str(python)}
        with serving() as memory:
            project = Project(folder / way, name="kept", plugins=None, environment=environment)
            project.write_yaml({})
            project.run("plugin", "install", "resource", "replicator", __version__, "--file", str(tarball))
            project.init()
            write_program(Kept(NEXT, way), project, memory)
            project.up("--skip-preview")
            project.preview("--refresh", "--expect-no-changes")
            keep(Kept(__version__, way), STATES / NEXT / program, project, memory)
            say(f"kept {Kept(__version__, way).state}")


def main() -> int:
    if (STATES / __version__).exists():
        say(f"{STATES / __version__} is there; remove it first, unless {__version__} is released")
        return 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
    except BuildError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
