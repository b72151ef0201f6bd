"""Which lines of a litestream process are about one database, and where a cursor leads."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest
from replicator.agent.supervisor import LineLog
from replicator.backends.sqlite.process_log import (
    ANEW,
    LOST,
    KeptLine,
    LineFilter,
    Position,
    of_file,
    of_process,
    with_path,
)
from replicator.replicator import LOG_BYTES, LogLines

A, B, LONGER = Path("/a/app.db"), Path("/b/app.db"), Path("/a/app.db2")
OWNED = {
    A: [A, Path("/a/.app.db-litestream"), Path("/replicas/o")],
    B: [B, Path("/b/.app.db-litestream"), Path("/replicas/or")],
}


def line(text: str, **fields: object) -> str:
    """A line as litestream writes it."""
    made = {"time": "2026-01-31T12:00:00Z", "level": "INFO", "msg": text, "system": "store", **fields}
    return json.dumps(made, separators=(",", ":"), ensure_ascii=False)


def named(*paths: Path) -> Mapping[Path, Collection[Path]]:
    return {path: OWNED[path] for path in paths}


@pytest.mark.parametrize(
    ("databases", "given", "path"),
    [
        ((A,), line("sync error", db="app.db"), "/a/app.db"),
        ((A, B), line("compaction complete", db="app.db"), "app.db"),
        ((A, B), line("monitor error", db="app.db", error="mkdir /replicas/or/ltx: not a directory"), "/b/app.db"),
        ((A, B), line("monitor error", db="app.db", path="/a/.app.db-litestream/ltx/0/1.ltx"), "/a/app.db"),
        ((A, B), line("close failed", db="app.db", error="/a/app.db and /b/app.db"), "app.db"),
        ((), line("late", db="app.db"), "app.db"),
        ((A,), line('it says "db":"x"', db="app.db"), "/a/app.db"),
    ],
)
def test_a_line_gets_the_path_of_its_database_where_that_is_clear(
    databases: tuple[Path, ...], given: str, path: str
) -> None:
    kept = with_path(given, lambda _: named(*databases))
    assert json.loads(kept) == {**json.loads(given), "db": path}


@pytest.mark.parametrize(
    "given",
    [line("starting", path="/x"), "Error: no such file", "", '{"db":"app', '{"db":"\\q"}', '{"msg":"\\"db\\""}'],
)
def test_any_other_line_stays(given: str) -> None:
    assert with_path(given, lambda _: {}) == given


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (line("monitor error", db="/a/app.db"), True),
        (line("monitor error", db="/a/app.db", error="x" * 5000)[:4000] + "…", True),
        (line("monitor error", db="/b/app.db"), False),
        (line("monitor error", db="/b/app.db", error="x" * 5000)[:4000] + "…", False),
        (line("monitor error", db="app.db"), False),
        (line("monitor error", db="/b/app.db", error="not /a/app.db"), False),
        (line("initialized db", path="/a/app.db"), True),
        (line("initialized db", path="/a/app.db2"), False),
        (line("timeout waiting for db initialization", dbs=["/b/app.db", "/a/app.db"]), True),
        (line("timeout waiting for db initialization", dbs=["/a/app.db2"]), False),
        (line("failed to close database", error="sync /b/.app.db-litestream"), False),
        (line("signal received", signal=15), True),
        ("Error: cannot open", True),
        ("not started: /b/app.db is locked", False),
        (line("no databases specified in configuration"), False),  # at each start of a process that gets them later
    ],
)
def test_a_line_is_shown_where_it_names_the_database_or_none(given: str, shown: bool) -> None:
    assert LineFilter(A, [LONGER, *OWNED[B]]).shows(given) is shown


def test_a_path_of_another_stream_that_begins_the_own_one_hides_nothing() -> None:
    shown = LineFilter(LONGER, [A])
    assert shown.shows(line("initialized db", path=str(LONGER)))
    assert not shown.shows(line("initialized db", path=str(A)))


def test_what_is_unclear_is_told() -> None:
    end = Position("log", 1, 1, 1)
    unclear = line("monitor error", db="app.db")
    found = of_process([KeptLine(unclear, end)], end, None, LineFilter(A, [B]), 10)
    assert found.lines == ()
    assert found.note is not None and "by its file name alone" in found.note


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LineLog]:
    made = LineLog(tmp_path / "litestream.log", keep=5, max_bytes=60, backups=3)
    yield made
    made.close()


def read(log: LineLog, after: str | None = None, most: int = 10) -> LogLines:
    position = None if after is None else Position.parse(after)
    return of_process(log.lines(), log.end, position, LineFilter(A, [B]), most)


def test_the_last_lines_and_then_those_after_the_cursor(log: LineLog) -> None:
    for number in range(4):
        log.write(f"line {number}")
    log.write(line("of another", db="/b/app.db"))
    first = read(log, most=2)
    assert first.lines == ("line 2", "line 3")
    assert read(log, first.cursor) == LogLines(lines=(), cursor=first.cursor)
    for number in range(4, 7):
        log.write(f"line {number}")
    some = read(log, first.cursor, most=2)
    assert (some.lines, some.gap) == (("line 4", "line 5"), None)
    rest = read(log, some.cursor)
    assert (rest.lines, rest.gap) == (("line 6",), None)
    assert read(log, rest.cursor, most=0).cursor == rest.cursor


def test_lines_that_are_not_kept_are_told(log: LineLog) -> None:
    cursor = read(log, most=0).cursor
    for number in range(6):
        log.write(f"line {number}")
    found = read(log, cursor)
    assert (found.lines, found.gap) == (tuple(f"line {number}" for number in range(1, 6)), LOST)


@pytest.mark.parametrize("cursor", ["ab.7.1.1", "no cursor", "-1.0.0.0", "empty"])
def test_after_the_cursor_of_another_log_it_begins_with_what_there_is(log: LineLog, cursor: str) -> None:
    log.write("line 0")
    log.write("line 1")
    found = read(log, cursor, most=1)
    assert (found.lines, found.gap) == (("line 0",), ANEW)
    assert (read(log, found.cursor).lines, read(log, found.cursor).gap) == (("line 1",), None)


def test_an_answer_is_bounded_in_bytes(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "litestream.log")
    for number in range(300):
        log.write(f"{number} {'ü' * 2000}")
    log.close()
    newest = read(log, most=1000)
    assert newest.lines[-1].startswith("299 ")
    assert LOG_BYTES - 5000 < sum(len(text.encode()) for text in newest.lines) <= LOG_BYTES
    oldest = read(log, "0.0.0.0", most=1000)
    assert oldest.lines[0].startswith("0 ")
    following = read(log, oldest.cursor, most=1)
    assert following.lines[0].startswith(f"{len(oldest.lines)} ")


def left(folder: Path, after: str | None = None, most: int = 10) -> LogLines:
    position = None if after is None else Position.parse(after)
    return of_file(folder / "litestream.log", position, LineFilter(A, [B]), most)


def test_a_cursor_of_a_process_goes_on_in_the_files_that_it_left(log: LineLog, tmp_path: Path) -> None:
    log.write("line 0")
    cursor = read(log).cursor
    for number in range(1, 20):
        log.write(f"line {number}")
    log.close()
    assert (tmp_path / "litestream.log.2").exists(), "the files have rotated"
    found = left(tmp_path, cursor, most=15)
    assert (found.lines, found.gap) == (tuple(f"line {number}" for number in range(1, 16)), None)
    found = left(tmp_path, found.cursor)
    assert (found.lines, found.gap) == (tuple(f"line {number}" for number in range(16, 20)), None)
    assert left(tmp_path, found.cursor) == LogLines(lines=(), cursor=found.cursor)
    assert left(tmp_path, most=12).lines == tuple(f"line {number}" for number in range(8, 20))


def test_without_the_file_of_the_cursor_the_oldest_one_begins(log: LineLog, tmp_path: Path) -> None:
    log.write("line 0")
    log.close()
    found = left(tmp_path, "ab.7.1.1")
    assert (found.lines, found.gap) == (("line 0",), ANEW)


def test_without_a_file_there_is_no_line(tmp_path: Path) -> None:
    found = left(tmp_path)
    assert (found.lines, found.gap) == ((), None)
    assert left(tmp_path, found.cursor).lines == ()


def test_long_files_are_read_whole_in_several_answers(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "litestream.log", max_bytes=2_000_000)
    cursor = read(log).cursor
    for number in range(3000):
        log.write(f"{number} {'x' * 1000}")
    log.close()
    seen: list[str] = []
    while (found := left(tmp_path, cursor, most=1000)).lines:
        assert found.gap is None
        seen += [text.split()[0] for text in found.lines]
        cursor = found.cursor
    assert seen == [str(number) for number in range(3000)]


def test_an_incomplete_line_waits_for_its_end(tmp_path: Path) -> None:
    (tmp_path / "litestream.log").write_text("line 0\nlin")
    assert left(tmp_path).lines == ("line 0",)
