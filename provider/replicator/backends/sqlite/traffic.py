"""Whether a process still moves data: what decides how long an upload or a restore may take, instead of a time.

A link may be slow and a database large, so a fixed time would end healthy uploads, each of which then starts again from
its first byte. litestream tells of an upload only when it is done; the kernel tells of each byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

STILL_FOR = 60.0
"""Seconds without progress after which a transfer is given up."""

_PROGRESS = 262_144  # bytes; fewer are polls, and requests that are refused and sent again
_SOCKET = "socket:["
_UNSEEN = 30.0  # seconds without a look


def bytes_moved(pid: int, *, received: bool = False) -> int | None:
    """Return the bytes that a process has written, less those that its TCP peers have not acknowledged yet.

    None where the system does not tell: elsewhere than on Linux, or where the process has ended. The kernel counts
    write(2), which programs in Go use for sockets too.

    :param received: add the bytes that it has read.
    """
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        counts = {name: int(count) for name, _, count in (line.partition(": ") for line in lines)}
        return counts["wchar"] + (counts["rchar"] if received else 0) - _unacknowledged(pid)
    except (OSError, ValueError, KeyError):
        return None


def _unacknowledged(pid: int) -> int:
    """Return what is in the send queues of a process. A link that stands still fills them, and no write shows that."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            target = str(entry.readlink())
            if target.startswith(_SOCKET):
                sockets.add(target[len(_SOCKET) : -1])
    queued = 0
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[9] in sockets:
                    queued += int(fields[4].partition(":")[0], 16)
    return queued


class Traffic:
    """Since when a process has moved nothing to speak of, as its looks have seen it."""

    def __init__(self, *, received: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._received = received
        self._clock = clock
        self._pid: int | None = None
        self._mark = 0
        self._moved_at = self._looked_at = clock()

    def moves(self, pid: int | None) -> bool:
        """Look. Return whether data has moved within the last `STILL_FOR` seconds; True where that cannot be seen."""
        now = self._clock()
        count = bytes_moved(pid, received=self._received) if pid is not None else None
        unseen = now - self._looked_at > _UNSEEN  # too long ago to tell when data last moved
        self._looked_at = now
        if pid != self._pid or count is None or unseen:
            self._pid, self._mark, self._moved_at = pid, count or 0, now
        elif count - self._mark >= _PROGRESS:
            self._mark, self._moved_at = count, now
        return now - self._moved_at < STILL_FOR
