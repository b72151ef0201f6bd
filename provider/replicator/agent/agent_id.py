"""The agent's name for other agents: random, made once, and kept with its registry."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from replicator.errors import AgentFault


def agent_id(registry: Path) -> str:
    """Return the id; make it where there is none. Raise `AgentFault` where it cannot be read."""
    path = registry / "agent-id"
    if not path.exists():
        _write(path, uuid.uuid4().hex)
    found = path.read_text("ascii", errors="replace").strip()
    if not re.fullmatch(r"[0-9a-f]{32}", found):
        raise AgentFault(
            f"{path} does not hold an agent's id, by which this agent knows its own claims at destinations",
            fix="restore the file from a backup of the registry",
        )
    return found


def _write(path: Path, text: str) -> None:
    """Write the whole file or none: a crash must leave no half of an id."""
    beside = path.with_suffix(".tmp")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
