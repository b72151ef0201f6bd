"""The command as a whole: help, exit codes and completion."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from replicator.cli.commands import app
from replicator.cli.exits import Exit
from typer.main import get_command

from tests.agent.support import COMMAND, call

COMMANDS = sorted(getattr(get_command(app), "commands"))  # noqa: B009


def test_help_documents_every_exit_code() -> None:
    code, out, _ = call("--help")
    assert code == Exit.DONE
    for exit in Exit:
        assert f"\n    {exit:<3d}  {exit.meaning}\n" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_help_text_that_is_not_cut(name: str) -> None:
    code, out, _ = call(name, "--help")
    assert code == 0
    assert "..." not in out.replace("[ARGS]...", "")
    assert f"\n  {name} " in call("--help")[1]


def test_a_wrong_command_line_ends_with_2() -> None:
    assert call("nothing")[0] == call("status", "--nothing")[0] == call("pause")[0] == Exit.USAGE


def complete(*words: str) -> list[str]:
    environ = {
        **os.environ,
        "_REPLICATOR_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("replicator", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run([COMMAND], env=environ, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_a_shell_completes_commands_and_backends() -> None:
    assert sorted(complete("re")) == ["replay", "replays", "restore", "resume"]
    assert sorted(complete("agent", "sta")) == ["start", "status"]
    assert complete("status", "--backend", "lite") == ["litestream"]


def test_completion_is_installed_into_bash(tmp_path: Path) -> None:
    environ = {**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(COMMAND).parent}:/usr/bin:/bin"}
    script = "replicator --install-completion >&2 && source ~/.bashrc && complete -p replicator"
    shell = ["bash", "--norc", "-c", script]  # it stays the parent, which is what names the shell
    shown = subprocess.run(shell, env=environ, timeout=60, capture_output=True, text=True, check=False)
    assert shown.stdout.startswith("complete "), shown.stderr
