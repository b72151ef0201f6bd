"""Where an agent listens when nobody says otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_socket() -> Path:
    """The agent's socket: `/run/replicator/agent.sock` for root, else below `$XDG_RUNTIME_DIR` or `~/.replicator`."""
    if os.geteuid() == 0:
        return Path("/run/replicator/agent.sock")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "replicator" if runtime else Path.home() / ".replicator"
    return folder / "agent.sock"


def default_address() -> str:
    """The same as an address that a client takes."""
    return f"unix://{default_socket()}"
