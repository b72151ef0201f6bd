"""The folder in which an agent keeps everything, and the lock that keeps it to one agent."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import AgentFault, InvalidConfig

_LOCK_WITHIN = 1.0  # seconds; somebody may only be looking who holds it
_SOCKET_LIMIT = 107  # bytes of a Unix socket's path that the kernel takes
_LONGEST_SOCKET = "all-0123456789/socket"  # what a litestream process adds to `daemons`


def default_state() -> Path:
    """`/var/lib/replicator` for root, else `replicator` below `$XDG_STATE_HOME` or `~/.local/state`."""
    if os.geteuid() == 0:
        return Path("/var/lib/replicator")
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "replicator"


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Where things are; `path` is absolute.

    :param path: of the folder, which only its owner may enter.
    """

    path: Path

    @property
    def registry(self) -> Path:
        """The records of streams. Nothing else here has to survive the agent."""
        return self.path / "registry"

    @property
    def daemons(self) -> Path:
        """Configurations, sockets and logs of litestream processes."""
        return self.path / "daemons"

    @property
    def log(self) -> Path:
        """What an agent in the background says."""
        return self.path / "agent.log"

    @property
    def lock(self) -> Path:
        """Locked as long as an agent uses the folder; holds its process id."""
        return self.path / "agent.lock"

    def make(self) -> None:
        """Make the folder; raise `InvalidConfig` where it cannot be one."""
        if len(os.fsencode(self.daemons / _LONGEST_SOCKET)) > _SOCKET_LIMIT:
            raise InvalidConfig(
                f"the path of the state folder is too long for the sockets below it: {self.path}",
                fix="choose a shorter --state",
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.daemons.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InvalidConfig(
                f"the state folder {self.path} cannot be used: {error.strerror}", fix="choose another --state"
            ) from error

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the folder; raise `AgentFault` where another process does, `InvalidConfig` where it cannot be used."""
        self.make()
        try:
            lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidConfig(
                f"the state folder {self.path} cannot be used: {error.strerror}", fix="choose another --state"
            ) from error
        try:
            await self._acquire(lock)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(lock)

    def holder(self) -> int | None:
        """The process id of the agent that uses the folder; `None` where none does.

        Raise `AgentFault` where we may not look.
        """
        try:
            lock = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise AgentFault(f"no permission on {self.lock}", fix="run as the agent's user, or as root") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(lock)
        finally:
            os.close(lock)
        return None

    async def _acquire(self, lock: int) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + _LOCK_WITHIN
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if clock() > deadline:
                    raise AgentFault(
                        f"another agent, process {_read_pid(lock)}, uses the state folder {self.path}",
                        fix="stop it first, or choose another --state and --socket",
                    ) from None
            await asyncio.sleep(0.02)


def _read_pid(lock: int) -> int | None:
    try:
        return int(os.pread(lock, 32, 0))
    except ValueError:
        return None  # it was locked a moment ago
