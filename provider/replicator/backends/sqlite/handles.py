"""Access to folders by descriptor, so that a path cannot be swapped between a check and its use.

A symbolic link is followed only where only root and this user could have created it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # the kernel's limit
_LOOPS = (errno.ELOOP, errno.ENOTDIR)


class Untrusted(PermissionError):
    """Another user may change which folder a path leads to, or its content. `strerror` tells how."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(errno.EACCES, why, path)


@contextmanager
def opened(folder: Path, *, alone: bool = False, make: bool = False) -> Iterator[int]:
    """Open a folder by its absolute path, one name after the other; the descriptor is valid within the block.

    Raise OSError, and `Untrusted` for a link that another user could have put there.

    :param alone: raise `Untrusted` also where another user may rename entries in any folder of the path.
    :param make: create missing folders.
    """
    handle = _walk(folder, alone=alone, make=make)
    try:
        yield handle
    finally:
        os.close(handle)


def path_of(folder: int) -> Path:
    """Return where an open folder is now."""
    return Path(os.path.realpath(f"/proc/self/fd/{folder}"))


def settled(path: Path) -> Path:
    """Return an absolute path with its links resolved, as far as it exists and may be entered.

    Raise `Untrusted` for a link that another user could have put there.
    """
    folder, rest = path, Path()
    while True:
        try:
            with opened(folder) as handle:
                return Path(os.path.normpath(path_of(handle) / rest))
        except Untrusted:
            raise
        except OSError:
            folder, rest = folder.parent, folder.name / rest


def writable_by_others(info: os.stat_result) -> bool:
    """Tell whether a user other than root and this one may change a file, or rename entries of a folder.

    In a sticky folder, such as /tmp, other users may create names, but not change those of this user.
    """
    if info.st_uid not in (0, os.geteuid()):
        return True
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    others = stat.S_IWOTH | (0 if info.st_gid in _own_groups() else stat.S_IWGRP)
    return not sticky and bool(info.st_mode & others)


def read_trusted(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """Return the content and the `stat` of a regular file that only root and this user may change.

    Raise OSError; `Untrusted` where others may.
    """
    with opened(path.parent, alone=True) as folder:
        if _is_link(path.name, folder):
            raise Untrusted(str(path), "it is a symbolic link")
        handle = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        with os.fdopen(handle, "rb") as file:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode):
                raise Untrusted(str(path), "it is not a regular file")
            if writable_by_others(info):
                raise Untrusted(str(path), "another user may change it")
            return file.read(limit), info


def names_in(folder: int) -> list[str]:
    """Return the names in an open folder. Raise OSError."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _walk(folder: Path, *, alone: bool, make: bool) -> int:
    names = list(reversed(folder.parts[1:]))
    here, at, links = os.open("/", _FOLDER), "/", 0
    try:
        while names:
            name = names.pop()
            target = _link(name, here, f"{at.rstrip('/')}/{name}")
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
                names += reversed([part for part in target.split("/") if part not in ("", ".")])
                if not target.startswith("/"):
                    continue
                below, at = os.open("/", _FOLDER), "/"
            else:
                at = f"{at.rstrip('/')}/{name}"
                below = _enter(name, here, at, make=make)
            os.close(here)
            here = below
            if alone and writable_by_others(os.fstat(here)):
                raise Untrusted(at, f"another user may write to the folder {at}")
    except BaseException:
        os.close(here)
        raise
    return here


def _enter(name: str, here: int, at: str, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=here)
    try:
        return os.open(name, _FOLDER, dir_fd=here)
    except OSError as error:
        if error.errno in _LOOPS and _is_link(name, here):
            raise Untrusted(at, f"{at} became a symbolic link while it was opened") from None
        raise type(error)(error.errno, error.strerror, at) from None


def _link(name: str, here: int, at: str) -> str | None:
    """Return the target of a symbolic link, or `None`. Raise `Untrusted` where others could have created it."""
    if name == ".." or not _is_link(name, here):
        return None
    folder = os.fstat(here)
    maker = os.stat(name, dir_fd=here, follow_symlinks=False).st_uid
    if writable_by_others(folder) or maker not in (0, os.geteuid()):
        raise Untrusted(at, f"{at} is a symbolic link, and another user may write to its folder")
    return os.readlink(name, dir_fd=here)


def _is_link(name: str, here: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _own_groups() -> tuple[int, ...]:
    """Return the groups without other members: root's, and a user's private one, which has the user's number."""
    me = os.geteuid()
    return (0, me) if os.getegid() == me else (0,)
