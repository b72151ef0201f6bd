"""Checks whether an agent answers, and whether only the agent can use its files."""

from __future__ import annotations

import stat
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from replicator import __version__
from replicator.backends import stream_id
from replicator.cli.clients import agent_client, find_agent
from replicator.cli.doctor.look import WHEEL, Look
from replicator.cli.output import counted
from replicator.cli.where import Where
from replicator.errors import ReplicatorError
from replicator.model import StreamState
from replicator.remote.address import is_default

if TYPE_CHECKING:
    from replicator.remote.client import RemoteReplicator
    from replicator.remote.routes import Info

_OTHERS = 0o007
_ANYBODY_ELSE = 0o077


async def look_at_agent(address: str | None, state: Path | None) -> list[Look]:
    """Check the agent at an address, its socket, and its state folder."""
    from replicator.agent.state import default_state

    folder = state or default_state()
    async with aclosing(agent_client(address)) as client:
        try:
            found = await find_agent(client)
        except ReplicatorError as error:
            return [_of(error), *_look_at_folder(folder)]
        if found is None:
            return [await _look_at_nothing(client, folder), *_look_at_folder(folder)]
        if state is None and (own := (found.model_extra or {}).get("state")):
            folder = Path(own)
        return [
            _look_at_version(client.address, found),
            *_look_at_socket(client.address),
            *_look_at_folder(folder),
            *_look_at_policy(client.address, found),
            await _look_at_streams(client),
        ]


def _of(error: ReplicatorError) -> Look:
    return Look("agent", f"{error.message} [{error.code}]", error.fix or "replicator agent status")


async def _look_at_nothing(client: RemoteReplicator, folder: Path) -> Look:
    """Report that nothing listens: no agent runs, or one listens elsewhere."""
    from replicator.agent.state import StateFolder

    held, socket = StateFolder(folder), Path(client.address.removeprefix("unix://"))
    try:
        pid = held.holder()
        deaf = held.holder_at(socket) is not None
    except ReplicatorError as error:
        return _of(error)
    if pid is not None and deaf:
        text = f"nothing listens at {client.address}: the socket of the agent of {folder}, process {pid}, was removed"
        at = f"{_socket(client.address)} --state {folder}"
        return Look("agent", text, f"replicator agent stop{at} && replicator agent start{at}")
    if pid is not None:
        text = f"nothing listens at {client.address}; the agent of {folder}, process {pid}, has its socket elsewhere"
        return Look("agent", text, f"tr '\\0' ' ' </proc/{pid}/cmdline   # shows its --socket, which is its address")
    try:
        await client.info()
    except ReplicatorError as error:
        return _of(error)
    return Look("agent", f"an agent started at {client.address} just now")


def _look_at_version(address: str, found: Info) -> Look:
    text = f"version {found.version} at {address}, process {found.pid}"
    if found.version == __version__:
        return Look("agent", text)
    at = _socket(address)
    return Look(
        "agent",
        f"{text}, but this command is version {__version__}",
        f"pip install {WHEEL}   # where the agent runs; docs/installation.md says where the wheel is from\n"
        f"replicator agent stop{at} && replicator agent start{at}   # or: systemctl restart replicator-agent",
    )


def _look_at_socket(address: str) -> list[Look]:
    """Check the socket: every user with write access to it may do everything that the agent can."""
    path = Path(address.removeprefix("unix://"))
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return []
    if mode & _OTHERS:
        text = f"{path} has mode {mode:04o}: every user of this host may do everything that the agent can"
        return [Look("socket", text, f"chmod o-rwx {path}")]
    return [Look("socket", f"{path} has mode {mode:04o}")]


def _look_at_folder(folder: Path) -> list[Look]:
    """Check the state folder, which holds the records of all streams and litestream's sockets."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return []
    except OSError as error:
        return [Look("state", f"{folder} cannot be looked at: {error.strerror}", "run as the agent's user, or as root")]
    mode = stat.S_IMODE(found.st_mode)
    if mode & _ANYBODY_ELSE:
        text = f"{folder} has mode {mode:04o}: other users may enter it"
        return [Look("state", text, f"chmod 700 {folder}")]
    return [Look("state", f"{folder} has mode {mode:04o}")]


def _look_at_policy(address: str, found: Info) -> list[Look]:
    """Check the agent's policy. That of another host's agent cannot be read here."""
    from replicator.agent.policy_file import PolicyFile
    from replicator.backends.sqlite.grants import missing

    path = (found.model_extra or {}).get("policy")
    if path is None or not address.startswith("unix:"):
        return []
    try:
        granted = PolicyFile(Path(path)).current()
    except ReplicatorError as error:
        return [Look("policy", f"{error.message} [{error.code}]", error.fix)]
    if granted is None:
        none = missing(Path(path))
        return [Look("policy", f"{none.message} [{none.code}]", none.fix, warning=True)]
    numbers = {
        "source": len(granted.source),
        "destination": len(granted.destination),
        "replay folder": len(granted.replay),
    }
    return [Look("policy", f"{path} grants {', '.join(counted(number, noun) for noun, number in numbers.items())}")]


async def _look_at_streams(client: RemoteReplicator) -> Look:
    try:
        found = await client.describe()
    except ReplicatorError as error:
        return Look("streams", f"{error.message} [{error.code}]", error.fix or "replicator status")
    failed = {item.name: item for item in found if item.status.state is StreamState.FAILED}
    if not failed:
        return Look("streams", f"{counted(len(found), 'stream')}, and none has failed")
    here = Where(None, None if is_default(client.address) else client.address)
    first = min(failed)
    stream = failed[first].declaration
    fix = here.hint(f"replicator status {stream_id(stream) if stream else first}")
    return Look("streams", f"{len(failed)} of {len(found)} failed: {', '.join(sorted(failed))}", fix)


def _socket(address: str) -> str:
    return "" if is_default(address) else f" --socket {address.removeprefix('unix://')}"
