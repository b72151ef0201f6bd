"""`replicator --version`."""

from __future__ import annotations

from typing import Annotated

import typer

from replicator.cli.output import say


def _print(wanted: bool) -> None:
    if wanted:
        from replicator import __version__

        say(f"replicator {__version__}")
        raise typer.Exit


def version_option(
    version: Annotated[
        bool, typer.Option("--version", callback=_print, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options of the command itself."""
