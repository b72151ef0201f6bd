"""The `replicator` command. Each module here is one command; it imports what it needs when it runs."""

from __future__ import annotations

import typer

from replicator.cli.agent import agent
from replicator.cli.output import errors_for_people
from replicator.cli.replay import replay
from replicator.cli.serve import serve
from replicator.cli.status import pause, resume, status

app = typer.Typer(
    name="replicator",
    help="Replication streams: run an agent, look at streams, pause, resume and replay them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text, in half the time
)

app.add_typer(agent)
for command in (status, replay, pause, resume, serve):
    app.command()(command)


def main() -> None:
    """The console script. Exit code 1 for an error of ours, 2 for a wrong command line."""
    with errors_for_people():
        app()
