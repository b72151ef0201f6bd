"""The names that litestream writes at a destination. Everything else there belongs to another writer."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

CLAIM = "replicator-claim.json"
"""The agent's claim on the destination, beside the engine's files."""

_CLAIM = re.compile(rf"{re.escape(CLAIM)}(?:\.[0-9a-f]{{32}})?")  # in a folder, a claim is written beside its place

_GENERATION = r"(?:r[1-9][0-9]*/)?"
_NUMBERED = re.compile(r"r([1-9][0-9]{0,5})")
_FILE = r"[0-9a-f]{16}-[0-9a-f]{16}\.ltx"
_IN_BUCKET = re.compile(rf"{_GENERATION}[0-9a-f]{{4}}/{_FILE}")
_IN_FOLDER = re.compile(rf"{_GENERATION}ltx/[0-9]/{_FILE}(?:\.tmp)?")  # an interrupted write leaves `.tmp`
_FOLDER = re.compile(rf"r[1-9][0-9]*|{_GENERATION}ltx(?:/[0-9])?")
_NAMED = 5
_LEVELS = (9, *range(9))  # snapshots first: one exists soon, and from then on
_FIRST = f"{1:016x}-"


def level_in_bucket(level: int) -> str:
    """Return the prefix of a level's files, below the replica's prefix in a bucket."""
    return f"{level:04x}"


def level_in_folder(level: int) -> str:
    """Return the same prefix below a folder."""
    return f"ltx/{level}"


def generations_among(names: Iterable[str]) -> list[int]:
    """Return the generations that a replica may have, oldest first, from the names of the folders in it."""
    later = {int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name))}
    return sorted({1} | later)


STARTS_IN_BUCKET = tuple(f"{level_in_bucket(level)}/{_FIRST}" for level in _LEVELS)
"""The prefixes of files that start at the first transaction, in a bucket."""

STARTS_IN_FOLDER = tuple(f"{level_in_folder(level)}/{_FIRST}" for level in _LEVELS)
"""The same in a folder."""


@dataclass(frozen=True, slots=True)
class Purged:
    """The result of a purge.

    :param removed: how many files of the engine were removed.
    :param kept: how many other files stay.
    :param named: the first of those, relative to the place.
    """

    removed: int = 0
    kept: int = 0
    named: tuple[str, ...] = ()

    @classmethod
    def of(cls, removed: int, kept: Iterable[str]) -> Purged:
        """Count the files that stay, without the claim, and name the first."""
        names = sorted(name for name in kept if not is_claim(name))
        return cls(removed, len(names), tuple(names[:_NAMED]))

    def __str__(self) -> str:
        more = self.kept - len(self.named)
        return ", ".join(self.named) + (f" and {more} more" if more else "")


def is_claim(name: str) -> bool:
    """Tell whether a name, relative to the prefix or the folder, is a claim, or one that is being written."""
    return _CLAIM.fullmatch(name) is not None


def in_bucket(name: str) -> bool:
    """Tell whether the engine writes this name, relative to the prefix, in a bucket."""
    return _IN_BUCKET.fullmatch(name) is not None


def purge_folder(root: int) -> Purged:
    """Remove the engine's files and the folders that become empty. Follow no link. Raise OSError.

    :param root: the descriptor of the replica's folder, which stays.
    """
    removed, kept = 0, list[str]()
    for name, handle in _below(root):
        base = name.rpartition("/")[2]
        with suppress(FileNotFoundError):  # another process removed it since the listing
            mode = os.stat(base, dir_fd=handle, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                if _FOLDER.fullmatch(name):
                    with suppress(OSError):  # another writer's file is in it
                        os.rmdir(base, dir_fd=handle)
            elif stat.S_ISREG(mode) and _IN_FOLDER.fullmatch(name):
                os.unlink(base, dir_fd=handle)
                removed += 1
            else:
                kept.append(name)
    return Purged.of(removed, kept)


def _below(root: int) -> Iterator[tuple[str, int]]:
    """Yield each entry below a folder with the handle of its parent, and the content of a folder before the folder."""
    for path, folders, files, handle in os.fwalk(
        ".", topdown=False, onerror=_raise, follow_symlinks=False, dir_fd=root
    ):
        parent = path.removeprefix(".").removeprefix("/")
        for base in (*files, *folders):
            yield f"{parent}/{base}" if parent else base, handle


def _raise(error: OSError) -> None:
    raise error
