"""`replicator wait`: wait until a stream runs, or has caught up."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli.exits import Exit
from replicator.cli.options import (
    AddressOption,
    BackendOption,
    NameArgument,
    StackOption,
    parse_duration,
)
from replicator.cli.output import say, showing, words
from replicator.cli.streams import One, described, one_stream
from replicator.cli.where import Where

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
    backend: BackendOption = None,
    address: AddressOption = None,
    stack: StackOption = None,
) -> None:
    """Wait until a stream runs, or has caught up. Changes nothing.

    The exit code is 1 where the stream has failed, is paused, or does not get there in time.
    """
    from replicator.errors import WaitTimeout

    where = Where(backend, address, stack)
    try:
        with one_stream(where, name) as one, showing(f"waiting for {one.name}"):
            found = one.run(_wait(one, goal, timeout.total_seconds()))
    except WaitTimeout as error:
        error.fix = where.hint(f"wait longer with --timeout, or see why: replicator describe {name}")
        raise
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    say(f"{one.name} is {words(found.state)}{f': {found.last_error}' if found.last_error else ''}")
    if found.state in ("failed", "paused"):
        raise typer.Exit(Exit.FAILED)


async def _wait(one: One, goal: Goal, seconds: float) -> StreamStatus:
    from replicator.lifecycle.wait import Limits, wait_for_stream
    from replicator.model import WaitFor
    from replicator.progress import tell

    async def progress(text: str) -> None:
        tell(text)

    found = await described(one.client, one.name)
    limits = Limits(seconds)
    async with limits.within(f"the wait for {words(goal)}", one.name, progress):
        return await wait_for_stream(one.client, found.stream.model_copy(update={"wait_for": WaitFor(goal)}), limits)
