"""`replicator replay`: show the plan, ask, run the replay, and wait for its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli.exits import Exit
from replicator.cli.options import (
    AddressOption,
    BackendOption,
    NameArgument,
    PlanOption,
    StackOption,
    YesOption,
    ask,
    need_terminal,
    parse_start,
)
from replicator.cli.output import point, say, sentence, showing, words
from replicator.cli.streams import One, one_stream
from replicator.cli.where import Where

if TYPE_CHECKING:
    from replicator.model import Checkpoint
    from replicator.replicator import ReplayMethod, ReplayPlan, ReplayProgress, Replicator


def _parse_method(value: str) -> str:
    from replicator.replicator import ReplayMethod

    if value not in list(ReplayMethod):
        raise typer.BadParameter(f"{value!r} is not a method; there are {', '.join(ReplayMethod)}")
    return value


def replay(
    name: NameArgument,
    lsn: Annotated[
        str | None, typer.Option(help="Start at this position, as status shows it.", metavar="POSITION")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Or at this time, such as 2026-01-31T12:00:00Z.", metavar="TIME")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="For a copy: a new file on the agent's host.", metavar="PATH")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="How: copy, reseed, log_rewind, sink_rewind or resnapshot, as the backend can; "
            "auto takes the least harmful way that is exact.",
            parser=_parse_method,
            metavar="METHOD",
        ),
    ] = "auto",
    key: Annotated[
        str | None,
        typer.Option(
            help="The idempotency key: what ran under it is never run again.",
            metavar="KEY",
            show_default="made from the arguments",
        ),
    ] = None,
    plan: PlanOption = False,
    yes: YesOption = False,
    backend: BackendOption = None,
    address: AddressOption = None,
    stack: StackOption = None,
) -> None:
    """Replay a stream from a position or a time.

    It says what would happen, asks, does it, and waits for the end. The same command again joins the replay that runs,
    or shows how it ended. The exit code is 1 where it failed.
    """
    from replicator.replicator import ReplayMethod, ReplayState

    start, where = _start(lsn, time), Where(backend, address, stack, changes=not plan)
    if not plan and not yes:
        need_terminal()
    with one_stream(where, name) as one:
        client = one.client
        request = _Request(one.name, start, ReplayMethod(method), _on_its_host(target, one, where), key)
        known = None if plan else one.run(_find(client, request))
        if known is None:
            _show_plan(one.run(_plan(client, request)))
            if plan:
                return
            say(f"Its key is {request.key}.")
            if not yes:
                ask("Do it?")
        elif known.state is ReplayState.RUNNING:
            say(f"Joining the replay {request.key}, which began {_when(known)}.")
        else:
            say(f"The replay {request.key} ran already; it began {_when(known)}. Another --key runs it anew.")
        try:
            ended = one.run(_run(client, request))
        except KeyboardInterrupt:
            say("\nIf the replay had begun, the same command again joins it and sees its end.")
            raise typer.Exit(Exit.INTERRUPTED) from None
    say(f"{words(ended.state)}: {ended.error or ended.message or f'{words(ended.method)} of {ended.stream}'}")
    if ended.state is not ReplayState.DONE:
        raise typer.Exit(Exit.FAILED)


def _on_its_host(target: str | None, one: One, where: Where) -> str | None:
    """Return the absolute target: a path may be relative only on this host."""
    from replicator.backends import REGISTRY
    from replicator.remote.address import UnixAddress, parse_address

    if target is None or "://" in target or Path(target).is_absolute() or not REGISTRY[one.id.backend].via_agent:
        return target
    if isinstance(parse_address(where.address_of(one.id)), UnixAddress):
        return str(Path(target).absolute())
    raise typer.BadParameter("write an absolute path; it is on the agent's host", param_hint="--target")


class _Request:
    """The request of one command."""

    def __init__(self, name: str, start: Checkpoint, method: ReplayMethod, target: str | None, key: str | None) -> None:
        self.name = name
        self.start = start
        self.method = method
        self.target = target
        self.key = key or self._make_key()

    def _make_key(self) -> str:
        import hashlib
        import json

        parts = [self.name, self.start.wire(), self.method, self.target]
        return f"cli-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


def _start(lsn: str | None, time: str | None) -> Checkpoint:
    start = parse_start(lsn, time)
    if start is None:
        raise typer.BadParameter("say where to start, by one of them", param_hint="--lsn / --time")
    return start


async def _find(client: Replicator, request: _Request) -> ReplayProgress | None:
    from replicator.errors import ReplayNotFound

    try:
        return await client.get_replay(request.name, request.key)
    except ReplayNotFound:
        return None


async def _plan(client: Replicator, request: _Request) -> ReplayPlan:
    return await client.plan_replay(request.name, request.start, method=request.method, target=request.target)


async def _run(client: Replicator, request: _Request) -> ReplayProgress:
    """Start the replay, or join it, and wait for its end."""
    from replicator.lifecycle.wait import Limits, wait_for_replay

    with showing("replaying"):
        begun = await client.replay(
            request.name, request.start, key=request.key, method=request.method, target=request.target
        )
        return await wait_for_replay(client, begun, Limits())


def _when(replay: ReplayProgress) -> str:
    from replicator.model import format_time

    return format_time(replay.started_at)


def _show_plan(plan: ReplayPlan) -> None:
    for line in _sentences(plan):
        say(line)


def _sentences(plan: ReplayPlan) -> Iterator[str]:
    from replicator.model import format_size

    yield f"Replay of {plan.stream} by {words(plan.method)}, from {point(plan.resolved)}."
    if plan.start.lsn != plan.resolved.lsn and plan.start.wall != plan.resolved.wall:
        yield f"That is where it can start for {point(plan.start)}, which was asked for."
    if plan.earliest is not None and plan.latest is not None:
        yield f"Retained is what lies between {point(plan.earliest)} and {point(plan.latest)}."
    if plan.events is not None:
        yield f"It emits {plan.events} events."
    if plan.bytes is not None:
        yield f"It reads {format_size(plan.bytes)}."
    if plan.duplicates:
        yield "The destination gets again what it holds already."
    yield from map(sentence, plan.effects)
