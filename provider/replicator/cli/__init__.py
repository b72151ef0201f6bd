"""The `replicator` command. Each module here is one command; it imports what it needs when it runs."""

from __future__ import annotations

import typer

from replicator.cli.output import errors_for_people
from replicator.cli.serve import serve

app = typer.Typer(
    name="replicator",
    help="Replication streams: serve a backend, and look after what runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text, in half the time
)


@app.callback()
def _root() -> None:
    """Make `replicator` a group of commands, whatever their number."""


app.command()(serve)


def main() -> None:
    """The console script. Exit code 1 for an error of ours, 2 for a wrong command line."""
    with errors_for_people():
        app()
