"""Where a demo happens: a Pulumi project in a temporary folder, and commands that are shown with what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent

_STEP = re.compile(
    r" ?[-+~]{1,2} +(?P<resource>\S+:\S+:\S+ \S+) [a-z ]+?(?: \([0-9.]+m?s\))?(?: \[diff: [^]]*\])?"
    r"(?=;| [a-z]+:| \d+ mess| $|$)"
)
"""A step of Pulumi's, without the message at its end."""
_MESSAGE = re.compile(r"    \S+:\S+:\S+ \S+  ")

NOISE = (
    "Previewing ",
    "Updating ",
    "Destroying ",
    "@ ",
    "Duration",
    "Loading",
    "View ",
    "If you want",
    "The resources",
)


def say(text: str) -> None:
    """One step of the story."""
    print(f"\n\033[1m▸ {text}\033[0m" if sys.stdout.isatty() else f"\n▸ {text}", flush=True)


def note(text: str) -> None:
    """A line below a step."""
    print(f"    {text}", flush=True)


def show(text: str) -> None:
    """What a command printed, without what does not matter here."""
    for line in told_once(text):
        note(line)


def told_once(text: str) -> list[str]:
    """The lines that matter: of each resource its last step, whose message stands under Diagnostics again."""
    found: list[str] = []
    steps: dict[str, int] = {}
    for line in text.splitlines():
        step = _STEP.match(line)
        if step is not None and step["resource"] in steps:
            found[steps[step["resource"]]] = step[0].rstrip()
        elif step is not None:
            steps[step["resource"]] = len(found)
            found.append(step[0].rstrip())
        elif line.strip() and not _MESSAGE.match(line) and not line.strip().startswith(NOISE):
            found.append(line)
            if line.startswith("Resources:"):
                steps.clear()  # what follows a preview is the update
    return found


def lag(now: Mapping[str, Any]) -> str:
    """The lag of a status; it is not 0 where something waits."""
    seconds = now.get("lagSeconds")
    if seconds is None:
        return "not known"
    return "<0.1 s" if now.get("lagEvents") and seconds < 0.05 else f"{seconds:.1f} s"


def program_of(resource: str, properties: Mapping[str, Any], folder: Path) -> list[str]:
    """A stream as a YAML program declares it, with paths as commands show them."""
    text = yaml.safe_dump(
        {resource: {"type": "replicator:index:Stream", "properties": dict(properties)}}, sort_keys=False
    )
    return text.replace(str(folder), "…").splitlines()


def find_cli() -> Path:
    """The folder of the Pulumi CLI, built where there is none."""
    finder = [sys.executable, str(ROOT / "tools" / "pulumi_cli.py"), "path", "--user-ok"]
    return Path(subprocess.run(finder, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


class Writer(threading.Thread, ABC):
    """A shop, which takes some 40 orders a second while it is open."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.orders = 0
        self._go = threading.Event()
        self._end = threading.Event()
        self._idle = threading.Event()

    @abstractmethod
    def opened(self) -> AbstractContextManager[Callable[[int], object]]:
        """What writes the order of a number; it is used in the writer's own thread."""

    def run(self) -> None:
        with self.opened() as write:
            while not self._end.is_set():
                if not self._go.wait(0.05):
                    self._idle.set()
                    continue
                write(self.orders)
                self.orders += 1
                self._end.wait(0.02)

    def write(self) -> None:
        self._go.set()

    def rest(self) -> None:
        """Return when nothing is being written."""
        self._go.clear()
        self._idle.clear()
        if not self._idle.wait(5):
            sys.exit("the writer does not rest")

    def end(self) -> None:
        self._end.set()
        self.join(5)


class Stage:
    """A project `infra` in a folder, with its state beside it.

    :param cli: the folder of the Pulumi CLI.
    :param environment: what commands find in their environment beside what they need.
    """

    def __init__(self, folder: Path, cli: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.cli = folder, cli
        self._environment = dict(environment or {})
        self._project = folder / "infra"
        self._project.mkdir()
        (folder / "state").mkdir()

    def run(self, *command: str, quiet: bool = False, check: bool = True) -> str:
        """Run a command, print it unless `quiet`, and give what it says. With `check`, one that fails ends the demo."""
        if not quiet:
            note(f"$ {Path(command[0]).name} {' '.join(command[1:])}".replace(str(self.folder), "…"))
        done = subprocess.run(
            command,
            cwd=self._project,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        if check and done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
        return done.stdout

    @property
    def _env(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
        return {
            **kept,
            "PATH": f"{self.cli}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "demo",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            **self._environment,
        }

    def pulumi(self, *arguments: str, check: bool = True) -> str:
        """Run the Pulumi CLI."""
        note(f"$ pulumi {' '.join(arguments)}")
        words = (str(self.cli / "pulumi"), *arguments, "--non-interactive", "--color", "never")
        return self.run(*words, quiet=True, check=check)

    def replicator(self, *arguments: str, quiet: bool = False) -> str:
        """Run our own command."""
        return self.run(str(SCRIPTS / "replicator"), *arguments, quiet=quiet)

    def status(self, name: str, *options: str) -> dict[str, Any]:
        """What `replicator status` knows of a stream."""
        found: dict[str, Any] = json.loads(self.replicator("status", name, *options, "--json", quiet=True))[0]
        return found

    def write(self, name: str, program: Mapping[str, Any]) -> None:
        """Write Pulumi.yaml."""
        project = {
            "name": name,
            "runtime": "yaml",
            "plugins": {"providers": [{"name": "replicator", "path": str(SCRIPTS)}]},
            **program,
        }
        (self._project / "Pulumi.yaml").write_text(json.dumps(project, indent=2))
