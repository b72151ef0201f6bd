"""`replicator agent init`: write the agent's policy file from what the agent does now."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replicator.cli.agent import PolicyOption, StateOption
from replicator.cli.clients import agent_client, find_agent
from replicator.cli.output import counted, say

if TYPE_CHECKING:
    from replicator.agent.state import StateFolder
    from replicator.backends.sqlite.record import StreamRecord
    from replicator.remote.routes import Info


def init(
    policy: PolicyOption = None,
    state: StateOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")] = False,
) -> None:
    """Write the policy file of this host's agent.

    It grants what the agent's streams and replays use now: their databases' folders, destinations, references and
    folders of copies. From then on the agent refuses everything else. Read it before you rely on it: it grants also
    what should not be there.
    """
    from replicator.agent.policy_file import PolicyFile, default_policy
    from replicator.agent.state import StateFolder, default_state
    from replicator.backends.sqlite.grants import Policy, lines_for

    path = (policy or default_policy()).absolute()
    folder = StateFolder((state or default_state()).absolute())
    records = _records(folder)
    targets = [Path(replay.target) for record in records for replay in record.replays.values() if replay.target]
    lines = lines_for(Policy(), [record.stream for record in records], targets)
    other = _read_instead(folder, path)
    if dry_run:
        _show(lines)
    else:
        _show([PolicyFile(path).create(lines, group=_group_of_agent(folder), over=force)])
        then = "" if other else "; the agent reads it before the next thing that it does"
        say(f"wrote {path}, from {counted(len(records), 'stream')}{then}")
    if other:
        print(f"warning: {other}", file=sys.stderr)


def _read_instead(folder: StateFolder, path: Path) -> str | None:
    """Return a hint if the running agent reads another file; `None` if none runs, or it does not tell."""
    import asyncio
    from contextlib import aclosing

    from replicator.errors import ReplicatorError

    if (socket := folder.address()) is None:
        return None

    async def ask() -> Info | None:
        async with aclosing(agent_client(f"unix://{socket}")) as client:
            return await find_agent(client)

    try:
        found = asyncio.run(ask())
    except ReplicatorError:
        return None
    read = (found.model_extra or {}).get("policy") if found is not None else None
    if found is None or read in (None, str(path)):
        return None
    return (
        f"the agent that runs (process {found.pid}) reads {read}, and not {path}\n"
        f"  → write that file: replicator agent init --policy {shlex.quote(read)}; or start the agent again with "
        f"--policy {shlex.quote(str(path))}"
    )


def _records(folder: StateFolder) -> Sequence[StreamRecord]:
    from replicator.agent.registry import FileStore

    if not folder.registry.is_dir():
        return []
    store = FileStore(folder.registry)
    for name in store.unreadable:
        print(f"warning: the record of {name} cannot be read, so nothing of it is granted", file=sys.stderr)
    return [record for record in store.records() if _can_be_granted(record)]


def _can_be_granted(record: StreamRecord) -> bool:
    """Tell whether this release can read the stream's destination; an unreadable line would invalidate the file."""
    from replicator import authref
    from replicator.backends.sqlite.locations import parse_location
    from replicator.errors import ReplicatorError

    try:
        parse_location(record.stream)
        if record.stream.destination.auth_ref is not None:
            authref.parse(record.stream.destination.auth_ref)
    except ReplicatorError as error:
        print(f"warning: nothing of stream {record.name} is granted: {error.message} [{error.code}]", file=sys.stderr)
        return False
    return True


def _group_of_agent(folder: StateFolder) -> int | None:
    """Return the group that has to read the file if the agent runs as another user; `None` if it runs as this one."""
    try:
        info = folder.path.stat()
    except FileNotFoundError:
        return None
    return None if info.st_uid == os.geteuid() else info.st_gid


def _show(texts: Sequence[str]) -> None:
    say("\n\n".join(texts).rstrip("\n") or "# there are no streams")
