"""A Pulumi project in a temporary folder, driven by the real CLI on a `file://` backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """One finished run of the CLI."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)  # type: ignore[no-any-return]


@dataclass
class Project:
    """One stack of one project.

    :param folder: an empty folder; project, state and plugin homes go below it.
    :param plugins: the folder that holds `pulumi-resource-replicator`.
    """

    folder: Path
    name: str = "shop"
    stack: str = "dev"
    plugins: Path = SCRIPTS
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
        self._write_project({"runtime": "python"})
        (self.folder / "__main__.py").write_text(program)

    def _write_project(self, more: Mapping[str, Any]) -> None:
        plugins = {"providers": [{"name": "replicator", "path": str(self.plugins)}]}
        project = {"name": self.name, "plugins": plugins, **more}
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

    def up(self, *arguments: str, check: bool = True) -> Ran:
        return self.run("up", "--yes", "--stack", self.stack, *arguments, check=check)

    def preview(self, *arguments: str, check: bool = True) -> Ran:
        return self.run("preview", "--stack", self.stack, *arguments, check=check)

    def refresh(self, *arguments: str, check: bool = True) -> Ran:
        return self.run("refresh", "--yes", "--stack", self.stack, *arguments, check=check)

    def destroy(self, *arguments: str, check: bool = True) -> Ran:
        return self.run("destroy", "--yes", "--stack", self.stack, *arguments, check=check)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        return self.run("stack", "output", "--json", "--stack", self.stack).json

    def resources(self) -> dict[str, dict[str, Any]]:
        """The resources in the state, by name."""
        exported = self.run("stack", "export", "--stack", self.stack).json
        found = exported["deployment"].get("resources", [])
        return {item["urn"].rpartition("::")[2]: item for item in found}
