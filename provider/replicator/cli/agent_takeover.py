"""`replicator agent takeover`: a destination whose former agent is gone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli.agent import SocketOption
from replicator.cli.clients import agent_client, session
from replicator.cli.exits import Exit
from replicator.cli.options import JsonOption, YesOption, ask, need_terminal
from replicator.cli.output import point, say, say_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.model import Endpoint
    from replicator.replicator import Takeover


def takeover(
    url: Annotated[str, typer.Argument(help="The destination, as the stream declares it.", metavar="URL")],
    auth_ref: Annotated[
        str | None,
        typer.Option("--auth-ref", help="Its authRef, as the agent resolves it.", metavar="REF", show_default="none"),
    ] = None,
    database: Annotated[
        Path | None,
        typer.Option(
            "--database",
            help="The restored database on this host, to compare with the newest point at the destination.",
            metavar="PATH",
            show_default="no comparison",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    lost_host: Annotated[
        str | None,
        typer.Option("--lost-host", help="The host that is gone, as the claim names it.", metavar="HOST"),
    ] = None,
    yes: YesOption = False,
    accept_difference: Annotated[
        bool, typer.Option("--accept-difference", help="Continue where the database has other content.")
    ] = False,
    socket: SocketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take over a destination whose former agent is gone for good.

    It shows who claims the destination, and asks. Then this host's agent has the claim. The next `pulumi up` that
    declares the stream here begins with a whole copy under a prefix of its own. What is there stays, and `replicator
    restore` can restore it. A former agent that comes back finds the claim changed and stops that stream.

    Run it on the host of the new agent, after `replicator restore`.
    """
    from replicator.remote.address import default_socket

    if not (dry_run or yes or lost_host):
        need_terminal()
    destination, source = _destination(url, auth_ref), _source(database)
    address = f"unix://{(socket or default_socket()).absolute()}"
    with session(agent_client(address)) as (runner, client):
        found = runner.run(client.look_at_destination(destination, source))
        if as_json:
            say_json(found.model_dump(mode="json"))
        else:
            for line in _plan(url, database, found):
                say(line)
        if dry_run:
            return
        if found.same is False and not accept_difference:
            raise typer.BadParameter(
                "the database has other content: restore it again, or accept the difference",
                param_hint="--accept-difference",
            )
        _confirm(found, lost_host, yes=yes)
        runner.run(client.take_over(destination, found.former))
    if as_json:
        return
    if found.own_stream is not None:
        say(f"done: this host's agent has the claim, and its stream {found.own_stream!r} goes on.")
    else:
        say("done: this host's agent has the claim. Declare the stream with this agent's address, and run:")
        say("  pulumi up --refresh --run-program")


def _destination(url: str, auth_ref: str | None) -> Endpoint:
    from pydantic import ValidationError

    from replicator.model import Endpoint, EndpointKind

    try:
        return Endpoint(kind=EndpointKind.S3, uri=url, auth_ref=auth_ref)
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("uri: ")
        raise typer.BadParameter(text, param_hint="URL") from None


def _source(database: Path | None) -> Endpoint | None:
    from urllib.parse import quote

    from replicator.model import Endpoint, EndpointKind

    if database is None:
        return None
    return Endpoint(kind=EndpointKind.SQLITE, uri=f"sqlite://{quote(str(database.absolute()))}")


def _plan(url: str, database: Path | None, found: Takeover) -> Iterator[str]:
    from replicator.model import format_time

    if found.newest is None:
        yield f"{url} holds no transaction."
    else:
        yield f"The newest transaction at {url} is {point(found.newest)}."
    if found.ours:
        yield "This host's agent claims it already, without a stream."
    elif found.former is None:
        yield "No agent claims it."
    else:
        owner = f", which {found.owner} manages" if found.owner else ""
        since = f" since {format_time(found.claimed_at)}" if found.claimed_at else ""
        yield f"The agent {found.former} on host {found.host} claims it{since}, for its stream {found.stream!r}{owner}."
        yield "If that agent still runs, it stops that stream within 5 minutes; its uploads until then are kept apart."
    if found.same is not None:
        yield f"{database} {'has' if found.same else 'does not have'} the content of that transaction."
    begins = f"This agent's stream {found.own_stream!r}" if found.own_stream else "The next stream there"
    yield f"{begins} begins with a whole copy under {found.next_prefix}. What is there stays."


def _confirm(found: Takeover, lost_host: str | None, *, yes: bool) -> None:
    """Have a person name the host that is gone, which nobody types by accident; `--yes` does not stand for it."""
    if found.host is None or found.ours:
        if not yes:
            ask("Take it over?")
        return
    if lost_host is None and yes:
        raise typer.BadParameter("an agent claims it; name the host that is gone", param_hint="--lost-host")
    text = f"To take it over, type the name of the host that is gone ({found.host})"
    if (lost_host or typer.prompt(text)) != found.host:
        say(f"Nothing was done: the claim names the host {found.host}.")
        raise typer.Exit(Exit.FAILED)
