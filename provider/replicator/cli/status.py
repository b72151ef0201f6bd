"""`replicator status`, `pause` and `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from replicator.cli.clients import connected
from replicator.cli.exits import Exit
from replicator.cli.options import DEFAULT_BACKEND, AddressOption, BackendOption, JsonOption, NameArgument, again
from replicator.cli.output import UNKNOWN, rough, say, say_json, showing, words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from replicator.model import StreamStatus
    from replicator.replicator import Description, Finding

_COLOURS = {"running": "green", "failed": "red"}
_PIPE_WIDTH = 100_000
_CHECKPOINT_WIDTH = 40  # on a terminal; the checkpoint of a mirror has a number for each partition


def status(
    name: Annotated[
        str | None, typer.Argument(help="One stream; all of them, if left out.", metavar="[NAME]", show_default=False)
    ] = None,
    backend: BackendOption = DEFAULT_BACKEND,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show state and lag of streams, measured now. What the engine cannot tell is shown as `-`.

    With a name, what else is known of that stream follows. The exit code is 1 where a stream has failed, and where no
    stream has the name.
    """
    import asyncio

    from replicator.model import StreamState

    async def body() -> list[Description]:
        async with connected(backend, address) as client:
            found = await client.describe(None if name is None else [name])
            if name is not None and not found:
                await client.get_status(name)  # raises with the engine's own message
            return sorted(found, key=lambda item: item.name)

    found = asyncio.run(body())
    if as_json:
        say_json([{**item.status.model_dump(mode="json"), "findings": _json(item.findings)} for item in found])
    elif not found:
        say("there are no streams")
    else:
        _tell(found, whole=name is not None)
    if any(item.status.state is StreamState.FAILED for item in found):
        raise typer.Exit(Exit.FAILED)


def _tell(found: Sequence[Description], *, whole: bool) -> None:
    """Print the table, and the findings.

    :param whole: also those that ask for no attention.
    """
    from replicator.replicator import Severity

    _show([item.status for item in found])
    for item in found:
        for finding in item.findings:
            # The status has what cannot be read as its last error.
            if finding.message != item.status.last_error and (whole or finding.severity is not Severity.INFO):
                say(f"{finding.severity} of {item.name}: {finding.message} [{finding.code}]")
                if finding.fix:
                    say(f"  → {finding.fix}")


def _json(findings: Sequence[Finding]) -> list[dict[str, object]]:
    return [finding.model_dump(mode="json", exclude_none=True) for finding in findings]


def pause(name: NameArgument, backend: BackendOption = DEFAULT_BACKEND, address: AddressOption = None) -> None:
    """Stop moving data and keep the checkpoint. The next refresh in Pulumi shows it."""
    import asyncio

    from replicator.capabilities import route_of

    async def body() -> list[Description]:
        async with connected(backend, address) as client:
            await client.pause(name)
            return await client.describe([name])

    with showing(f"pausing {name}"):
        found = asyncio.run(body())
    routes = [route_of(item.declaration) for item in found if item.declaration is not None]
    say(f"{name} is paused." + "".join(f" While it is: {route.pause_cost}." for route in routes if route))
    say(f"Go on with: replicator resume {name}{again(backend, address)}")


def resume(name: NameArgument, backend: BackendOption = DEFAULT_BACKEND, address: AddressOption = None) -> None:
    """Go on from the checkpoint. Nothing is lost; where that cannot be, it is refused, with what is gone."""
    import asyncio

    async def body() -> StreamStatus:
        async with connected(backend, address) as client:
            await client.resume(name)
            return await client.get_status(name)

    with showing(f"resuming {name}"):
        found = asyncio.run(body())
    say(f"{name} is {words(found.state)}{f': {found.last_error}' if found.last_error else ''}")


def _show(found: list[StreamStatus]) -> None:
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    now = datetime.now(UTC)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)  # a pipe has no width, so nothing is truncated
    for heading, side in _COLUMNS:
        limit = _CHECKPOINT_WIDTH if heading == "checkpoint" and console.is_terminal else None
        table.add_column(heading, justify=side, no_wrap=True, max_width=limit)
    for item in found:
        text = ", ".join(filter(None, (words(item.state), item.upload)))
        state = Text(text, style=_COLOURS.get(item.state, "yellow"))
        table.add_row(Text(item.name), state, *map(Text, _cells(item, now)))
    console.print(table)
    for item in found:
        if item.last_error is not None:
            console.print(Text(f"last error of {item.name}: {item.last_error}"), soft_wrap=True)


_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("name", "left"),
    ("state", "left"),
    ("lag", "right"),
    ("behind", "right"),
    ("checkpoint", "left"),
    ("last event", "left"),
    ("errors/h", "right"),
)


def _lag(item: StreamStatus) -> str:
    if item.lag_seconds is None:
        return UNKNOWN
    short = bool(item.lag_events) and item.lag_seconds < 0.05
    return "<0.1 s" if short else f"{item.lag_seconds:.1f} s"  # beside waiting events, 0.0 would contradict them


def _cells(item: StreamStatus, now: datetime) -> list[str]:
    checkpoint = item.last_checkpoint
    return [
        _lag(item),
        UNKNOWN if item.lag_events is None else str(item.lag_events),
        (checkpoint and checkpoint.lsn) or UNKNOWN,
        UNKNOWN if item.last_event is None else f"{rough(now - item.last_event)} ago",
        UNKNOWN if item.errors_last_hour is None else str(item.errors_last_hour),
    ]
