"""A server's Unix socket: it accepts no client before its mode and group are set, and servers never share a path."""

from __future__ import annotations

import errno
import grp
import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import AgentFault, InvalidConfig
from replicator.lockfile import LockHeld, lock

_BACKLOG = 1024
_LOCK_WITHIN = 5.0  # seconds; other servers hold the lock only briefly

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket.

    :param identity: device, inode and change time of its file, which distinguish it from a later one at the path.
    """

    path: Path
    socket: socket.socket
    identity: tuple[int, int, int]

    def is_there(self) -> bool:
        """Tell whether clients can find the socket at its path."""
        try:
            return _identify(self.path)[:2] == self.identity[:2]  # a chmod changes the time
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the file, unless another server has taken the path. Blocks for some seconds at most."""
        try:
            with _alone(self.path):
                if _identify(self.path) == self.identity:
                    self.path.unlink()
        except FileNotFoundError:
            return
        except (OSError, AgentFault) as error:  # the next server sees that nothing listens there
            _log.warning("the socket %s was left behind: %s", self.path, error)


def listen(path: Path, *, mode: int, group: str | None) -> Listener:
    """Listen at `path`, and replace a socket that nothing answers on. Blocks for some seconds at most.

    A missing folder is created for the owner alone; the group may only pass through it.
    Raise `AgentFault` where another server answers, `InvalidConfig` where the path or the group cannot be used.
    """
    path = path.absolute()
    owners = _find_group(group)
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, mode=0o700)
            if owners is not None:
                _give(path.parent, owners)
                path.parent.chmod(0o710)
        with _alone(path):
            _clear(path)
            return _bind(path, mode, owners)
    except OSError as error:
        if "too long" in str(error):
            raise InvalidConfig(
                f"the path of the socket is too long for this system: {path}", fix="choose a shorter --socket"
            ) from error
        at = f"{error.filename}: " if error.filename not in (None, str(path)) else ""
        raise InvalidConfig(
            f"cannot listen at {path}: {at}{error.strerror or error}", fix="choose another --socket"
        ) from error


def _bind(path: Path, mode: int, group: grp.struct_group | None) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        # Until listen() every connection is refused, regardless of the mode that the umask left.
        if group is not None:
            _give(path, group)
        path.chmod(mode)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        return Listener(path, sock, _identify(path))
    except BaseException:
        sock.close()
        raise


def _clear(path: Path) -> None:
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise InvalidConfig(f"{path} is there and is not a socket", fix="choose another --socket")
    if _answers(path):
        raise AgentFault(
            f"another server is already running at unix://{path}", fix="stop it first, or choose another --socket"
        )
    path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        # A full backlog (EAGAIN) counts as an answer too, and so does any unknown error.
        return probe.connect_ex(str(path)) != errno.ECONNREFUSED


def _give(path: Path, group: grp.struct_group) -> None:
    try:
        os.chown(path, -1, group.gr_gid)
    except PermissionError as error:
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
        raise InvalidConfig(
            f"{path} cannot be given to the group {group.gr_name!r}, in which this user is not: {error.strerror}",
            fix=f"make this user a member of {group.gr_name}, and log in again; or choose another --socket-group",
        ) from error


def _find_group(group: str | None) -> grp.struct_group | None:
    if group is None:
        return None
    try:
        return grp.getgrnam(group)
    except KeyError:
        raise InvalidConfig(f"this host has no group {group!r}", fix="choose another --socket-group") from None


def _identify(path: Path) -> tuple[int, int, int]:
    found = path.stat(follow_symlinks=False)
    return found.st_dev, found.st_ino, found.st_ctime_ns


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Prevent other servers from probing and replacing the socket within the block.

    The lock is on a file of this user beside it: any user who may read a folder can lock it.
    """
    beside = path.with_name(f"{path.name}.lock")
    try:
        handle = lock(beside, within=_LOCK_WITHIN)
    except LockHeld as held:
        raise AgentFault(
            f"{held} has held the lock {beside} for {_LOCK_WITHIN:g} s",
            fix="end that process if it does not end by itself, and start again",
        ) from held
    try:
        yield
    finally:
        os.close(handle)
