"""All commands, registered with typer."""

from __future__ import annotations

import typer

from replicator.cli.adopt import adopt
from replicator.cli.adopt_connector import adopt_connector
from replicator.cli.agent import agent
from replicator.cli.agent_takeover import takeover
from replicator.cli.describe import describe, replays
from replicator.cli.doctor import doctor
from replicator.cli.exits import help_text
from replicator.cli.import_ import import_streams
from replicator.cli.init import init
from replicator.cli.list import list_streams
from replicator.cli.logs import logs
from replicator.cli.replay import replay
from replicator.cli.restore import restore
from replicator.cli.serve import serve
from replicator.cli.status import pause, resume, status
from replicator.cli.version import version_option
from replicator.cli.wait import wait

app = typer.Typer(
    name="replicator",
    help="Replication streams: list, see, pause, resume, replay, restore and adopt them; run an agent; "
    "find what is wrong.",
    epilog=help_text(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text takes half the time
)

app.callback()(version_option)
app.command("list")(list_streams)
app.command("import")(import_streams)
app.command("adopt")(adopt_connector)
for command in (status, describe, logs, wait, doctor, pause, resume, replay, replays, restore, serve):
    app.command()(command)
agent.command()(init)
agent.command()(adopt)
agent.command()(takeover)
app.add_typer(agent)
