"""`replicator restore`: write a database from a litestream destination to a new file on this host."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli.exits import Exit
from replicator.cli.options import (
    DEFAULT_BACKEND,
    AddressOption,
    PlanOption,
    StackOption,
    YesOption,
    ask,
    need_terminal,
    parse_start,
)
from replicator.cli.output import point, say, showing
from replicator.cli.streams import described, one_stream
from replicator.cli.where import Where

if TYPE_CHECKING:
    from types import FrameType

    from replicator.backends.sqlite.restore import Plan, Replica, Restore
    from replicator.model import Checkpoint


def restore(
    replica: Annotated[
        str,
        typer.Argument(
            help="The destination.uri of a stream, such as s3://bucket/prefix?region=eu-central-1 or file:///folder. "
            "Or a stream of an agent, by its id, its name, or the name of its resource.",
            metavar="URL|NAME",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="A new file on this host.", metavar="PATH")],
    time: Annotated[
        str | None,
        typer.Option(help="As of this time, such as 2026-01-31T12:00:00Z.", metavar="TIME", show_default="the newest"),
    ] = None,
    lsn: Annotated[
        str | None, typer.Option(help="Or as of this position, as status shows it.", metavar="POSITION")
    ] = None,
    auth_ref: Annotated[
        str | None,
        typer.Option(
            "--auth-ref",
            help="The key pair for the bucket, as this command finds it: env://SHOP_*, file:///path or dir:///path.",
            metavar="REF",
            show_default="the authRef of the stream NAME, else this host's own role",
        ),
    ] = None,
    plan: PlanOption = False,
    yes: YesOption = False,
    address: AddressOption = None,
    stack: StackOption = None,
) -> None:
    """Restore a SQLite database from a litestream destination to a new file on this host.

    A URL needs no agent, so it works where the database's host is lost. It says what would be restored, asks, writes
    the file, and runs SQLite's integrity check on it. It only reads the destination, also while an agent writes there,
    and writes over no file. Where it fails or is interrupted, no file is left. The exit code is 1 where it failed, and
    where the check found faults.
    """
    import asyncio

    start = parse_start(lsn, time)
    if not plan and not yes:
        need_terminal()
    try:
        with asyncio.Runner() as runner, _ended_by_signals():
            origin = _origin(replica, auth_ref, address, stack)
            work, found = runner.run(_plan(origin, to.absolute(), start))
            _show(replica, found, start)
            if plan:
                return
            if not yes:
                ask("Do it?")
            faults = runner.run(_run(work, found))
    except KeyboardInterrupt:
        say("\nNothing was written.")
        raise typer.Exit(Exit.INTERRUPTED) from None
    say(f"done: the database as of {point(found.point)} is at {found.target}")
    say(f"integrity check: {'; '.join(faults) or 'ok'}")
    if faults:
        raise typer.Exit(Exit.FAILED)


def _origin(replica: str, auth_ref: str | None, address: str | None, stack: str | None) -> Replica:
    from replicator.backends.sqlite.restore import Replica

    return Replica(replica, auth_ref) if "://" in replica else _declared(replica, auth_ref, address, stack)


async def _plan(origin: Replica, target: Path, start: Checkpoint | None) -> tuple[Restore, Plan]:
    import os

    from replicator.backends.sqlite.restore import Restore

    with showing("reading what is there"):
        work = Restore(origin, target, os.environ)
        return work, await work.plan(start)


async def _run(work: Restore, plan: Plan) -> list[str]:
    with showing("restoring"):
        return await work.run(plan)


def _declared(name: str, auth_ref: str | None, address: str | None, stack: str | None) -> Replica:
    """Return the replica of a stream that an agent has."""
    from replicator.backends.sqlite.restore import Replica
    from replicator.errors import AgentUnreachable, ReplayRefused
    from replicator.remote.address import SshAddress, parse_address

    where = Where(DEFAULT_BACKEND, address, stack)
    try:
        with one_stream(where, name) as one:
            found = one.run(described(one.client, one.name))
    except AgentUnreachable as error:
        fix = f"{error.fix}; or give the stream's destination.uri, which needs no agent: replicator restore s3://…"
        raise type(error)(error.message, fix=fix) from error
    destination = found.stream.destination
    elsewhere = isinstance(parse_address(where.address_of(one.id)), SshAddress)
    if elsewhere and destination.uri.startswith("file:"):
        raise ReplayRefused(
            f"{destination.uri} is a folder of the agent's host",
            stream=name,
            property="destination.uri",
            fix="run the command there; or give the URL of the folder, if it is on this host too",
        )
    return Replica(destination.uri, auth_ref or destination.auth_ref, name)


def _show(replica: str, plan: Plan, start: Checkpoint | None) -> None:
    from replicator.model import format_size

    say(f"Restore of {replica}, as of {point(plan.point)}.")
    if start is not None and start.lsn != plan.point.lsn and start.wall != plan.point.wall:
        say(f"That is the last transaction before {point(start)}, which was asked for.")
    say(f"Restorable is what lies between {point(plan.earliest)} and {point(plan.latest)}.")
    if plan.cut_off is not None:
        say(f"Transactions up to {plan.cut_off} are there, but some before them are missing, so they are out of reach.")
    say(f"It reads {format_size(plan.size)}, and writes the database to {plan.target} on this host.")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Treat SIGTERM, and SIGHUP of a lost terminal, like ^C, so that nothing is left."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background of a script
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    before = [signal.signal(each, interrupt) for each in numbers]
    try:
        yield
    finally:
        for each, handler in zip(numbers, before, strict=True):
            signal.signal(each, handler)
