"""`replicator agent adopt`: take over the databases of a litestream that people run themselves."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replicator.cli.agent import SocketOption
from replicator.cli.clients import agent_client, session
from replicator.cli.exits import Exit
from replicator.cli.options import JsonOption, YesOption, ask, need_terminal
from replicator.cli.output import say, say_json, showing

if TYPE_CHECKING:
    import asyncio

    from replicator.agent.policy_file import PolicyFile
    from replicator.backends.sqlite.litestream_import import Takeover, Wanted
    from replicator.model import Stream
    from replicator.remote.client import RemoteReplicator
    from replicator.replicator import Adoption

WATCH = 3.0
"""Seconds between two listings of a prefix: a busy daemon uploads each second, wherever it runs."""


def adopt(
    config: Annotated[Path, typer.Argument(help="Its litestream.yml.", metavar="CONFIG")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    yes: YesOption = False,
    auth_ref: Annotated[
        str | None,
        typer.Option(
            "--auth-ref",
            help="The key pair for every bucket, as the agent finds it: env://SHOP_*, file:///path or dir:///path.",
            metavar="REF",
            show_default="the ${NAME} in the file, else the host's own role",
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="The region of the databases, as in the provider's regions.", metavar="WORD")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="A setting that you can do without; may be given again.", metavar="KEY"),
    ] = None,
    socket: SocketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take over the databases of a litestream that you run yourself.

    It shows a plan and asks. Then the agent replicates each database to the prefix that it has, with its history, as a
    stream that no resource manages. `replicator import` takes it into Pulumi. What cannot be carried over is refused
    and named, before anything is done.

    Run it on the agent's host, with the variables that litestream had, after you have stopped litestream. It is refused
    while it sees one run: by locks and processes of this host, the control socket, or new files in the prefix.
    An idle one on another host, or in a container that this host does not show, it cannot see.

    Where the agent has a policy, it adds the lines for what it takes over, and shows them first.
    """
    from replicator.remote.address import default_socket

    if not dry_run and not yes:
        need_terminal()
    address = f"unix://{(socket or default_socket()).absolute()}"
    with session(agent_client(address)) as (runner, client):
        work = _Work(runner, client, config.absolute())
        work.read(auth_ref, region, without or [])
        if work.lacking and dry_run:
            work.show_lacking(as_json=as_json)
            return
        if work.lacking and not yes:
            work.show_lacking(as_json=False)
            ask("Add them?")
        with work.granted():
            _carry_out(work, dry_run=dry_run, yes=yes, as_json=as_json)


def _carry_out(work: _Work, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    from replicator.backends.sqlite.lock_owners import still_running

    work.look()
    for key in work.found.needless:
        text = f"--without {key} changes nothing: no setting of {work.config} is refused under that name"
        print(f"warning: {text}", file=sys.stderr)
    running = work.running()
    if not as_json:
        work.show(running)
    if not dry_run and work.new:
        if running:
            raise still_running(running)
        if not yes:
            ask("Do it?")
        work.take_over(quiet=as_json)
    if as_json:
        say_json(work.plain(running))


class _Work:
    """The adoption of one file's databases by one agent."""

    def __init__(self, runner: asyncio.Runner, client: RemoteReplicator, config: Path) -> None:
        self._runner = runner
        self._client = client
        self.config = config
        self._looked = 0.0
        self._ours = Path("/nonexistent")
        self._policy: PolicyFile | None = None
        self._begun = False
        self.found: Takeover
        self.plan: Mapping[str, Adoption] = {}
        self.lacking: list[str] = []

    @property
    def new(self) -> list[Stream]:
        """Return the streams that the agent does not have yet."""
        return [stream for stream in self.found.streams if not self.plan[stream.name].known]

    def read(self, auth_ref: str | None, region: str | None, without: list[str]) -> None:
        """Read the file, and find out what the agent's policy, if it has one, lacks for it."""
        from replicator.backends.sqlite import litestream_import
        from replicator.backends.sqlite.grants import lines_for

        self.found = litestream_import.read(self.config, self._wanted(auth_ref, region, without))
        if self._policy is not None and (policy := self._policy.current()) is not None:
            self.lacking = lines_for(policy, self.found.streams)

    @contextmanager
    def granted(self) -> Iterator[None]:
        """Make the policy grant what is taken over; restore it if nothing was."""
        before = self._policy.add(self.lacking) if self._policy is not None and self.lacking else None
        try:
            yield
        except BaseException:
            if self._policy is not None and before is not None and not self._begun:
                self._policy.put_back(before)
            raise

    def look(self) -> None:
        """Ask the agent what it would take over; print every error, and exit if there is one."""
        self.plan = self._look(self.found.streams)

    def _wanted(self, auth_ref: str | None, region: str | None, without: list[str]) -> Wanted:
        import os

        from replicator.agent.policy_file import PolicyFile
        from replicator.backends.sqlite.litestream_import import Wanted
        from replicator.backends.sqlite.locations import source_path
        from replicator.cli.options import parse_duration

        info = self._runner.run(self._client.info()).model_extra or {}
        streams = self._runner.run(self._client.list_streams())
        if info.get("state"):
            self._ours = Path(info["state"])
        if info.get("policy"):
            self._policy = PolicyFile(Path(info["policy"]))
        return Wanted(
            environ=os.environ,
            auth_ref=auth_ref,
            region=region,
            without=without,
            replay_window=parse_duration(info.get("replayWindow", "1h")),
            names={source_path(stream): stream.name for stream in streams},
        )

    def _look(self, streams: tuple[Stream, ...]) -> dict[str, Adoption]:
        from replicator.errors import ReplicatorError

        self._looked = time.monotonic()
        found, failed = {}, False
        for stream in streams:
            try:
                found[stream.name] = self._runner.run(self._client.adopt_stream(stream, dry_run=True))
            except ReplicatorError as error:
                failed = True
                print(f"error: {error}", file=sys.stderr)
        if failed:
            raise typer.Exit(Exit.FAILED)
        return found

    def running(self) -> list[str]:
        """Return all signs of a litestream that still replicates one of the databases."""
        from replicator.backends.sqlite.locations import source_path
        from replicator.backends.sqlite.lock_owners import daemons, holders
        from replicator.cli.clients import listens

        paths = [source_path(stream) for stream in self.new]
        signs = [*holders(paths, but=self._ours), *daemons(self.config, paths, but=self._ours)] if paths else []
        if paths and self.found.socket is not None and listens(str(self.found.socket)):
            signs.append(f"its control socket {self.found.socket} answers")
        return signs

    def take_over(self, *, quiet: bool) -> None:
        """Take over one database after the other; after an error, the same command resumes."""
        from replicator.errors import DestinationInUse

        time.sleep(max(0.0, self._looked + WATCH - time.monotonic()))
        new, before = self.new, self.plan
        for name, now in self._look(tuple(new)).items():
            if now.newest != before[name].newest:
                raise DestinationInUse(
                    "somebody has written to its prefix since the plan was made",
                    stream=name,
                    property="destination.uri",
                    fix="find the litestream that still runs, perhaps on another host or in a container, and stop it",
                )
        self._begun = True
        for stream in new:
            with nullcontext() if quiet else showing(f"taking over {stream.name}"):
                self._runner.run(self._client.adopt_stream(stream))
            if not quiet:
                say(f"took over {stream.name}")
        if not quiet:
            say("  → systemctl disable litestream   # it must not start again at the next boot")
            say("  → replicator import              # writes the program that manages the streams")

    def show_lacking(self, *, as_json: bool) -> None:
        """Print what the policy lacks. Until it has that, the agent reads none of the databases."""
        assert self._policy is not None
        if as_json:
            streams = [{"stream": stream.model_dump(mode="json")} for stream in self.found.streams]
            say_json({"streams": streams, "policy": {"path": str(self._policy.path), "lines": self.lacking}})
            return
        say(f"The agent's policy {self._policy.path} needs these lines:\n")
        say("\n\n".join(self.lacking) + "\n")

    def show(self, running: list[str]) -> None:
        """Print the plan."""
        from replicator.model import format_duration

        for stream in self.found.streams:
            destination, interval = stream.destination, stream.checkpoint_interval
            say(f"{stream.name}: {stream.source.uri} → {destination.uri}")
            if self.plan[stream.name].known:
                say("  the agent replicates it already")
                continue
            say(f"  {_there(self.plan[stream.name])}")
            if destination.uri.startswith("s3:"):
                role = "the host's own role, since the file has no keys; --auth-ref names others"
                say(f"  as {destination.auth_ref or role}")
            if interval is not None:
                say(f"  uploads each {format_duration(interval)}, by a litestream process of its own")
            if stream.options:
                say(f"  with {', '.join(f'{key}: {value}' for key, value in stream.options.items())}")
        if self.found.own:
            say(f"The agent has its own: {', '.join(self.found.own)}.")
        if self.new:
            say("Each database is uploaded whole once, beside the history that is there.")
        for sign in running:
            say(f"litestream still runs: {sign}")

    def plain(self, running: list[str]) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        streams = [
            {"stream": stream.model_dump(mode="json"), **self.plan[stream.name].model_dump(mode="json")}
            for stream in self.found.streams
        ]
        found = self.found
        return {"streams": streams, "own": list(found.own), "needless": list(found.needless), "running": running}


def _there(adoption: Adoption) -> str:
    from replicator.model import format_time

    newest = adoption.newest
    if not adoption.objects or newest is None:
        return "nothing is there yet"
    when = f" of {format_time(newest.wall)}" if newest.wall else ""
    return f"{adoption.objects} objects are there, the newest transaction {newest.lsn}{when}"
