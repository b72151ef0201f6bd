"""Which processes of the engine are there, whoever their parent is."""

from __future__ import annotations

import contextlib
from pathlib import Path


def litestreams(folder: Path) -> list[int]:
    """Process ids of litestream daemons and commands that work in `folder`."""
    found, mark = [], f"{folder}/".encode()
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                line = (path / "cmdline").read_bytes()
                if mark in line and b"/litestream\0" in line:
                    found.append(int(path.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return line.rpartition(")")[2].split()[0] not in "ZX"
