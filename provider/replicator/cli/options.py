"""Options that several commands share."""

from __future__ import annotations

import sys
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.backends import REGISTRY
from replicator.cli.exits import Exit
from replicator.cli.output import say

if TYPE_CHECKING:
    from replicator.model import Checkpoint, StreamState


def parse_backend(value: str) -> str:
    """Parse a backend's name."""
    if value not in REGISTRY:
        raise typer.BadParameter(f"{value!r} is not a backend; there are {', '.join(sorted(REGISTRY))}")
    return value


DEFAULT_BACKEND = "litestream"


def parse_wait(value: str | timedelta) -> timedelta:
    """Parse a duration that may be zero."""
    from replicator import model

    if isinstance(value, timedelta):
        return value
    try:
        duration = model.parse_duration(value)
    except ValueError:
        duration = timedelta(-1)
    if duration < timedelta():
        raise typer.BadParameter(f'{value!r} is not a duration; write one such as "50ms" or "1h"')
    return duration


def parse_duration(value: str | timedelta) -> timedelta:
    """Parse a duration longer than zero."""
    duration = parse_wait(value)
    if not duration:
        raise typer.BadParameter("must be longer than zero")
    return duration


def parse_start(lsn: str | None, time: str | None) -> Checkpoint | None:
    """Parse the options of a position and a time; return `None` without both."""
    from pydantic import ValidationError

    from replicator.model import Checkpoint

    if lsn is not None and time is not None:
        raise typer.BadParameter("say where to start, by one of them", param_hint="--lsn / --time")
    if lsn is None and time is None:
        return None
    try:
        return Checkpoint.model_validate({"lsn": lsn} if time is None else {"wall": time})
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise typer.BadParameter(text, param_hint="--lsn" if time is None else "--time") from None


def need_terminal() -> None:
    """Refuse a question that nobody could answer."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on; give --yes", param_hint="--yes")


def ask(question: str) -> None:
    """Ask, and end the command if the answer is no."""
    try:
        agreed = typer.confirm(question)
    except typer.Abort:
        say("")
        raise typer.Exit(Exit.INTERRUPTED) from None
    if not agreed:
        say("Nothing was done.")
        raise typer.Exit(Exit.FAILED)


BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="The backend of the stream.",
        parser=parse_backend,
        metavar="NAME",
        autocompletion=lambda: sorted(REGISTRY),
        show_default=f"those that the stack configures, else {DEFAULT_BACKEND}",
    ),
]
StackOption = Annotated[
    str | None,
    typer.Option(
        "--stack",
        "-s",
        help="In the folder of a Pulumi project: the stack whose configuration says where the engines are.",
        metavar="NAME",
        show_default="the one that is selected",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Where the agent listens, such as unix:///run/replicator/agent.sock or ssh://user@host; or an engine's "
        "own address, such as http://connect.example:8083.",
        metavar="ADDRESS",
        show_default="the stack's, else that of $REPLICATOR_LITESTREAM, else this host's agent",
    ),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Only say what would happen.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Output(StrEnum):
    """The form of a listing: a table that fits the terminal, all of it, data for programs, or ids alone."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


OutputOption = Annotated[
    Output,
    typer.Option(
        "--output",
        "-o",
        help="The form: table fits the terminal, wide cuts nothing and has more columns, json and yaml are for "
        "programs, name prints ids alone.",
    ),
]
AllOption = Annotated[
    bool,
    typer.Option("--all", help="Every backend and region that the stack or the variables REPLICATOR_… configure."),
]
StateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        help="Only streams in this state: running, paused, failed, catching_up or snapshot. It may be repeated.",
        metavar="STATE",
        show_default=False,
    ),
]
NameArgument = Annotated[
    str, typer.Argument(help="The stream's id or name, or the name of its resource.", metavar="NAME")
]


def parse_states(given: list[str] | None) -> list[StreamState]:
    """Return states; raise `BadParameter` for a word that is none."""
    from replicator.model import StreamState

    found = [text.replace("-", "_") for text in given or []]
    for text in found:
        if text not in list(StreamState):
            known = ", ".join(StreamState)
            raise typer.BadParameter(f"{text!r} is not a state; there are {known}", param_hint="--state")
    return [StreamState(text) for text in found]


def form_of(output: Output, as_json: bool) -> Output:
    """Return the form that two options say; `--json` is short for `--output json`."""
    if as_json and output not in (Output.TABLE, Output.JSON):
        raise typer.BadParameter(f"contradicts --output {output}", param_hint="--json")
    return Output.JSON if as_json else output
