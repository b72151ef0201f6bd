"""The state folder of an agent, and the lock that restricts it to one agent."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shlex
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import AgentFault, InvalidConfig
from replicator.home import home
from replicator.http_unix import SOCKET_PATH_MAX
from replicator.lockfile import LockHeld, has_open, lock, read_pid

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_LOCK_BYTES = 200  # a process id, and the path of a socket
_LOCK_WITHIN = 1.0  # seconds; somebody may only be looking who holds it
_LONGEST_SOCKET = "all-0123456789/socket"  # what a litestream process adds to `daemons`


def default_state() -> Path:
    """Return `/var/lib/replicator` for root, else `replicator` in `$XDG_STATE_HOME` or `~/.local/state`."""
    if os.geteuid() == 0:
        return Path("/var/lib/replicator")
    configured = os.environ.get("XDG_STATE_HOME")
    if not configured:
        return home("the state folder", "--state or XDG_STATE_HOME") / ".local" / "state" / "replicator"
    return Path(configured) / "replicator"


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The paths in a state folder; `path` is absolute.

    :param path: the folder, which only its owner may enter.
    """

    path: Path

    @property
    def registry(self) -> Path:
        """Return the folder of the streams' records. Nothing else here has to outlive the agent."""
        return self.path / "registry"

    @property
    def daemons(self) -> Path:
        """Return the folder of configurations, sockets and logs of litestream processes."""
        return self.path / "daemons"

    @property
    def log(self) -> Path:
        """Return the log file of an agent in the background."""
        return self.path / "agent.log"

    @property
    def lock(self) -> Path:
        """Return the lock file. The agent that holds its lock writes its process id and its socket's path to it."""
        return self.path / "agent.lock"

    def make(self) -> None:
        """Make the folder; raise `InvalidConfig` where it cannot be one, or other users may write to it."""
        if len(os.fsencode(self.daemons / _LONGEST_SOCKET)) > SOCKET_PATH_MAX:
            raise InvalidConfig(
                f"the path of the state folder is too long for the sockets below it: {self.path}",
                fix="choose a shorter --state",
            )
        for folder in (self.path, self.registry, self.daemons):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _refuse_shared(folder)
            except OSError as error:
                why = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
                raise InvalidConfig(
                    f"the state folder {self.path} cannot be used: {folder}: {why}", fix="choose another --state"
                ) from error

    @asynccontextmanager
    async def locked(self, socket: Path | None = None) -> AsyncIterator[None]:
        """Lock the folder; raise `AgentFault` if another process holds it, `InvalidConfig` if it cannot be used.

        :param socket: the agent's socket, for processes that find the lock but not the socket.
        """
        await asyncio.to_thread(self.make)
        try:
            held = await asyncio.to_thread(lock, self.lock, within=_LOCK_WITHIN, text=str(socket or ""))
        except LockHeld as other:
            raise AgentFault(
                f"another agent, {other}, uses the state folder {self.path}",
                fix="stop it first, or choose another --state and --socket",
            ) from None
        except OSError as error:
            raise InvalidConfig(
                f"the state folder {self.path} cannot be used: {self.lock}: {error.strerror}",
                fix=f"rm {shlex.quote(str(self.lock))}, where no agent uses the folder",
            ) from error
        try:
            yield
        finally:
            os.close(held)

    def holder(self) -> int | None:
        """Return the process id of the agent that uses the folder, or `None`.

        Raise `AgentFault` if that is unknown.
        """
        held = self._look()
        return None if held is None else held[0]

    def holder_at(self, socket: Path) -> int | None:
        """Return the process id of the agent that uses the folder and is configured to listen at `socket`.

        Return `None` without one, and if that process does not have the lock open, as seen from a container's host.
        """
        held = self._look()
        if held is None or held[0] is None or held[1] != str(socket):
            return None
        with suppress(OSError):
            return held[0] if has_open(held[0], self.lock.stat()) else None
        return None

    def address(self) -> Path | None:
        """Return the socket of the agent that uses the folder, or `None` without one or if unknown."""
        with suppress(AgentFault):
            held = self._look()
            return Path(held[1]) if held is not None and held[1] else None
        return None

    def _look(self) -> tuple[int | None, str] | None:
        try:
            handle = os.open(self.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise AgentFault(f"no permission on {self.lock}", fix="run as the agent's user, or as root") from error
        except OSError as error:
            why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise AgentFault(f"{self.lock} is no lock of an agent: {why}", fix="remove it") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            lines = os.pread(handle, _LOCK_BYTES, 0).decode(errors="replace").splitlines()
            return read_pid(handle), lines[1] if len(lines) > 1 else ""
        finally:
            os.close(handle)
        return None


def _refuse_shared(folder: Path) -> None:
    """Raise `InvalidConfig` where another user may create or replace files in a folder."""
    found = folder.stat()
    at = shlex.quote(str(folder))
    if found.st_uid != os.geteuid():
        raise InvalidConfig(
            f"the folder {folder} belongs to another user (uid {found.st_uid})",
            fix=f"run the agent as that user, choose another --state, or: chown {os.geteuid()} {at}",
        )
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise InvalidConfig(
            f"the folder {folder} has mode {stat.S_IMODE(found.st_mode):04o}: other users may replace what is in it",
            fix=f"look at what is in it, and then: chmod 700 {at}",
        )
