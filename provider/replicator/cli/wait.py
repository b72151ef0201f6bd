"""`replicator wait`: wait until a stream runs, or has caught up."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli.clients import connected
from replicator.cli.exits import Exit
from replicator.cli.options import (
    DEFAULT_BACKEND,
    AddressOption,
    BackendOption,
    NameArgument,
    again,
    parse_duration,
)
from replicator.cli.output import say, showing, words
from replicator.cli.streams import Named, described, named

if TYPE_CHECKING:
    from replicator.model import StreamStatus


class Goal(StrEnum):
    """What a wait is for."""

    RUNNING = "running"
    CAUGHT_UP = "caught_up"


def wait(
    name: NameArgument,
    goal: Annotated[
        Goal,
        typer.Option(
            "--for",
            help="running: it moves data; caught_up: what the source had when the wait began is at the destination.",
        ),
    ] = Goal.CAUGHT_UP,
    timeout: Annotated[
        timedelta,
        typer.Option(help="How long to wait.", parser=parse_duration, metavar="DURATION", show_default="10m"),
    ] = timedelta(minutes=10),
    backend: BackendOption = DEFAULT_BACKEND,
    address: AddressOption = None,
) -> None:
    """Wait until a stream runs, or has caught up. Changes nothing.

    The exit code is 1 where the stream has failed, is paused, or does not get there in time.
    """
    import asyncio

    from replicator.errors import WaitTimeout

    at = named(name, backend)
    try:
        with showing(f"waiting for {at.name}"):
            found = asyncio.run(_wait(at, address, goal, timeout.total_seconds()))
    except WaitTimeout as error:
        error.fix = f"wait longer with --timeout, or see why: replicator describe {name}{again(backend, address)}"
        raise
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    say(f"{at.name} is {words(found.state)}{f': {found.last_error}' if found.last_error else ''}")
    if found.state in ("failed", "paused"):
        raise typer.Exit(Exit.FAILED)


async def _wait(at: Named, address: str | None, goal: Goal, seconds: float) -> StreamStatus:
    from replicator.lifecycle.wait import Limits, wait_for_stream
    from replicator.model import WaitFor
    from replicator.progress import tell

    async def progress(text: str) -> None:
        tell(text)

    async with connected(at.backend, address, at.region) as client:
        found = await described(client, at.name)
        limits = Limits(seconds)
        async with limits.within(f"the wait for {words(goal)}", at.name, progress):
            return await wait_for_stream(client, found.stream.model_copy(update={"wait_for": WaitFor(goal)}), limits)
