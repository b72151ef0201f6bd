"""The agent's id for other agents: random, created once, and stored with its registry."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from replicator.agent import files
from replicator.errors import AgentFault


def agent_id(registry: Path) -> str:
    """Return the id; create it if it does not exist. Raise `AgentFault` where it cannot be read."""
    path = registry / "agent-id"
    if not os.path.lexists(path):
        files.write(path, uuid.uuid4().hex)
    try:
        found = files.read(path).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}") from error
    if not re.fullmatch(r"[0-9a-f]{32}", found):
        raise _unusable(f"{path} does not hold an agent's id")
    return found


def _unusable(why: str) -> AgentFault:
    return AgentFault(
        f"{why}, by which this agent knows its own claims at destinations",
        fix="restore the file from a backup of the registry",
    )
