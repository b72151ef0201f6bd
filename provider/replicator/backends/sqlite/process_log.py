"""The output of a litestream process, and the lines of it that are about one database.

litestream names a database by its file name alone, in the field `db`; a few lines have its path in `path`, `dbs` or an
error. (Seen on 0.5.17.) Databases of one process may share a file name. So a line gets the whole path before it is
kept, as long as it is known which databases the process has.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from replicator.backends.shared.log_bounds import fitting_first, fitting_last
from replicator.replicator import LogLines

ANEW = "the agent or the stream's litestream process was started again, and the log begins again"
LOST = "the agent did not keep all lines"

_EXPECTED = '"msg":"no databases specified in configuration"'
"""litestream calls it an error. The agent registers databases over the control socket, so a start has none."""
_DB = re.compile(r'"db":("(?:[^"\\]|\\.)*")')
_CURSOR = re.compile(r"([0-9a-f]*)\.([0-9]{1,18})\.([0-9]{1,20})\.([0-9]{1,18})")
_READ_MOST = 1024 * 1024  # bytes of a log file that are read at once


class Position(NamedTuple):
    """A position between two lines.

    :param log: the id of the log in memory; empty for one in a file alone.
    :param number: how many lines of the log in memory are before it.
    :param inode: of the log's file.
    :param offset: in that file, in bytes.
    """

    log: str
    number: int
    inode: int
    offset: int

    def cursor(self) -> str:
        """Return it as text."""
        return ".".join(map(str, self))

    @classmethod
    def parse(cls, cursor: str) -> Position:
        """Return the position of a cursor. Text that is none is a position in an unknown log."""
        found = _CURSOR.fullmatch(cursor)
        return cls(found[1], int(found[2]), int(found[3]), int(found[4])) if found else cls("", 0, 0, 0)


class KeptLine(NamedTuple):
    """A line of a log, and the position after it."""

    text: str
    after: Position


class KeptLines(Protocol):
    """The last lines of a process's output, in memory.

    :ivar end: the position after the last one.
    """

    end: Position

    def lines(self) -> list[KeptLine]:
        """Return the lines, oldest first."""


class LineFilter:
    """Chooses the lines about one database, and those that name none.

    :param database: the database.
    :param others: paths that belong to other streams.
    """

    def __init__(self, database: Path, others: Collection[Path]) -> None:
        self._database = database
        self._own = _escaped(database)
        self._others = [_escaped(path) for path in others]

    def shows(self, line: str) -> bool:
        """Tell whether a line is about the database, or names no database."""
        if _EXPECTED in line:
            return False
        named = _named(line)
        if named is not None:
            return named == str(self._database)
        if '"dbs":[' in line:
            return f'"{self._own}"' in line
        rest = line.replace(self._own, "")
        # A path of another stream may be a part of the own one.
        return not any(other in (rest if other in self._own else line) for other in self._others)

    def is_unclear(self, line: str) -> bool:
        """Tell whether a line names a database with the same file name, of which the path is not known."""
        return _named(line) == self._database.name


def with_path(line: str, databases: Callable[[str], Mapping[Path, Collection[Path]]]) -> str:
    """Return a line with the path of its database in `db`, if it is clear which database it is.

    :param databases: returns the databases of the process with a file name, each with the paths that belong to it.
    """
    named = _named(line)
    if named is None:
        return line
    found = databases(named)
    meant = list(found)
    if len(meant) > 1:
        meant = [path for path in meant if any(_mentions(line, own) for own in found[path])]
    if len(meant) != 1:
        return line
    return _DB.sub(lambda _: f'"db":"{_escaped(meant[0])}"', line, count=1)


def of_process(
    lines: Sequence[KeptLine], end: Position, after: Position | None, shown: LineFilter, most: int
) -> LogLines:
    """Return lines from the log of a process that is there.

    :param lines: all of them, from one moment.
    :param end: the position after them.
    :param most: how many lines.
    """
    if after is None:
        return _last(lines, end, shown, most)
    if after.log != end.log:
        return _first(lines, Position(end.log, 0, 0, 0), shown, most).model_copy(update={"gap": ANEW})
    kept = [line for line in lines if line.after.number > after.number]
    gap = LOST if kept and kept[0].after.number > after.number + 1 else None
    return _first(kept, after, shown, most).model_copy(update={"gap": gap})


def of_file(path: Path, after: Position | None, shown: LineFilter, most: int) -> LogLines:
    """Return lines from the log file that a process has left, and from the older ones beside it. Raise OSError.

    The file must not grow: a line that is not complete would be cut.
    """
    files = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, 4))]
    found = [(file, file.stat()) for file in files if file.exists()]
    end = Position("", 0, found[0][1].st_ino, found[0][1].st_size) if found else Position("", 0, 0, 0)
    if after is None:
        kept: list[KeptLine] = []
        for file, info in found:
            room = _READ_MOST - sum(len(line.text) for line in kept)
            kept = [*_read(file, info.st_ino, max(0, info.st_size - room)), *kept] if room > 0 else kept
        return _last(kept, end, shown, most)
    inodes = [info.st_ino for _, info in found]
    if after.inode not in inodes:
        first = Position("", 0, inodes[-1], 0) if inodes else end
        return _after(found, first, shown, most).model_copy(update={"gap": ANEW})
    return _after(found, after, shown, most)


def _after(found: Sequence[tuple[Path, os.stat_result]], start: Position, shown: LineFilter, most: int) -> LogLines:
    """Return the first lines after a position.

    :param found: the files, the newest first.
    """
    start = start._replace(log="", number=0)
    kept: list[KeptLine] = []
    oldest = [info.st_ino for _, info in found].index(start.inode) if found else -1
    for file, info in reversed(found[: oldest + 1]):
        offset = start.offset if info.st_ino == start.inode else 0
        kept += _read(file, info.st_ino, offset)
        if info.st_size - offset > _READ_MOST:
            break  # the next call goes on in this file
    return _first(kept, start, shown, most)


def _read(file: Path, inode: int, offset: int) -> list[KeptLine]:
    """Return at most `_READ_MOST` bytes of whole lines of a file from an offset, which may be inside a line."""
    with file.open("rb") as opened:
        opened.seek(max(0, offset - 1))
        if offset:
            offset += len(opened.readline()) - 1  # nothing more than the end of the line before, if it is at its end
        content = opened.read(_READ_MOST)
    kept = []
    for line in content.split(b"\n")[:-1]:
        offset += len(line) + 1
        kept.append(KeptLine(line.decode(errors="replace"), Position("", 0, inode, offset)))
    return kept


def _last(kept: Sequence[KeptLine], end: Position, shown: LineFilter, most: int) -> LogLines:
    matching = [line.text for line in kept if shown.shows(line.text)]
    return LogLines(lines=tuple(fitting_last(matching, most)), cursor=end.cursor(), note=_unclear(kept, shown))


def _first(kept: Sequence[KeptLine], start: Position, shown: LineFilter, most: int) -> LogLines:
    matching = [line for line in kept if shown.shows(line.text)]
    fitting = fitting_first([line.text for line in matching], most)
    end = kept[-1].after if kept else start
    if len(fitting) < len(matching):
        end = matching[len(fitting) - 1].after if fitting else start
    return LogLines(lines=tuple(fitting), cursor=end.cursor(), note=_unclear(kept, shown))


def _unclear(kept: Sequence[KeptLine], shown: LineFilter) -> str | None:
    if any(shown.is_unclear(line.text) for line in kept):
        return "some lines are left out: they name a database by its file name alone, and it may be another one's"
    return None


def _named(line: str) -> str | None:
    """Return what a line has in `db`; `None` without one. The end of a line may have been cut off."""
    found = _DB.search(line) if line.startswith("{") else None
    try:
        return None if found is None else str(json.loads(found[1]))
    except ValueError:
        return ""


def _mentions(line: str, path: Path) -> bool:
    """Tell whether a line has a path, not only a longer one that begins like it."""
    return re.search(re.escape(_escaped(path)) + r"(?![\w.])", line) is not None


def _escaped(path: Path) -> str:
    """Return a path as it is in JSON, without quotes."""
    return json.dumps(str(path), ensure_ascii=False)[1:-1]
