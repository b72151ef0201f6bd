"""The litestream processes of this host that use a database, as far as the kernel tells.

litestream keeps a read lock on each database that it replicates, and the kernel lists every lock to every user. Not
visible are processes on another host, and in a container whose processes this one does not list.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.errors import DestinationInUse

DEFAULT_CONFIG = Path("/etc/litestream.yml")
"""The configuration file that a daemon reads by default."""

_PROC = Path("/proc")


def still_running(running: list[str], stream: str | None = None) -> DestinationInUse:
    """Return the error for a database that another litestream replicates too: neither replica could be restored."""
    return DestinationInUse(
        f"litestream still runs: {'; '.join(running)}",
        stream=stream,
        property="source.uri" if stream else None,
        fix="stop it, and keep it from starting again: systemctl disable --now litestream",
    )


class Holders:
    """A lookup for many databases that reads the kernel's locks once for all of them.

    :param but: the folder of the agent's own processes.
    """

    def __init__(self, *, but: Path) -> None:
        self._but = but
        self._looking = asyncio.Lock()
        self._locked: frozenset[int] = frozenset()
        self._looked: float | None = None

    async def of(self, database: Path, *, max_age: float) -> list[str]:
        """Return the processes that replicate the database, one clause each.

        :param max_age: seconds; a younger lookup answers for every database that no process holds.
        """
        async with self._looking:
            now = time.monotonic()
            if self._looked is None or now - self._looked > max_age:
                self._looked, self._locked = now, await asyncio.to_thread(_inodes_of_others, self._but)
        if self._locked.isdisjoint(await asyncio.to_thread(lambda: list(_inodes(database)))):
            return []
        return await asyncio.to_thread(holders, [database], but=self._but)


def holders(databases: Iterable[Path], *, but: Path) -> list[str]:
    """Return the processes that replicate one of the databases now, one clause each.

    :param but: processes with a path of this folder among their arguments are the agent's own.
    """
    inodes = {inode: database for database in databases for inode in _inodes(database)}
    found = {
        f"process {pid} ({name}) holds {database}"
        for pid, inode in _locks()
        if (database := inodes.get(inode)) is not None
        and (name := _program(pid)).startswith(LITESTREAM.binary)
        and not _is_ours(pid, but)
        and _may_have_open(pid, database)
    }
    return sorted(found)


def daemons(config: Path, databases: Iterable[Path], *, but: Path) -> list[str]:
    """Return the daemons that were started with a configuration, or with one of the databases, one clause each."""
    wanted = {str(path) for path in databases}
    found = []
    for pid in _pids():
        words = _arguments(pid)
        if "replicate" not in words or not _is_litestream(pid) or _is_ours(pid, but):
            continue
        if _same_file(_config_of(pid, words), config):
            found.append(f"process {pid} ({_program(pid)}) runs with {config}")
        elif named := wanted.intersection(words):
            found.append(f"process {pid} ({_program(pid)}) replicates {', '.join(sorted(named))}")
    return found


def _inodes_of_others(but: Path) -> frozenset[int]:
    """Return the inodes on which other litestream processes hold locks."""
    locks = list(_locks())
    theirs = {pid for pid in {pid for pid, _ in locks} if _is_litestream(pid) and not _is_ours(pid, but)}
    return frozenset(inode for pid, inode in locks if pid in theirs)


def _is_litestream(pid: int) -> bool:
    return _program(pid).startswith(LITESTREAM.binary)


def _inodes(database: Path) -> Iterator[int]:
    """Yield the inodes of the file, and of the one that holds the locks of its WAL."""
    for path in (database, database.with_name(f"{database.name}-shm")):
        try:
            yield path.stat().st_ino
        except OSError:
            continue


def _locks() -> Iterator[tuple[int, int]]:
    """Yield process and inode of every lock. Leave out the device: some file systems show another one here."""
    try:
        lines = (_PROC / "locks").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.replace("->", "").split()  # the arrow marks a waiting process
        if len(words) > 5 and words[5].count(":") == 2:
            yield int(words[4]), int(words[5].rpartition(":")[2])


def _pids() -> list[int]:
    return [int(path.name) for path in _PROC.glob("[0-9]*")]


def _program(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _arguments(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _may_have_open(pid: int, database: Path) -> bool:
    """Return False if the process has another file system's file with this inode. Its files may not be visible."""
    try:
        links = list((_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return True
    for link in links:
        with suppress(OSError):
            if link.samefile(database):
                return True
    return False


def _is_ours(pid: int, folder: Path) -> bool:
    return any(word == str(folder) or word.startswith(f"{folder}/") for word in _arguments(pid))


def _config_of(pid: int, words: list[str]) -> Path:
    """Return the configuration that a daemon was started with; relative if its folder is not visible to this user."""
    given = None
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in ("-config", "--config"):
            given = value if equals else "".join(words[place + 1 : place + 2])
    if given is None:
        return DEFAULT_CONFIG
    try:
        return (_PROC / str(pid) / "cwd").readlink() / given
    except OSError:
        return Path(given)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()
