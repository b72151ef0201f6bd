"""`replicator status`, `pause` and `resume`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli.exits import Exit
from replicator.cli.options import (
    AddressOption,
    AllOption,
    BackendOption,
    JsonOption,
    NameArgument,
    Output,
    OutputOption,
    StackOption,
    StateOption,
    form_of,
    parse_duration,
    parse_states,
)
from replicator.cli.output import UNKNOWN, rough, say, say_data, showing, words
from replicator.cli.streams import Found, Place, as_json, described, id_of, measured, one_stream, owner_of
from replicator.cli.table import Column, show
from replicator.cli.where import Where

if TYPE_CHECKING:
    from datetime import datetime

    from replicator.model import StreamState, StreamStatus
    from replicator.replicator import Description

STYLES = {"running": "green", "failed": "red", "paused": "yellow", "catching up": "yellow", "snapshot": "yellow"}


def status(
    name: Annotated[
        str | None,
        typer.Argument(help="One stream, by name or id; else all of them.", metavar="[NAME]", show_default=False),
    ] = None,
    backend: BackendOption = None,
    address: AddressOption = None,
    stack: StackOption = None,
    everywhere: AllOption = False,
    states: StateOption = None,
    output: OutputOption = Output.TABLE,
    json_only: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; the exit code answers.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again, until ^C.")] = False,
    every: Annotated[
        timedelta,
        typer.Option(
            help="For --watch: the time between two looks.",
            parser=parse_duration,
            metavar="DURATION",
            show_default="2s",
        ),
    ] = timedelta(seconds=2),
) -> None:
    """Show state and lag of streams, measured now. What the engine cannot tell is shown as `-`.

    With a name, what else is known of that stream follows. The exit code is 1 where a stream has failed, where no
    stream has the name, and where one of several engines does not answer.
    """
    form = form_of(output, json_only)
    if watch and (quiet or form not in (Output.TABLE, Output.WIDE)):
        raise typer.BadParameter("shows tables alone", param_hint="--watch")
    if name is not None and everywhere:
        raise typer.BadParameter("is for all streams; one has its id", param_hint="--all")
    if everywhere and (backend or address):
        raise typer.BadParameter("names every backend and region itself", param_hint="--all")
    query = _Query(name, Where(backend, address, stack), everywhere=everywhere, states=parse_states(states))
    if watch:
        _watch(query, form, every)
    found = query.ask()
    if not quiet:
        _tell(found, form, query)
    if found.away or any(item.status.state == "failed" for item in found.streams.values()):
        raise typer.Exit(Exit.FAILED)


class _Query:
    """What one command asks for."""

    def __init__(self, name: str | None, where: Where, *, everywhere: bool, states: list[StreamState]) -> None:
        self.name = name
        self.where = where
        self._everywhere = everywhere
        self._states = states

    def ask(self) -> Found:
        import asyncio

        found = asyncio.run(self._ask_all()) if self.name is None else self._ask_one(self.name)
        return found.in_states(self._states)

    def _ask_one(self, name: str) -> Found:
        with one_stream(self.where, name) as one:
            item = one.run(described(one.client, one.name))
            place = Place(one.id.backend, one.id.region)
            return Found({str(id_of(item, place)): item}, {}, (place,))

    async def _ask_all(self) -> Found:
        with self.where.hints():
            connections = self.where.connections(everywhere=self._everywhere)
            try:
                return await measured(connections)
            finally:
                await connections.aclose()


def _watch(query: _Query, form: Output, every: timedelta) -> None:
    """Show the streams until ^C. An engine that does not answer is told, and asked again."""
    import time

    from rich.console import Console

    from replicator.errors import ReplicatorError

    console = Console()
    try:
        while True:
            try:
                found = query.ask()
            except ReplicatorError as error:
                console.clear()
                say(f"error: {error}")
            else:
                console.clear()
                _tell(found, form, query)
            if not console.is_terminal:
                say("")
            time.sleep(every.total_seconds())
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def _tell(found: Found, form: Output, query: _Query) -> None:
    """Print the streams in one form. Engines that do not answer are told in words, or as rows of data."""
    if form in (Output.JSON, Output.YAML):
        rows = [as_json(id, item) for id, item in found.streams.items()]
        away = [{"backend": at.backend, "region": at.region, "error": str(why)} for at, why in found.away.items()]
        say_data([*rows, *away], as_yaml=form is Output.YAML)
        return
    if form is Output.NAME:
        for id in found.streams:
            say(id)
    elif found.streams:
        show_statuses(found.streams, wide=form is Output.WIDE, several=found.of_several())
        _tell_findings(found, query.where, whole=query.name is not None)
    elif not found.away:
        say("there are no streams")
    tell_away(found)


def tell_away(found: Found) -> None:
    """Print why engines did not answer, on stderr."""
    import sys

    for place, error in found.away.items():
        print(f"error: {place}: {error}", file=sys.stderr)


def _tell_findings(found: Found, where: Where, *, whole: bool) -> None:
    """Print the findings.

    :param whole: also those that ask for no attention.
    """
    from replicator.replicator import Severity

    for item in found.streams.values():
        for finding in item.findings:
            # The status has what cannot be read as its last error.
            if finding.message != item.status.last_error and (whole or finding.severity is not Severity.INFO):
                say(f"{finding.severity} of {item.name}: {finding.message} [{finding.code}]")
                if finding.fix:
                    say(f"  → {where.hint(finding.fix)}")


def pause(
    name: NameArgument, backend: BackendOption = None, address: AddressOption = None, stack: StackOption = None
) -> None:
    """Stop moving data and keep the checkpoint. The next refresh in Pulumi shows it."""
    from replicator.capabilities import route_of

    where = Where(backend, address, stack, changes=True)
    with one_stream(where, name) as one:
        with showing(f"pausing {one.name}"):
            one.run(one.client.pause(one.name))
            found = one.run(one.client.describe([one.name]))
        routes = [route_of(item.declaration) for item in found if item.declaration is not None]
        say(f"{one.name} is paused." + "".join(f" While it is: {route.pause_cost}." for route in routes if route))
        say(where.hint(f"Go on with: replicator resume {name}"))


def resume(
    name: NameArgument, backend: BackendOption = None, address: AddressOption = None, stack: StackOption = None
) -> None:
    """Continue from the checkpoint. Nothing is lost; where that cannot be, it is refused, with what is gone."""
    with one_stream(Where(backend, address, stack, changes=True), name) as one:
        with showing(f"resuming {one.name}"):
            one.run(one.client.resume(one.name))
            found = one.run(one.client.get_status(one.name))
        say(f"{one.name} is {words(found.state)}{f': {found.last_error}' if found.last_error else ''}")


_COLUMNS = (
    Column("name", cut=True),
    Column("state"),
    Column("lag", "right"),
    Column("behind", "right", leave_out=4),
    Column("checkpoint", cut=True, leave_out=3),
    Column("last event", leave_out=2),
    Column("errors/h", "right", leave_out=1),
)
_WIDE = (Column("id"), Column("owner"), Column("source"), Column("destination"))
_BACKEND = Column("backend", leave_out=5)


def show_statuses(found: dict[str, Description], *, wide: bool, several: bool) -> None:
    """Print the table of streams, and their last errors.

    :param found: by id.
    :param wide: cut nothing, and show more columns.
    :param several: they are of several engines, so a column names the backend.
    """
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    columns = (*_COLUMNS, *(_WIDE if wide else ()), *((_BACKEND,) if several else ()))
    rows = [
        (*_cells(item.status, now), *(_more(id, item) if wide else ()), *((id.partition("/")[0],) if several else ()))
        for id, item in found.items()
    ]
    show(columns, rows, STYLES, whole=wide)
    for item in found.values():
        if item.status.last_error is not None:
            say(f"last error of {item.name}: {item.status.last_error}")


def _more(id: str, item: Description) -> tuple[str, ...]:
    stream = item.declaration
    if stream is None:
        return (id, *[UNKNOWN] * 3)
    return (id, owner_of(stream) or UNKNOWN, stream.source.uri, stream.destination.uri)


def _lag(item: StreamStatus) -> str:
    if item.lag_seconds is None:
        return UNKNOWN
    short = bool(item.lag_events) and item.lag_seconds < 0.05
    return "<0.1 s" if short else f"{item.lag_seconds:.1f} s"  # beside waiting events, 0.0 would contradict them


def _cells(item: StreamStatus, now: datetime) -> tuple[str, ...]:
    checkpoint = item.last_checkpoint
    return (
        item.name,
        ", ".join(filter(None, (words(item.state), item.upload))),
        _lag(item),
        UNKNOWN if item.lag_events is None else str(item.lag_events),
        (checkpoint and checkpoint.lsn) or UNKNOWN,
        UNKNOWN if item.last_event is None else f"{rough(now - item.last_event)} ago",
        UNKNOWN if item.errors_last_hour is None else str(item.errors_last_hour),
    )
