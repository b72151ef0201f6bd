"""`replicator agent`: the daemon beside the databases, in the foreground or in the background."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replicator.agent.log import Level
from replicator.cli.clients import agent_client, connected, find_agent
from replicator.cli.exits import Exit
from replicator.cli.options import JsonOption, parse_duration
from replicator.cli.output import UNKNOWN, counted, rough, say, say_json, words
from replicator.errors import AgentUnreachable

if TYPE_CHECKING:
    from replicator.agent.run import AgentSettings
    from replicator.agent.state import StateFolder
    from replicator.remote.client import RemoteReplicator
    from replicator.remote.routes import Info

agent = typer.Typer(
    name="agent",
    help="Run, start, stop and see the agent.\n\nIt runs beside SQLite databases, supervises litestream, and does what "
    "Pulumi asks for.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        help="The Unix socket of the agent.",
        metavar="PATH",
        show_default="/run/replicator/agent.sock for root, else below $XDG_RUNTIME_DIR or ~/.replicator",
    ),
]
_STATE_DEFAULT = "/var/lib/replicator for root, else below $XDG_STATE_HOME or ~/.local/state"
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="The folder for its records and logs; each agent has its own.",
        metavar="DIR",
        show_default=_STATE_DEFAULT,
    ),
]
LookOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Its state folder, which tells of an agent whose socket was removed.",
        metavar="DIR",
        show_default=_STATE_DEFAULT,
    ),
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        "--socket-group",
        help="A group whose members may use the socket too. They may then do everything that the agent can.",
        metavar="NAME",
        show_default="only the agent's own user",
    ),
]
WindowOption = Annotated[
    timedelta,
    typer.Option(
        "--replay-window",
        help="How long each single transaction stays restorable. Each upload stays as an object that long.",
        parser=parse_duration,
        metavar="DURATION",
        show_default="1h",
    ),
]
LevelOption = Annotated[Level, typer.Option("--log-level", help="How much it says in its log.")]
PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        help="The file that says what the agent grants.",
        metavar="PATH",
        show_default="/etc/replicator/agent.toml for root, else below $XDG_CONFIG_HOME or ~/.config",
    ),
]
MultiplexOption = Annotated[
    bool,
    typer.Option(
        "--multiplex",
        help="Carry many connections, in frames, until stdin ends. An address ssh://… asks for it.",
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        help="Log to this file, which is kept below 10 MB, with two older ones beside it.",
        metavar="PATH",
        show_default="stderr",
    ),
]

_HOUR = timedelta(hours=1)


def _settings(
    socket: Path | None,
    state: Path | None,
    group: str | None,
    window: timedelta,
    level: Level,
    policy: Path | None,
    log_file: Path | None = None,
) -> AgentSettings:
    from replicator.agent.run import AgentSettings
    from replicator.agent.state import default_state
    from replicator.remote.address import default_socket

    return AgentSettings(
        socket=(socket or default_socket()).absolute(),
        state=(state or default_state()).absolute(),
        socket_group=group,
        replay_window=window,
        log_level=level,
        log_file=log_file,
        policy=policy.absolute() if policy else None,
    )


def _address(socket: Path | None) -> str:
    from replicator.remote.address import default_socket

    return f"unix://{(socket or default_socket()).absolute()}"


@agent.command("run")
def run_agent(
    socket: SocketOption = None,
    state: StateOption = None,
    socket_group: GroupOption = None,
    replay_window: WindowOption = _HOUR,
    log_level: LevelOption = Level.INFO,
    policy: PolicyOption = None,
    log_file: FileOption = None,
) -> None:
    """Run an agent in the foreground until SIGTERM or ^C. This is what a service manager starts."""
    import asyncio

    from replicator.agent.run import run

    settings = _settings(socket, state, socket_group, replay_window, log_level, policy, log_file)
    asyncio.run(run(settings, ready=lambda: say(f"listening on unix://{settings.socket}")))


@agent.command("start")
def start_agent(
    socket: SocketOption = None,
    state: StateOption = None,
    socket_group: GroupOption = None,
    replay_window: WindowOption = _HOUR,
    log_level: LevelOption = Level.INFO,
    policy: PolicyOption = None,
) -> None:
    """Start an agent in the background. Where one runs already, nothing happens."""
    import asyncio

    from replicator.cli.daemonize import start

    settings = _settings(socket, state, socket_group, replay_window, log_level, policy)

    async def body() -> None:
        async with aclosing(agent_client(_address(socket))) as client:
            if (found := await find_agent(client)) is not None:
                say(f"an agent runs already at {client.address} (process {found.pid}, version {found.version})")
                return
            pid = await start(settings, client)
            say(f"an agent runs at {client.address} (process {pid}); its log is {settings.state / 'agent.log'}")
            _warn_without_policy(settings)

    asyncio.run(body())


def _warn_without_policy(settings: AgentSettings) -> None:
    import sys

    from replicator.agent.policy_file import PolicyFile, default_policy
    from replicator.backends.sqlite.grants import missing

    policies = PolicyFile(settings.policy or default_policy())
    if policies.current() is None:
        print(f"warning: {missing(policies.path)}", file=sys.stderr)


@agent.command("stop")
def stop_agent(socket: SocketOption = None, state: LookOption = None) -> None:
    """Stop the agent, after it has uploaded what is left. Replication stands still until the next start."""
    import asyncio

    from replicator.cli.daemonize import stop, stop_holder

    async def body() -> None:
        async with aclosing(agent_client(_address(socket))) as client:
            found = await find_agent(client)
            if found is not None:
                pid = found.pid
                await stop(found, client.address)
            elif (deaf := _deaf_agent(socket, state)) is not None:
                pid = deaf
                await stop_holder(pid, _state_folder(state))
            else:
                say(f"no agent runs at {client.address}")
                return
            say(f"stopped the agent at {client.address} (process {pid})")

    asyncio.run(body())


@agent.command("status")
def agent_status(socket: SocketOption = None, state: LookOption = None, as_json: JsonOption = False) -> None:
    """Show the agent and how many streams are in which state. The exit code is 0 where it runs, and 3 where not."""
    import asyncio

    async def body() -> dict[str, Any] | None:
        async with aclosing(agent_client(_address(socket))) as client:
            found = await find_agent(client)
            if found is None and (pid := _deaf_agent(socket, state)) is not None:
                raise AgentUnreachable(
                    f"the agent, process {pid}, runs, and nothing listens at {client.address}: its socket was removed",
                    fix="try again in some seconds, when it listens again; if it stays so, read its log, and do "
                    "`replicator agent stop` and `replicator agent start` with the same options",
                )
            return None if found is None else await _describe(client, found)

    address, seen = _address(socket), asyncio.run(body())
    if as_json:
        say_json({"running": seen is not None, "address": address, **(seen or {})})
    elif seen is None:
        from replicator.lifecycle.connections import start_hint

        say(f"no agent runs at {address}")
        say(f"  → {start_hint('litestream', address)}")
    else:
        _show(address, seen)
    if seen is None:
        raise typer.Exit(Exit.NO_AGENT)


@agent.command("dial-stdio")
def dial_stdio(socket: SocketOption = None, multiplex: MultiplexOption = False) -> None:
    """Connect stdin and stdout to the agent's socket. This is what ssh runs.

    It ends when stdin ends and when the agent closes. It may do what its user may do, and nothing else.
    """
    from replicator.cli.dial import run

    raise typer.Exit(run(socket, multiplex=multiplex))


def _state_folder(state: Path | None) -> StateFolder:
    from replicator.agent.state import StateFolder, default_state

    return StateFolder((state or default_state()).absolute())


def _deaf_agent(socket: Path | None, state: Path | None) -> int | None:
    """Return the process of an agent that should listen on a socket but does not answer."""
    from replicator.remote.address import default_socket

    return _state_folder(state).holder_at((socket or default_socket()).absolute())


async def _describe(client: RemoteReplicator, info: Info) -> dict[str, Any]:
    from datetime import UTC, datetime

    from replicator.model import format_time

    extra = info.model_extra or {}
    return {
        "pid": info.pid,
        "version": info.version,
        "startedAt": format_time(info.started_at),
        "uptimeSeconds": int((datetime.now(UTC) - info.started_at).total_seconds()),
        "state": extra.get("state"),
        "replayWindow": extra.get("replayWindow"),
        "ready": extra.get("ready"),
        "kinds": info.kinds,
        "streams": {kind: await _count(kind, client.address) for kind in info.kinds} if extra.get("ready") else None,
    }


async def _count(kind: str, address: str) -> dict[str, int]:
    from collections import Counter

    async with connected(kind, address) as client:
        return dict(Counter(item.status.state.value for item in await client.describe()))


def _show(address: str, seen: dict[str, Any]) -> None:
    say(f"an agent runs at {address}")
    rows = {
        "process": seen["pid"],
        "version": seen["version"],
        "running for": rough(timedelta(seconds=seen["uptimeSeconds"])),
        "state folder": seen["state"] or UNKNOWN,
        "replay window": seen["replayWindow"] or UNKNOWN,
    }
    for kind in seen["kinds"]:
        rows[kind] = _streams(seen["streams"][kind]) if seen["streams"] is not None else "taking up its streams"
    for name, value in rows.items():
        say(f"  {name:14} {value}")


def _streams(states: dict[str, int]) -> str:
    total = sum(states.values())
    parts = ", ".join(f"{count} {words(state)}" for state, count in sorted(states.items()))
    return f"{counted(total, 'stream')}{f': {parts}' if parts else ''}"
