"""The configuration of a Pulumi stack, for commands in the folder of its project."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from replicator.cli.output import note

_PROJECT_FILES = ("Pulumi.yaml", "Pulumi.yml", "Pulumi.json")
_ANSWER_WITHIN = 60.0  # a backend of Pulumi may be far


@dataclass(frozen=True, slots=True)
class StackConfig:
    """The provider's settings in a stack.

    :param settings: the values by key, without the package's name; none that is secret.
    :param secret: the keys of secret values. Pulumi calls a block secret if one value in it is.
    """

    project: str
    stack: str
    settings: Mapping[str, Any]
    secret: frozenset[str]

    def __str__(self) -> str:
        return f"stack {self.stack} of project {self.project}"


class _NotRead(Exception):
    """Pulumi did not tell the configuration; the text says why."""


def project_file(folder: Path) -> Path | None:
    """Return the file of the Pulumi project in a folder, or in one above it."""
    for place in (folder, *folder.parents):
        for name in _PROJECT_FILES:
            if (place / name).is_file():
                return place / name
    return None


def read_stack(name: str | None, *, needed: bool = False) -> StackConfig | None:
    """Return the settings of the stack that is selected here; `None` if this is no project's folder.

    Where Pulumi does not tell them, a note says why, and the result is `None`.

    :param name: another stack.
    :param needed: raise where Pulumi does not tell them.
    :raises typer.BadParameter: the stack was named, and cannot be read.
    :raises InvalidConfig: the settings are needed, and cannot be read.
    """
    from replicator.errors import InvalidConfig

    file = project_file(Path.cwd())
    if file is None:
        if name is not None:
            raise typer.BadParameter("there is no Pulumi project in this folder or above it", param_hint="--stack")
        return None
    try:
        return _read(file, name)
    except _NotRead as error:
        if name is not None:
            raise typer.BadParameter(str(error), param_hint="--stack") from None
        text = f"the configuration of the project {file} is not used: {error}"
        if needed:
            raise InvalidConfig(
                text, property="address", fix="say which engine is meant: --address, or --stack"
            ) from None
        note(text)
        return None


def _read(file: Path, name: str | None) -> StackConfig:
    import yaml

    stack = ["--stack", name] if name is not None else []
    shown, values = _pulumi(["stack", "--show-name", *stack], ["config", "--json", *stack])
    prefix = "replicator:"
    ours = {key.removeprefix(prefix): value for key, value in json.loads(values).items() if key.startswith(prefix)}
    return StackConfig(
        project=str(yaml.safe_load(file.read_text("utf-8"))["name"]),
        stack=shown.strip(),
        settings={key: value.get("objectValue", value["value"]) for key, value in ours.items() if not value["secret"]},
        secret=frozenset(key for key, value in ours.items() if value["secret"]),
    )


def _pulumi(*commands: list[str]) -> list[str]:
    """Return what commands of Pulumi print. They run at once, ask nothing, and need no passphrase."""
    environ = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    running: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            running.append(
                subprocess.Popen(
                    ["pulumi", "--non-interactive", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environ,
                    text=True,
                )
            )
        ended = [process.communicate(timeout=_ANSWER_WITHIN) for process in running]
    except FileNotFoundError:
        raise _NotRead("there is no pulumi on PATH") from None
    except OSError as error:
        raise _NotRead(f"pulumi does not start: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise _NotRead(f"pulumi does not answer within {_ANSWER_WITHIN:g} s") from None
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process, (_, err) in zip(running, ended, strict=True):
        if process.returncode:
            raise _NotRead(f"pulumi says: {' '.join(err.split()).removeprefix('error: ')}")
    return [out for out, _ in ended]
