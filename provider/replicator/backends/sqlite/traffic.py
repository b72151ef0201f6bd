"""Detection of data transfer by a process. It limits uploads and restores, instead of a fixed time.

With a slow link or a large database, a fixed time would end healthy uploads, each of which then starts again from its
first byte. litestream reports an upload only when it is done; the kernel counts each byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

STILL_FOR = 60.0
"""Seconds without progress after which a transfer is aborted."""

_PROGRESS = 262_144  # bytes; fewer are polls, and retries of refused requests
_SOCKET = "socket:["
_UNSEEN = 30.0  # seconds without a check


def bytes_moved(pid: int, *, received: bool = False) -> int | None:
    """Return the bytes that a process has written, minus those that its TCP peers have not acknowledged yet.

    Return None if the system does not tell: on other systems than Linux, or after the process has ended. The kernel
    counts write(2), which Go programs use for sockets too.

    :param received: add the bytes that the process has read.
    """
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
        counts = {name: int(count) for name, _, count in (line.partition(": ") for line in lines)}
        return counts["wchar"] + (counts["rchar"] if received else 0) - _unacknowledged(pid)
    except (OSError, ValueError, KeyError):
        return None


def _unacknowledged(pid: int) -> int:
    """Return the bytes in a process's send queues. A stalled link fills them, which write counts do not show."""
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
    """The time since which a process has moved no data, from repeated checks."""

    def __init__(self, *, received: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._received = received
        self._clock = clock
        self._pid: int | None = None
        self._mark = 0
        self._moved_at = self._looked_at = clock()

    def moves(self, pid: int | None) -> bool:
        """Check the process. Tell whether data has moved within the last `STILL_FOR` seconds; True if unknown."""
        now = self._clock()
        count = bytes_moved(pid, received=self._received) if pid is not None else None
        unseen = now - self._looked_at > _UNSEEN  # too long ago to tell when data last moved
        self._looked_at = now
        if pid != self._pid or count is None or unseen:
            self._pid, self._mark, self._moved_at = pid, count or 0, now
        elif count - self._mark >= _PROGRESS:
            self._mark, self._moved_at = count, now
        return now - self._moved_at < STILL_FOR
