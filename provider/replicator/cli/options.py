"""Options that several commands share."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import Annotated

import typer

from replicator.backends import REGISTRY


def parse_backend(value: str) -> str:
    """Parse a backend's name."""
    if value not in REGISTRY:
        raise typer.BadParameter(f"{value!r} is not a backend; there are {', '.join(sorted(REGISTRY))}")
    return value


DEFAULT_BACKEND = "litestream"


def again(backend: str, address: str | None) -> str:
    """Return the options that direct another command to the same address, with a space before each."""
    kind = "" if backend == DEFAULT_BACKEND else f" --backend {backend}"
    return kind + (f" --address {shlex.quote(address)}" if address else "")


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


NameArgument = Annotated[str, typer.Argument(help="The stream's name.", metavar="NAME")]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        help="The backend of the stream.",
        parser=parse_backend,
        metavar="NAME",
        autocompletion=lambda: sorted(REGISTRY),
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Where the agent listens, such as unix:///run/replicator/agent.sock or ssh://user@host; or an engine's "
        "own address, such as http://connect.example:8083.",
        metavar="ADDRESS",
        show_default="that of $REPLICATOR_LITESTREAM, else this host's agent",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
