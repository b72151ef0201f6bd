"""Small files of the registry: read whole, and written so that a crash or a full disk leaves the old one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from replicator.errors import AgentFault
from replicator.lockfile import open_private

_MOST = 64 * 1024 * 1024  # bytes of a file; a record has some kilobytes
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def make_folder(path: Path) -> None:
    """Make a folder for this user alone, where it is missing; raise `AgentFault` where there cannot be one."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise AgentFault(f"{path} is not a folder", fix="restore it from a backup, or move it away") from error
    except OSError as error:
        raise _fault(path, "made", error) from error


def listed(folder: Path) -> Sequence[Path]:
    """Return the JSON files of a folder, in order. What cannot be listed is never taken for empty."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise _fault(folder, "read", error) from error
    return [path for path in found if path.suffix == ".json"]


def read(path: Path) -> bytes:
    """Return the content of a file; raise OSError where it is none that can be read."""
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
    """Write beside, flush to the disk, and rename over: the name always holds one whole version.

    Raise `AgentFault` where that fails, for example on a full disk; the old version stays, and nothing beside it.

    :param stream: whose file it is, for the error.
    """
    beside = path.with_suffix(".tmp")
    try:
        beside.unlink(missing_ok=True)  # a crash left it
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
    """Remove a file, where it is there; raise `AgentFault` where that fails."""
    try:
        path.unlink(missing_ok=True)
        _flush_folder(path.parent)
    except OSError as error:
        raise _fault(path, "removed", error, stream) from error


def _fault(path: Path, done: str, error: OSError, stream: str | None = None) -> AgentFault:
    hint = "free space on its disk" if error.errno in _FULL else "look at it, and at the rights of the agent's user"
    return AgentFault(
        f"{path} cannot be {done}: {error.strerror or error}", stream=stream, fix=f"{hint}; then do the same again"
    )


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
