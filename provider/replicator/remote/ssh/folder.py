"""A part of the fallback: a folder for the socket of one tunnel.

No other user may enter it, and the folders of killed processes are removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from replicator.remote.address import SOCKET_PATH_LIMIT

_PREFIX = "replicator-ssh-"
_LONGEST = len(f"/{_PREFIX}12345678/socket")


class Folder:
    """A folder with a short path, and a lock in it that is held for as long as this process lives."""

    def __init__(self) -> None:
        above = Path(tempfile.gettempdir())
        if len(str(above)) + _LONGEST >= SOCKET_PATH_LIMIT:
            above = Path("/tmp")  # noqa: S108 - mkdtemp creates a private folder
        _sweep(above)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))
        self.socket = self.path / "socket"
        self._lock = os.open(self.path / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.path / "new").rename(self.path / "lock")  # from now on others can check the lock

    def remove(self) -> None:
        """Remove the folder and its content."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep(above: Path) -> None:
    """Remove the folders of processes that were killed: their locks are free."""
    for left in above.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # its lock is held or missing, or another process removes it now
            if left.stat(follow_symlinks=False).st_uid != os.geteuid():
                continue
            lock = os.open(left / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(lock)
