"""Facts, checkpoints and hashes of SQLite files."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from replicator.backends.sqlite.database import (
    DatabaseForbidden,
    DatabaseLocked,
    DatabaseMissing,
    NotADatabase,
    checkpoint_truncate,
    content_hash,
    inspect,
)

from tests.engines import add_rows, make_database


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_database(tmp_path / "app.db", rows=3)


def sql(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


async def test_facts_of_a_database(database: Path) -> None:
    facts = await inspect(database)
    assert (facts.is_sqlite, facts.journal_mode, facts.readable, facts.writable) == (True, "wal", True, True)
    assert (facts.inode, facts.size) == (database.stat().st_ino, database.stat().st_size)


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
async def test_a_rollback_journal_is_seen(tmp_path: Path, mode: str) -> None:
    facts = await inspect(make_database(tmp_path / "app.db", journal_mode=mode))
    assert (facts.is_sqlite, facts.journal_mode) == (True, "rollback")


async def test_a_swapped_file_has_another_inode(database: Path) -> None:
    before = await inspect(database)
    shutil.copy(database, database.with_suffix(".new"))
    database.with_suffix(".new").replace(database)
    after = await inspect(database)
    assert before.size == after.size and before.inode != after.inode


async def test_an_empty_file_is_a_database_without_tables(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert (await inspect(tmp_path / "empty")).is_sqlite
    assert await checkpoint_truncate(tmp_path / "empty")


async def test_each_kind_of_wrong_file_has_its_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but longer than a header" * 10)
    (tmp_path / "broken").write_bytes(b"SQLite format 3\0" + os.urandom(4096))
    assert not (await inspect(tmp_path / "text")).is_sqlite
    for action in (inspect, checkpoint_truncate, content_hash):
        with pytest.raises(DatabaseMissing, match="none"):
            await action(tmp_path / "none")
        with pytest.raises(DatabaseMissing):
            await action(tmp_path / "text" / "below")
        with pytest.raises(NotADatabase):
            await action(tmp_path)
    for action in (checkpoint_truncate, content_hash):
        for name in ("text", "broken"):
            with pytest.raises(NotADatabase):
                await action(tmp_path / name)


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that everybody may enter, while we are a user without rights (or ourselves, where we are one)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        ours = make_database(Path(folder) / "ours.db", journal_mode="delete")
        ours.chmod(0o444)
        hidden = make_database(Path(folder) / "hidden.db", journal_mode="delete")
        hidden.chmod(0)
        closed = Path(folder) / "closed"
        make_database(closed / "app.db")
        closed.chmod(0o600 if os.geteuid() else 0o700)
        Path(folder).chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)
            Path(folder).chmod(0o755)
            closed.chmod(0o755)


async def test_missing_permissions_are_told_apart(as_nobody: Path) -> None:
    facts = await inspect(as_nobody / "ours.db")
    assert (facts.is_sqlite, facts.readable, facts.writable) == (True, True, False)
    hidden = await inspect(as_nobody / "hidden.db")
    assert (hidden.is_sqlite, hidden.journal_mode, hidden.readable) == (False, None, False)
    with pytest.raises(DatabaseForbidden, match="may not be read"):
        await content_hash(as_nobody / "hidden.db")
    with pytest.raises(DatabaseForbidden, match="may not be written"):
        await checkpoint_truncate(as_nobody / "ours.db")
    with pytest.raises(DatabaseForbidden):
        await inspect(as_nobody / "closed" / "app.db")
    assert await content_hash(as_nobody / "ours.db")


async def test_a_checkpoint_empties_the_wal(database: Path) -> None:
    with closing(sqlite3.connect(database)) as app:
        app.execute("INSERT INTO item (value) VALUES ('new')")
        app.commit()
        wal = database.with_name("app.db-wal")
        assert wal.stat().st_size > 0
        assert await checkpoint_truncate(database)
        assert wal.stat().st_size == 0


async def test_a_reader_in_a_transaction_prevents_the_checkpoint(database: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM item").fetchone()
        add_rows(database)
        assert not await checkpoint_truncate(database, within=0.1)
        reader.execute("COMMIT")
        assert await checkpoint_truncate(database, within=0.1)


async def test_an_open_write_transaction_prevents_the_checkpoint(database: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO item (value) VALUES ('pending')")
        assert not await checkpoint_truncate(database, within=0.1)


async def test_a_rollback_database_has_nothing_to_lose(tmp_path: Path) -> None:
    path = make_database(tmp_path / "app.db", journal_mode="delete")
    assert await checkpoint_truncate(path)
    assert (await inspect(path)).journal_mode == "rollback"


async def test_an_exclusive_lock_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = make_database(tmp_path / "app.db", journal_mode="delete")
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("PRAGMA locking_mode=EXCLUSIVE")
        owner.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseLocked):
            await checkpoint_truncate(path, within=0.1)


async def test_copies_have_one_hash_however_their_pages_lie(database: Path, tmp_path: Path) -> None:
    sql(database, "DELETE FROM item WHERE id = 2", "CREATE INDEX by_value ON item (value)")
    expected = await content_hash(database)
    sql(database, f"VACUUM INTO '{tmp_path}/copy.db'")
    sql(database, "PRAGMA journal_mode=delete")
    assert database.read_bytes() != (tmp_path / "copy.db").read_bytes()
    assert await content_hash(tmp_path / "copy.db") == expected == await content_hash(database)


async def test_rows_in_the_wal_count(database: Path) -> None:
    before = await content_hash(database)
    with closing(sqlite3.connect(database)) as app:
        app.execute("INSERT INTO item (value) VALUES ('new')")
        assert await content_hash(database) == before  # not committed
        app.commit()
        assert await content_hash(database) != before


async def test_the_engines_own_tables_do_not_count(database: Path) -> None:
    before = await content_hash(database)
    sql(database, "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)")
    sql(database, "INSERT INTO _litestream_seq VALUES (1, 7)")
    assert await content_hash(database) == before
    sql(database, "CREATE TABLE xlitestreamxseq (id INTEGER)")
    assert await content_hash(database) != before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE item SET value = 'x' WHERE id = 1",
        "UPDATE item SET value = NULL WHERE id = 1",
        "UPDATE item SET value = '' WHERE id = 1",
        "UPDATE item SET value = CAST(value AS BLOB) WHERE id = 1",
        "UPDATE item SET id = 9 WHERE id = 3",
        "DELETE FROM item WHERE id = 1",
        "CREATE TABLE more (x)",
        "CREATE INDEX by_value ON item (value)",
        "ALTER TABLE item RENAME COLUMN value TO text",
    ],
)
async def test_every_difference_changes_the_hash(database: Path, statement: str) -> None:
    before = await content_hash(database)
    sql(database, statement)
    assert await content_hash(database) != before


async def test_types_of_equal_looking_values_are_told_apart(tmp_path: Path) -> None:
    hashes = set()
    for number, value in enumerate(["1", "1.0", "'1'", "x'31'", "NULL", "''", "x''"]):
        path = sql(tmp_path / f"{number}.db", "CREATE TABLE t (v)", f"INSERT INTO t VALUES ({value})")
        hashes.add(await content_hash(path))
    assert len(hashes) == 7


async def test_values_do_not_run_into_each_other(tmp_path: Path) -> None:
    one = sql(tmp_path / "1.db", "CREATE TABLE t (a, b)", "INSERT INTO t VALUES ('ab', 'c')")
    two = sql(tmp_path / "2.db", "CREATE TABLE t (a, b)", "INSERT INTO t VALUES ('a', 'bc')")
    assert await content_hash(one) != await content_hash(two)


async def test_unusual_tables_are_read(tmp_path: Path) -> None:
    path = sql(
        tmp_path / "odd.db",
        'CREATE TABLE "we""ird name" ("order" TEXT, rowid TEXT, _rowid_, oid)',
        "INSERT INTO \"we\"\"ird name\" VALUES ('b', 'x', 1, 2), ('a', 'y', 3, 4)",
        "CREATE TABLE keyed (b TEXT, a TEXT, v, PRIMARY KEY (a, b)) WITHOUT ROWID",
        "INSERT INTO keyed VALUES ('1', '2', 3), ('0', '3', 4)",
        "CREATE TABLE serial (id INTEGER PRIMARY KEY AUTOINCREMENT, twice AS (id * 2))",
        "INSERT INTO serial DEFAULT VALUES",
        "CREATE TABLE latin (v TEXT)",
        "INSERT INTO latin VALUES (CAST(x'ff00fe' AS TEXT))",
        "CREATE VIRTUAL TABLE search USING fts5 (body)",
        "INSERT INTO search VALUES ('hello world')",
        "CREATE VIEW v AS SELECT * FROM keyed",
        "CREATE TRIGGER tr AFTER INSERT ON serial BEGIN SELECT 1; END",
    )
    before = await content_hash(path)
    assert await content_hash(path) == before
    seen = {before}
    for statement in (
        'UPDATE "we""ird name" SET oid = 5 WHERE rowid = \'x\'',
        "UPDATE keyed SET v = 9 WHERE a = '2'",
        "INSERT INTO search VALUES ('more')",
        "UPDATE latin SET v = CAST(x'ff00fd' AS TEXT)",
        "INSERT INTO serial DEFAULT VALUES",
    ):
        sql(path, statement)
        seen.add(await content_hash(path))
    assert len(seen) == 6
