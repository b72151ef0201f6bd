"""A Pulumi project in a temporary folder, driven by the real CLI on a `file://` backend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(sys.executable).parent


@cache
def cli_folder() -> Path:
    """The folder of the Pulumi CLI and its language hosts, built where it is missing."""
    command = [sys.executable, str(ROOT / "tools" / "pulumi_cli.py"), "path"]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Path(found.stdout.strip())


@dataclass(frozen=True, slots=True)
class Ran:
    """One finished run of the CLI.

    :param events: what the engine said, in its own form; of the update alone where a preview came before it.
    """

    code: int
    stdout: str
    stderr: str
    events: Sequence[Mapping[str, Any]] = ()

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)  # type: ignore[no-any-return]

    def done(self, name: str) -> list[str]:
        """What was done to a resource: `create`, `same`, …; in a preview, what would be."""
        steps = (event["resOutputsEvent"]["metadata"] for event in self.events if "resOutputsEvent" in event)
        return [step["op"] for step in steps if _name(step["urn"]) == name]

    def said(self, severity: str, name: str | None = None) -> list[str]:
        """The messages of a severity: `info`, `warning`, `error`; of one resource, or of all."""
        found = (event["diagnosticEvent"] for event in self.events if "diagnosticEvent" in event)
        return [
            item["message"].rstrip()
            for item in found
            if item["severity"] == severity and name in (None, _name(item.get("urn", "")))
        ]


@dataclass
class Project:
    """One stack of one project.

    :param folder: an empty folder; project, state and plugin homes go below it.
    :param plugins: the folder that holds `pulumi-resource-replicator`; None for a project that names no plugin.
    """

    folder: Path
    name: str = "shop"
    stack: str = "dev"
    plugins: Path | None = SCRIPTS
    environment: dict[str, str] = field(default_factory=dict)
    runtime: str = "yaml"
    state: Path | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = self.state or self.folder / "state"
        self.state.mkdir(exist_ok=True)

    def write_yaml(self, program: Mapping[str, Any]) -> None:
        """Write Pulumi.yaml with a YAML program: config, resources, outputs."""
        # JSON is YAML, and the host reads it.
        self._write_project({"runtime": "yaml", **program})

    def write_python(self, program: str) -> None:
        """Write a Python program that runs in this test's own environment."""
        self.write_files("python", {"__main__.py": program})

    def write_files(self, runtime: str, files: Mapping[str, str]) -> None:
        """Write a program of a language, by the names of its files."""
        self._write_project({"runtime": runtime})
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def _write_project(self, more: Mapping[str, Any]) -> None:
        project = {"name": self.name, **more}
        if self.plugins is not None:
            project["plugins"] = {"providers": [{"name": "replicator", "path": str(self.plugins)}]}
        (self.folder / "Pulumi.yaml").write_text(json.dumps(project, indent=2))

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of the CLI."""
        kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
        return {
            **kept,
            "PATH": f"{cli_folder()}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.state}",
            "PULUMI_CONFIG_PASSPHRASE": "correct horse battery staple",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_PYTHON_CMD": sys.executable,
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_DEBUG_COMMANDS": "true",  # --event-log is one of those
            "NO_COLOR": "1",
            **self.environment,
        }

    def command(self, *arguments: str) -> list[str]:
        """The command line of a CLI call, for tests that drive the process themselves."""
        return [str(cli_folder() / "pulumi"), *arguments, "--non-interactive", "--color", "never"]

    def run(self, *arguments: str, check: bool = True, timeout: float = 110) -> Ran:
        """Run the CLI; with `check`, fail the test with its whole output where it fails."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert not check or ran.code == 0, f"pulumi {' '.join(arguments)} exited {ran.code}:\n{ran.text}"
        return ran

    def init(self) -> None:
        """Make the stack."""
        self.run("stack", "init", self.stack)

    def configure(self, key: str, value: Any) -> None:
        """Set a value of the stack's configuration; what is no string, as JSON text."""
        text = value if isinstance(value, str) else json.dumps(value)
        self.run("config", "set", key, text, "--stack", self.stack)

    def up(self, *arguments: str, check: bool = True) -> Ran:
        return self.operate("up", *arguments, check=check)

    def preview(self, *arguments: str, check: bool = True) -> Ran:
        return self.operate("preview", *arguments, check=check)

    def refresh(self, *arguments: str, check: bool = True) -> Ran:
        return self.operate("refresh", *arguments, check=check)

    def destroy(self, *arguments: str, check: bool = True) -> Ran:
        return self.operate("destroy", *arguments, check=check)

    def operate(self, command: str, *arguments: str, check: bool = True) -> Ran:
        """Run an operation on the stack, with its events."""
        log = self.folder / "events.json"
        log.unlink(missing_ok=True)
        words = self._operation(command, *arguments)
        ran = self.run(*words, "--event-log", str(log), check=check)
        return replace(ran, events=_last_phase(log) if log.exists() else ())

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        """Begin an operation; the caller ends it. Its output is one pipe."""
        return subprocess.Popen(
            self.command(*self._operation(command, *arguments)),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def _operation(self, command: str, *arguments: str) -> list[str]:
        agreed = [] if command == "preview" else ["--yes"]
        return [command, *agreed, "--stack", self.stack, *arguments]

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        return self.run("stack", "output", "--json", "--stack", self.stack).json

    def deployment(self) -> dict[str, Any]:
        """The state: resources, and operations that never came to an end."""
        exported = self.run("stack", "export", "--stack", self.stack).json
        return exported["deployment"]  # type: ignore[no-any-return]

    def owner_token(self, name: str) -> Any:
        """The owner's token of a stream in the state, where it is encrypted."""
        exported = self.run("stack", "export", "--show-secrets", "--stack", self.stack).json
        (found,) = (item for item in exported["deployment"]["resources"] if _name(item["urn"]) == name)
        return json.loads(found["outputs"]["ownerToken"]["plaintext"])

    def resources(self) -> dict[str, dict[str, Any]]:
        """The resources in the state, by name."""
        return {_name(item["urn"]): item for item in self.deployment().get("resources", [])}


def plugins_of(parent: int) -> list[int]:
    """The provider processes that a process of the CLI started."""
    listed = subprocess.run(["ps", "-axwwo", "pid=,ppid=,args="], check=True, stdout=subprocess.PIPE, text=True)
    rows = (line.split(None, 2) for line in listed.stdout.splitlines())
    return [int(pid) for pid, of, args in rows if int(of) == parent and "pulumi-resource-replicator" in args]


def kill_plugins(parent: int) -> None:
    """Kill the provider processes of a process of the CLI, of which there must be some."""
    plugins = plugins_of(parent)
    assert plugins
    for plugin in plugins:
        os.kill(plugin, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], check=False, stdout=subprocess.PIPE, text=True)
    return listed.stdout.strip()[:1] not in ("", "Z")


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


def _last_phase(log: Path) -> list[dict[str, Any]]:
    """The events after a preview, where an update came after it."""
    events: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    ends = [place for place, event in enumerate(events) if event.get("summaryEvent", {}).get("isPreview")]
    later = events[ends[-1] + 1 :] if ends else events
    return later if any("cancelEvent" not in event for event in later) else events
