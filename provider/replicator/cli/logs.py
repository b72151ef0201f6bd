"""`replicator logs`: the engine's log of one stream."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli.exits import Exit
from replicator.cli.options import AddressOption, BackendOption, NameArgument, StackOption
from replicator.cli.output import say
from replicator.cli.streams import one_stream
from replicator.cli.where import Where

if TYPE_CHECKING:
    from replicator.replicator import LogLines, Replicator

MOST_LINES = 1000
"""`LOG_LINES` of the protocol, whose import takes too long for `--help`."""

_POLL_SECONDS = 1.0


def logs(
    name: NameArgument,
    lines: Annotated[int, typer.Option("--lines", help="How many of the last lines.", min=0, max=MOST_LINES)] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new lines until ^C.")] = False,
    backend: BackendOption = None,
    address: AddressOption = None,
    stack: StackOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print lines as they are in the log.")] = False,
) -> None:
    """Show what the engine logged about a stream.

    Secrets are not shown, and neither are lines about other streams. A litestream process may replicate several
    databases; its lines that name none of them belong to each stream. Of Kafka Connect, only the errors of failed
    connectors and tasks can be shown: its own log is on the worker's host.
    """
    with one_stream(Where(backend, address, stack), name) as one:
        try:
            one.run(_print(one.client, one.name, lines, follow, _Show(as_json)))
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None


async def _print(client: Replicator, name: str, lines: int, follow: bool, show: _Show) -> None:
    import asyncio

    found = await client.log(name, lines=lines)
    show.part(found)
    while follow:
        await asyncio.sleep(_POLL_SECONDS)
        found = await _next(client, name, found, show)
        show.part(found)


async def _next(client: Replicator, name: str, found: LogLines, show: _Show) -> LogLines:
    """Return the lines after those that were found. Wait for an agent or a worker that does not answer."""
    import asyncio

    from replicator.errors import AgentUnreachable, EngineUnavailable, HostUnreachable

    while True:
        try:
            return await client.log(name, after=found.cursor, lines=MOST_LINES)
        except (AgentUnreachable, EngineUnavailable) as error:
            if type(error) not in (AgentUnreachable, HostUnreachable, EngineUnavailable):
                raise  # such as a refused login, which waiting does not change
            show.tell(f"waiting: {error.message}")
        await asyncio.sleep(_POLL_SECONDS)


class _Show:
    """Prints lines on stdout, and what else is told on stderr.

    :param raw: print lines as they are in the log.
    """

    def __init__(self, raw: bool) -> None:
        self._raw = raw
        self._told: str | None = None

    def part(self, found: LogLines) -> None:
        """Print a part of the log."""
        if found.gap is not None:
            self.tell(found.gap)
        for line in found.lines:
            say(line if self._raw else readable(line))
        self.tell(found.note)

    def tell(self, text: str | None) -> None:
        """Print a text on stderr, once until there is another one or none."""
        if text is not None and text != self._told:
            print(text, file=sys.stderr, flush=True)
        self._told = text


class _Object(list[tuple[str, object]]):
    """A JSON object as pairs: a line of litestream may have a key twice."""


def readable(line: str) -> str:
    """Return a line for people: a JSON object as `TIME LEVEL message key=value …`, and no control characters."""
    import json

    try:
        pairs = json.loads(line, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        pairs = None
    if not isinstance(pairs, _Object):
        return _printable(line)
    head = []
    for key in ("time", "level", "msg"):
        at = next((at for at, (name, _) in enumerate(pairs) if name == key), None)
        if at is not None:
            head.append(_printable(str(pairs.pop(at)[1])))
    return " ".join([*head, *_fields(pairs)])


def _fields(pairs: _Object, prefix: str = "") -> list[str]:
    found = []
    for key, value in pairs:
        name = _printable(f"{prefix}{key}")
        found += _fields(value, f"{name}.") if isinstance(value, _Object) else [f"{name}={_value(value)}"]
    return found


def _value(value: object) -> str:
    import json

    plain = isinstance(value, str) and value and value.isprintable() and not set(value) & set(' "=')
    return str(value) if plain else _printable(json.dumps(value, ensure_ascii=False))


def _printable(text: str) -> str:
    """Return a text with control characters escaped: the engine's text must not command the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
