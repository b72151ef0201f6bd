"""Which litestream processes of this host use a database, as far as the kernel tells.

litestream keeps a read lock on each database that it replicates, and the kernel lists every lock to everybody. What
cannot be seen from here: processes on another host, and in a container whose processes this one does not list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from replicator.backends.sqlite.dialect import LITESTREAM

DEFAULT_CONFIG = Path("/etc/litestream.yml")
"""What a daemon reads that was not told otherwise."""

_PROC = Path("/proc")


def holders(databases: Iterable[Path], *, but: Path) -> list[str]:
    """Who replicates one of the databases now, one clause each.

    :param but: processes that have something of this folder among their arguments are ours.
    """
    inodes = {inode: database for database in databases for inode in _inodes(database)}
    found = {
        f"process {pid} ({name}) holds {database}"
        for pid, inode in _locks()
        if (database := inodes.get(inode)) is not None
        and (name := _program(pid)).startswith(LITESTREAM.binary)
        and not _is_ours(pid, but)
    }
    return sorted(found)


def daemons(config: Path, databases: Iterable[Path], *, but: Path) -> list[str]:
    """Which daemons were started with a configuration, or with one of the databases, one clause each."""
    wanted = {str(path) for path in databases}
    found = []
    for pid in _pids():
        words = _arguments(pid)
        if "replicate" not in words or not _program(pid).startswith(LITESTREAM.binary) or _is_ours(pid, but):
            continue
        if _same_file(_config_of(pid, words), config):
            found.append(f"process {pid} ({_program(pid)}) runs with {config}")
        elif named := wanted.intersection(words):
            found.append(f"process {pid} ({_program(pid)}) replicates {', '.join(sorted(named))}")
    return found


def _inodes(database: Path) -> Iterator[int]:
    """Of the file, and of the one that holds the locks of its WAL."""
    for path in (database, database.with_name(f"{database.name}-shm")):
        try:
            yield path.stat().st_ino
        except OSError:
            continue


def _locks() -> Iterator[tuple[int, int]]:
    """Process and inode of every lock. The device is left out: some file systems show another one here."""
    try:
        lines = (_PROC / "locks").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.replace("->", "").split()  # the arrow marks who waits
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


def _is_ours(pid: int, folder: Path) -> bool:
    return any(word == str(folder) or word.startswith(f"{folder}/") for word in _arguments(pid))


def _config_of(pid: int, words: list[str]) -> Path:
    """The configuration that a daemon was started with; relative to a folder that only its user and root may see."""
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
