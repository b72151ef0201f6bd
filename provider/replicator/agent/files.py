"""Small files of the registry: read whole, and written atomically, so that a crash or a full disk keeps the old one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from replicator.errors import AgentFault
from replicator.lockfile import open_private

_MOST = 64 * 1024 * 1024  # bytes; the size limit of a file; a record has some kilobytes
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def make_folder(path: Path) -> None:
    """Create a private folder if it does not exist; raise `AgentFault` where that fails."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise AgentFault(f"{path} is not a folder", fix="restore it from a backup, or move it away") from error
    except OSError as error:
        raise _fault(path, "made", error) from error


def listed(folder: Path) -> Sequence[Path]:
    """Return the JSON files of a folder, in order. Raise for an unreadable folder: it must not seem empty."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise _fault(folder, "read", error) from error
    return [path for path in found if path.suffix == ".json"]


def read(path: Path) -> bytes:
    """Return the content of a regular file; raise OSError where it cannot be read."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would block
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if found.st_size > _MOST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(_MOST)


def write(path: Path, text: str, stream: str | None = None) -> None:
    """Write a file atomically: write a temporary file, flush it to the disk, and rename it.

    Raise `AgentFault` where that fails, for example on a full disk; only the old version stays.

    :param stream: the file's stream, for the error.
    """
    beside = path.with_suffix(".tmp")
    try:
        beside.unlink(missing_ok=True)  # left by a crash
        with os.fdopen(open_private(beside, os.O_EXCL), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise _fault(path, "written", error, stream) from error


def remove(path: Path, stream: str | None) -> None:
    """Remove a file if it exists; raise `AgentFault` where that fails."""
    try:
        path.unlink(missing_ok=True)
        _flush_folder(path.parent)
    except OSError as error:
        raise _fault(path, "removed", error, stream) from error


def _fault(path: Path, done: str, error: OSError, stream: str | None = None) -> AgentFault:
    hint = "free space on its disk" if error.errno in _FULL else "look at it, and at the rights of the agent's user"
    return AgentFault(
        f"{path} cannot be {done}: {error.strerror or error}", stream=stream, fix=f"{hint}; then run the command again"
    )


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
