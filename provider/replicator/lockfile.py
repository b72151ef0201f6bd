"""Files that belong to this user alone, and locks on them that no other user can hold."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

_MODE = 0o600
_POLL = 0.02  # seconds
_PID_BYTES = 32
_LOCKS = Path("/proc/locks")


class LockHeld(Exception):
    """Another process holds the lock; the text says which, if known."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"process {pid}" if pid else "a process that is not known")


def open_private(path: Path, flags: int = 0) -> int:
    """Open a file for reading and writing; create it with mode 0600 if it does not exist. Return the descriptor.

    Raise OSError if it is a link, another user's, or not a regular file.
    """
    flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, _MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "it is a symbolic link", str(path)) from error
        raise
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if found.st_uid != os.geteuid():
            raise OSError(errno.EPERM, f"it belongs to another user (uid {found.st_uid})", str(path))
        if stat.S_IMODE(found.st_mode) != _MODE:
            os.fchmod(handle, _MODE)
    except BaseException:
        os.close(handle)
        raise
    return handle


def lock(path: Path, *, within: float, text: str = "") -> int:
    """Lock a file of this user, and write the own process id into it. Closing the descriptor unlocks it. Blocks.

    Raise `LockHeld` if another process holds it, OSError if the file cannot be created.

    :param within: seconds to wait for it.
    :param text: the second line of the file, after the process id.
    """
    handle = open_private(path)
    deadline = time.monotonic() + within
    try:
        while not _try(handle):
            if time.monotonic() > deadline:
                raise LockHeld(holder_of(handle))
            time.sleep(_POLL)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n{text}\n".encode(), 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def holder_of(handle: int) -> int | None:
    """Return the process that has locked an open file; `None` if unknown.

    The file has the id of the last writer. That process may have exited, or the holder may not have written its id yet.
    """
    file = os.fstat(handle)
    at = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with suppress(OSError, ValueError):
        for line in _LOCKS.read_text().splitlines():
            kind, _, access, pid, place = line.split()[1:6]
            if (kind, access, place) == ("FLOCK", "WRITE", at):
                return int(pid) if Path(f"/proc/{pid}").exists() else None  # else a child may hold the lock
    written = read_pid(handle)
    return written if written is not None and has_open(written, file) else None


def read_pid(handle: int) -> int | None:
    """Return the process id in an open lock file; `None` without one, as during locking."""
    first = os.pread(handle, _PID_BYTES, 0).split(b"\n")[0]
    return int(first) if first.isdigit() else None


def has_open(pid: int, file: os.stat_result) -> bool:
    """Tell whether a process has a file open, as far as this system shows."""
    if not Path("/proc/self/fd").exists():
        return True
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(link.stat(), file):
                    return True
    return False


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
