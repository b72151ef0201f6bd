"""`replicator describe` and `replicator replays`: everything that is known of one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from replicator.cli.exits import Exit
from replicator.cli.options import (
    AddressOption,
    BackendOption,
    JsonOption,
    NameArgument,
    Output,
    OutputOption,
    StackOption,
    form_of,
)
from replicator.cli.output import UNKNOWN, counted, rough, say, say_data, words
from replicator.cli.streams import One, Place, as_json, described, id_of, one_stream, owner_of
from replicator.cli.table import Column, lines, show
from replicator.cli.where import Where

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.model import StreamStatus
    from replicator.replicator import Description, ReplayProgress


def describe(
    name: NameArgument,
    backend: BackendOption = None,
    address: AddressOption = None,
    stack: StackOption = None,
    output: OutputOption = Output.TABLE,
    json_only: JsonOption = False,
) -> None:
    """Show all that is known of one stream.

    That is its state, declaration, objects at the engine, findings and replays. The exit code is 1 where the stream has
    failed, and where no stream has the name.
    """
    form, where = _form(output, json_only), Where(backend, address, stack)
    with one_stream(where, name) as one:
        found, replays = one.run(_look(one))
        id = str(id_of(found, Place(one.id.backend, one.id.region)))
    if form in (Output.JSON, Output.YAML):
        say_data(_data(id, found, replays), as_yaml=form is Output.YAML)
    else:
        for line in _described(id, found, replays):
            say(where.hint(line))
    if found.status.state == "failed":
        raise typer.Exit(Exit.FAILED)


def replays(
    name: NameArgument,
    backend: BackendOption = None,
    address: AddressOption = None,
    stack: StackOption = None,
    output: OutputOption = Output.TABLE,
    json_only: JsonOption = False,
) -> None:
    """List the replays of a stream, the newest first.

    An engine's record holds a bounded number of them.
    """
    form = _form(output, json_only)
    with one_stream(Where(backend, address, stack), name) as one:
        found = one.run(one.client.list_replays(one.name))
    if form in (Output.JSON, Output.YAML):
        say_data([item.model_dump(mode="json") for item in found], as_yaml=form is Output.YAML)
    elif found:
        show(_REPLAYS, [_row(item) for item in found], {"failed": "red"}, whole=form is Output.WIDE)
    else:
        say(f"{one.name} has no replays")


def _form(output: Output, json_only: bool) -> Output:
    form = form_of(output, json_only)
    if form is Output.NAME:
        raise typer.BadParameter("name is for lists of streams", param_hint="--output")
    return form


async def _look(one: One) -> tuple[Description, list[ReplayProgress]]:
    found = await described(one.client, one.name)
    return found, [] if found.declaration is None else await one.client.list_replays(one.name)


def _data(id: str, found: Description, replays: list[ReplayProgress]) -> dict[str, Any]:
    return {
        **as_json(id, found),
        "declaration": _declaration(found),
        "engineObjects": found.engine_objects,
        "replays": [item.model_dump(mode="json") for item in replays],
    }


def _declaration(found: Description) -> dict[str, Any] | None:
    from replicator.lifecycle.resource import declared

    return None if found.declaration is None else declared(found.declaration)


def _described(id: str, found: Description, replays: list[ReplayProgress]) -> Iterator[str]:
    stream, status = found.declaration, found.status
    yield from _pairs(
        {
            "Name": found.name,
            "Id": id,
            "State": ", ".join(filter(None, (words(status.state), status.upload))),
            "Owner": UNKNOWN if stream is None else owner_of(stream) or "none: no resource manages it",
            **_measured(status),
        }
    )
    if declaration := _declaration(found):
        yield "Declaration:"
        yield from _block(declaration)
    if found.engine_objects:
        yield "Engine objects:"
        yield from _block(found.engine_objects)
    if found.findings:
        yield "Findings:"
        for finding in found.findings:
            yield f"  {finding.severity}: {finding.message} [{finding.code}]"
            if finding.fix:
                yield f"    → {finding.fix}"
    if replays:
        yield "Replays:"
        yield from (f"  {line}" for line in lines(_REPLAYS, [_row(item) for item in replays], None))


def _measured(status: StreamStatus) -> dict[str, str]:
    """Return what is measured, in words, without what the engine cannot tell."""
    from datetime import UTC, datetime

    from replicator.model import format_time

    now, reached = datetime.now(UTC), status.last_checkpoint

    def at(time: datetime | None) -> str | None:
        return None if time is None else f"{format_time(time)} ({rough(now - time)} ago)"

    lag = [
        None if status.lag_seconds is None else f"{status.lag_seconds:g} s",
        None if status.lag_events is None else f"{counted(status.lag_events, 'event')} behind",
    ]
    checkpoint = [] if reached is None else [reached.lsn, at(reached.wall)]
    texts = {
        "Lag": ", ".join(filter(None, lag)),
        "Checkpoint": ", ".join(filter(None, checkpoint)),
        "Last event": at(status.last_event),
        "Replicated": None if status.events_replicated is None else counted(status.events_replicated, "event"),
        "Errors": None if status.errors_last_hour is None else f"{status.errors_last_hour} in the last hour",
        "Last error": status.last_error,
    }
    return {label: text for label, text in texts.items() if text}


def _pairs(texts: dict[str, str]) -> Iterator[str]:
    width = max(map(len, texts)) + 2
    for label, text in texts.items():
        yield f"{label + ':':{width}}{text}"


def _block(value: dict[str, Any]) -> Iterator[str]:
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10_000)
    yield from (f"  {line}" for line in text.splitlines())


_REPLAYS = (
    Column("key", cut=True),
    Column("state"),
    Column("method"),
    Column("began"),
    Column("took", "right", leave_out=2),
    Column("from", cut=True, leave_out=1),
    Column("result", cut=True, leave_out=3),
)


def _row(item: ReplayProgress) -> tuple[str, ...]:
    from replicator.model import format_time

    start = item.resolved or item.start
    took = rough(item.finished_at - item.started_at) if item.finished_at else UNKNOWN
    began = start.lsn or (start.wall and format_time(start.wall)) or UNKNOWN
    result = item.error or item.message or item.target or UNKNOWN
    return (item.key, item.state.value, words(item.method), format_time(item.started_at), took, began, result)
