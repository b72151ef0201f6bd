"""Publication of a restored database: it is written in a private folder first, then linked to its name.

Names are resolved once; every later step uses descriptors.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from replicator.backends.sqlite.handles import Untrusted, names_in, opened, path_of
from replicator.errors import EngineRefused, InvalidStream, ReplayRefused, SourceMissing

NAME = "copy.db"
"""The name of the database in the folder in which it is written."""

PARTS = ("-wal", "-shm", "-journal")
"""Endings of the files beside a database that SQLite reads into it."""

Admit = Callable[[Path], None]

_PRIVATE = 0o600
_ALONE = "restore"  # as a key: folders that are used by one process and removed by it
_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Work:
    """A new folder with mode 0700 beside a target.

    :param parent: the descriptor of the target's folder.
    :param handle: the descriptor of the new folder.
    :param admit: raises where the policy does not grant a copy at a path.
    """

    target: Path
    parent: int
    handle: int
    stream: str | None
    admit: Admit

    @property
    def path(self) -> Path:
        """Return the folder through its descriptor, so that a child can start in it even if the name is swapped."""
        return Path(f"/proc/self/fd/{self.handle}")

    def size(self) -> int:
        """Return the bytes that are written so far."""
        sizes = 0
        for name in names_in(self.handle):
            with suppress(FileNotFoundError):  # it got another name since
                sizes += os.stat(name, dir_fd=self.handle, follow_symlinks=False).st_size
        return sizes

    def is_published(self) -> bool:
        """Tell whether an earlier, interrupted run has already linked the target."""
        try:
            ours = os.stat(NAME, dir_fd=self.handle, follow_symlinks=False)
            theirs = os.stat(self.target.name, dir_fd=self.parent, follow_symlinks=False)
        except FileNotFoundError:
            self._clear()
            return False
        if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
            self._see_alone(ours)
            return True
        self._clear()
        return False

    def publish(self, source: Path | None = None) -> None:
        """Give the copy the mode and owner of its source, then link it to its name, which must be free.

        Without a source the copy is private to this user.
        """
        file = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.handle)
        try:
            info = os.fstat(file)
            whole = stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and os.pread(file, len(_MAGIC), 0) == _MAGIC
            if not whole or info.st_uid != os.geteuid():
                raise EngineRefused(f"what litestream wrote for {self.target} is no database", stream=self.stream)
            _take_after(file, source)
            os.fsync(file)
            self.admit(path_of(self.parent) / self.target.name)
            _refuse_beside(self.target, self.parent, self.stream)
            self._link()
            self._see_alone(info)
            os.fsync(self.parent)
        finally:
            os.close(file)

    def _link(self) -> None:
        """Add the final name: unlike a rename, a link replaces nothing. `tidy` removes the first name."""
        try:
            os.link(NAME, self.target.name, src_dir_fd=self.handle, dst_dir_fd=self.parent, follow_symlinks=False)
        except FileExistsError:
            raise ReplayRefused(
                f"{self.target} appeared meanwhile, and nothing is written over", stream=self.stream
            ) from None
        except OSError as error:
            raise EngineRefused(f"{self.target} cannot be made: {error.strerror}", stream=self.stream) from None

    def _see_alone(self, ours: os.stat_result) -> None:
        """Remove the name again if a file appeared beside the copy meanwhile: SQLite would read it into the copy."""
        named = os.stat(self.target.name, dir_fd=self.parent, follow_symlinks=False)
        if (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
            raise ReplayRefused(f"{self.target} was replaced while it was made", stream=self.stream)
        try:
            _refuse_beside(self.target, self.parent, self.stream)
        except ReplayRefused:
            os.unlink(self.target.name, dir_fd=self.parent)
            raise

    def _clear(self) -> None:
        for name in names_in(self.handle):
            os.unlink(name, dir_fd=self.handle)


@contextmanager
def work_folder(target: Path, key: str, stream: str, admit: Admit = lambda _: None) -> Iterator[Work]:
    """Open the folder in which a replay's copy is written; it stays until `tidy`. Blocks briefly.

    Raise `ReplayRefused` where another user may write to the target's folder, `SourceMissing` where it does not exist.

    :param admit: raises where the policy does not grant a copy at a path. It is called now, and again before the copy
        gets its name.
    """
    with _folder_of(target, stream) as parent:
        admit(path_of(parent) / target.name)
        name = next(_left(parent, target, key), None) or _made(parent, target, key, stream)
        with _entered(name, parent) as handle:
            info = os.fstat(handle)
            if info.st_uid != os.geteuid() or info.st_mode & 0o077:
                raise ReplayRefused(f"the folder {target.parent / name} is another user's", stream=stream)
            yield Work(target, parent, handle, stream, admit)


@contextmanager
def own_folder(target: Path, stream: str | None) -> Iterator[Work]:
    """Open a folder for a copy that one process makes; it is removed at the end. Blocks briefly.

    What killed processes left for the same target is removed too. Raise as `work_folder` does.
    """
    with _folder_of(target, stream) as parent:
        for name in list(_left(parent, target, _ALONE)):
            with suppress(FileNotFoundError), _entered(name, parent) as handle:
                if _locked(handle):
                    rmtree(name, dir_fd=parent)
        with ExitStack() as stack:
            while True:
                name = _made(parent, target, _ALONE, stream)
                handle = stack.enter_context(_entered(name, parent))
                # Another process that cleans up may have seen the folder before it was locked.
                if _locked(handle) and _is_there(name, parent):
                    break
            try:
                yield Work(target, parent, handle, stream, lambda _: None)
            finally:
                rmtree(name, dir_fd=parent)


def refuse_occupied(target: Path, stream: str | None) -> None:
    """Raise `ReplayRefused` where a copy cannot get its name, or would not be alone there.

    Another user may write to its folder or to one above it, the name is taken, or a SQLite side file exists.
    """
    with _folder_of(target, stream) as parent:
        try:
            if _is_there(target.name, parent):
                raise _occupied(f"{target} exists, and nothing is written over", stream)
            _refuse_beside(target, parent, stream)
        except OSError as error:
            raise InvalidStream(
                f"no file can have this name: {error.strerror}", stream=stream, property="target"
            ) from None


def tidy(target: Path, key: str) -> None:
    """Remove what a replay has left beside its target."""
    with suppress(OSError), opened(target.parent, alone=True) as parent:  # the folder may be gone
        for name in list(_left(parent, target, key)):
            rmtree(name, dir_fd=parent)


def _refuse_beside(target: Path, parent: int, stream: str | None) -> None:
    for ending in PARTS:
        if _is_there(f"{target.name}{ending}", parent):
            raise _occupied(f"{target}{ending} exists, and SQLite would read it into the copy", stream)


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _occupied(why: str, stream: str | None) -> ReplayRefused:
    return ReplayRefused(why, stream=stream, property="target", fix="name another path, or move what is there aside")


@contextmanager
def _folder_of(target: Path, stream: str | None) -> Iterator[int]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(opened(target.parent, alone=True))
        except Untrusted as error:
            raise ReplayRefused(
                f"{error.strerror}, who could put another file in the place of the copy",
                stream=stream,
                property="target",
                fix="write to a folder that, with all above it, only root or the user who makes the copy may write to",
            ) from None
        except OSError as error:
            raise SourceMissing(
                f"the folder {target.parent} cannot be opened: {error.strerror}", stream=stream, property="target"
            ) from None
        yield folder


def _made(parent: int, target: Path, key: str, stream: str | None) -> str:
    """Make a new folder for a copy; return its name."""
    name = f"{_prefix(target, key)}{secrets.token_hex(4)}"
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except OSError as error:
        raise EngineRefused(
            f"nothing can be made in {target.parent}: {error.strerror}", stream=stream, property="target"
        ) from None
    return name


@contextmanager
def _entered(name: str, parent: int) -> Iterator[int]:
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield handle
    finally:
        os.close(handle)


def _locked(folder: int) -> bool:
    """Lock an open folder for as long as it is open; return False if another process has the lock."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _left(parent: int, target: Path, key: str) -> Iterator[str]:
    """Yield the folders of this user that an earlier run of the same replay left."""
    for name in names_in(parent):
        if name.startswith(_prefix(target, key)):
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid():
                yield name


def _prefix(target: Path, key: str) -> str:
    digest = hashlib.sha256("\0".join((target.name, key)).encode()).hexdigest()
    return f".replay-{digest[:12]}-"


def _take_after(file: int, source: Path | None) -> None:
    """Give a file the mode and owner of its source; where that is not allowed, keep it private to this user."""
    os.fchmod(file, _PRIVATE)
    if source is None:
        return
    try:
        info = source.lstat()
        if not stat.S_ISREG(info.st_mode):
            return
        ours = os.fstat(file)
        if (info.st_uid, info.st_gid) != (ours.st_uid, ours.st_gid):
            os.fchown(file, info.st_uid, info.st_gid)
        os.fchmod(file, stat.S_IMODE(info.st_mode) & 0o666)
    except OSError:
        os.fchmod(file, _PRIVATE)
