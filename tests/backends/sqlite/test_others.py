"""Folders and files of other users: nothing of theirs is written over or removed, and nothing of ours is shown."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from replicator.agent.policy_file import PolicyFile
from replicator.backends.sqlite import copies, litestream_errors
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.grants import Policy
from replicator.backends.sqlite.handles import Untrusted, opened
from replicator.backends.sqlite.layout import purge_folder
from replicator.backends.sqlite.litestream import Binary, CommandLine
from replicator.backends.sqlite.replica import CredentialsRefused, FolderLocation
from replicator.errors import DestinationDenied, PolicyRefused, ReplayRefused, SourceFormat
from replicator.model import Checkpoint, Drain
from replicator.replicator import ReplayProgress, ReplayState, Severity

from tests.backends.sqlite.agents import Agent, caught_up, declare, finished, replica_url
from tests.engines import add_rows, make_database
from tests.waiting import until

OTHER = 65534
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, and is one"),
]


@contextmanager
def as_other() -> Iterator[None]:
    """Be another user of this host."""
    os.setegid(OTHER)
    os.seteuid(OTHER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def lab() -> Iterator[Path]:
    """A folder of root's that everybody may look into."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def shared(lab: Path) -> Path:
    """A folder of another user."""
    folder = lab / "home"
    folder.mkdir(mode=0o755)
    os.chown(folder, OTHER, OTHER)
    return folder


@pytest.fixture
async def point(agent: Agent, lab: Path) -> Checkpoint:
    """The stream `orders`, from a database to a folder; a position of it."""
    database = make_database(lab / "shop.db", rows=20)
    await agent.driver.upsert_stream(declare("orders", database, f"file://{lab}/replica"))
    add_rows(database, 10)
    found = (await caught_up(agent.driver, "orders")).last_checkpoint
    assert found is not None
    return found


async def copy(agent: Agent, point: Checkpoint, target: Path, key: str | None = None) -> ReplayProgress:
    await agent.driver.replay("orders", point, key=key or target.name, target=str(target))
    return await finished(agent.driver, "orders", key or target.name)


async def left_alone(folder: Path, names: set[str]) -> None:
    """Wait until a folder holds these names alone: a replay's end is recorded before its work folder is removed."""

    async def look() -> bool:
        return {path.name for path in folder.iterdir()} == names

    await until(look, what=f"{folder} holds {names or 'nothing'}", timeout=20)


# --- copies ---------------------------------------------------------------------------------------------------------


async def test_a_planted_link_leads_no_copy_to_a_file_of_root(
    agent: Agent, point: Checkpoint, shared: Path, lab: Path, command_line: CommandLine
) -> None:
    victim = lab / "victim"
    victim.write_text("of root alone")
    victim.chmod(0o600)
    with as_other():
        for name in (".copy.db.part.tmp", "naive.db.tmp", "copy.db.tmp"):
            (shared / name).symlink_to(victim)
    with pytest.raises(ReplayRefused) as refused:
        await agent.driver.plan_replay("orders", point, target=str(shared / "copy.db"))
    assert refused.value.property == "target"
    with pytest.raises(ReplayRefused):
        await copy(agent, point, shared / "copy.db")
    assert victim.read_text() == "of root alone"
    await command_line.restore(await replica_url(agent.driver, "orders"), shared / "naive.db")  # the control
    assert victim.read_bytes().startswith(b"SQLite format 3")


async def test_a_folder_that_changes_hands_after_the_plan_gets_no_copy(
    agent: Agent, point: Checkpoint, lab: Path
) -> None:
    folder = lab / "copies"
    folder.mkdir()
    plan = await agent.driver.plan_replay("orders", point, target=str(folder / "copy.db"))
    assert plan.target == str(folder / "copy.db")
    os.chown(folder, OTHER, OTHER)
    with pytest.raises(ReplayRefused), copies.work_folder(folder / "copy.db", "key", "orders"):
        pass
    os.chown(folder, 0, 0)
    folder.rename(lab / "moved")
    (lab / "copies").symlink_to(lab / "moved")
    os.lchown(lab / "copies", OTHER, OTHER)
    with pytest.raises(ReplayRefused), copies.work_folder(folder / "copy.db", "key", "orders"):
        pass
    assert list((lab / "moved").iterdir()) == []


async def test_a_sticky_folder_gets_a_copy_whatever_was_planted(agent: Agent, point: Checkpoint, lab: Path) -> None:
    folder = lab / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    target = folder / "copy.db"
    prefix = copies._prefix(target, "first")
    with as_other():
        (folder / f"{prefix}0000").mkdir(mode=0o777)
        (folder / f"{prefix}1111").symlink_to("/etc")
        (folder / "planted.db").symlink_to(lab / "nothing")
    assert (await copy(agent, point, target, "first")).state is ReplayState.DONE
    assert list((folder / f"{prefix}0000").iterdir()) == []
    with pytest.raises(ReplayRefused, match="exists"):  # a link that leads nowhere is there too
        await copy(agent, point, folder / "planted.db")
    assert not (lab / "nothing").exists()
    await left_alone(folder, {"copy.db", "planted.db", f"{prefix}0000", f"{prefix}1111"})
    assert await content_hash(target) == await content_hash(lab / "shop.db")


async def test_a_link_of_another_user_decides_not_where_a_copy_goes(
    agent: Agent, point: Checkpoint, lab: Path, shared: Path
) -> None:
    """Neither in what is asked for, nor in what is granted."""
    (lab / "copies").mkdir()
    (lab / "way-in").symlink_to(lab / "copies")
    with as_other():
        (shared / "theirs").symlink_to(lab / "copies")
    for attempt in (agent.driver.plan_replay, partial(agent.driver.replay, key="theirs")):
        with pytest.raises(ReplayRefused, match="another user may write to the folder"):
            await attempt("orders", point, target=f"{shared}/theirs/copy.db")
    plan = await agent.driver.plan_replay(
        "orders", point, target=f"{lab}/way-in/copy.db"
    )  # the control: a link of ours
    assert plan.target == f"{lab}/copies/copy.db"
    granted = Policy.model_validate({"replay": [{"folder": f"{shared}/theirs"}]})
    assert not granted.grants_copy(lab / "copies" / "copy.db")
    granted = Policy.model_validate({"replay": [{"folder": f"{lab}/way-in"}]})
    assert granted.grants_copy(lab / "copies" / "copy.db")
    assert not granted.grants_copy(shared / "theirs" / "copy.db")


async def test_what_a_policy_does_not_grant_is_not_told_of(
    binary: Binary, short_folder: Path, lab: Path, shared: Path
) -> None:
    with as_other():
        (shared / "theirs").symlink_to(lab)
    agent = await restricted(binary, short_folder, lab)
    try:
        await replicating(agent, lab)
        start = Checkpoint(wall=datetime.now(UTC))
        for target in (f"{shared}/theirs/copies/x.db", f"{lab}/nowhere/x.db", f"{lab}/copies/../shop.db"):
            with pytest.raises(PolicyRefused):
                await agent.driver.plan_replay("orders", start, target=target)
    finally:
        await agent.stop()


async def test_a_grant_that_is_taken_back_while_a_copy_is_written_counts(
    binary: Binary, short_folder: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await restricted(binary, short_folder, lab)
    policy, restore = short_folder / "policy.toml", CommandLine.restore

    async def meanwhile(*arguments: Any, **given: Any) -> Any:
        restored = await restore(*arguments, **given)
        policy.write_text(policy.read_text().replace(f'folder = "{lab}/copies"', 'folder = "/nowhere"'))
        return restored

    monkeypatch.setattr(CommandLine, "restore", meanwhile)
    try:
        point = await replicating(agent, lab)
        ended = await copy(agent, point, lab / "copies" / "copy.db")
        assert (ended.state, "the agent's policy grants no copy at" in str(ended.error)) == (ReplayState.FAILED, True)
        await left_alone(lab / "copies", set())
    finally:
        await agent.stop()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("ending", ["-wal", "-journal"])
async def test_what_comes_beside_a_copy_in_a_sticky_folder_makes_it_fail(
    agent: Agent, point: Checkpoint, lab: Path, monkeypatch: pytest.MonkeyPatch, ending: str, when: str
) -> None:
    """SQLite would read the changes of another user into the copy."""
    folder = lab / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    link = os.link

    def plant(*arguments: Any, **given: Any) -> None:
        def theirs() -> None:
            with as_other():
                (folder / f"copy.db{ending}").write_text("planted")

        if when == "before":
            theirs()
        link(*arguments, **given)
        if when == "after":
            theirs()

    monkeypatch.setattr(os, "link", plant)
    ended = await copy(agent, point, folder / "copy.db")
    assert ended.state is ReplayState.FAILED
    assert "SQLite would read it into the copy" in str(ended.error)
    await left_alone(folder, {f"copy.db{ending}"})


async def restricted(binary: Binary, folder: Path, lab: Path) -> Agent:
    """An agent that runs, and whose policy grants copies below `copies` alone."""
    (lab / "copies").mkdir()
    policy = folder / "policy.toml"
    tables = [("source", "folder", lab), ("destination", "uri", f"file://{lab}"), ("replay", "folder", lab / "copies")]
    policy.write_text("\n".join(f'[[{table}]]\n{key} = "{value}"' for table, key, value in tables))
    agent = Agent(binary.path, folder, {}, PolicyFile(policy))
    await agent.start()
    return agent


async def replicating(agent: Agent, lab: Path) -> Checkpoint:
    """The newest position of the stream `orders`, which is made."""
    database = make_database(lab / "shop.db", rows=20)
    await agent.driver.upsert_stream(declare("orders", database, f"file://{lab}/replica"))
    found = (await caught_up(agent.driver, "orders")).last_checkpoint
    assert found is not None
    return found


@pytest.mark.parametrize(("mode", "owner"), [(0o600, 0), (0o640, OTHER), (0o660, OTHER), (0o644, 0)])
async def test_a_copy_has_the_mode_and_the_owner_of_its_source(
    agent: Agent, point: Checkpoint, lab: Path, mode: int, owner: int
) -> None:
    source = lab / "shop.db"
    source.chmod(mode)
    os.chown(source, owner, owner)
    before = os.umask(0o022)
    try:
        assert (await copy(agent, point, lab / "copy.db")).state is ReplayState.DONE
    finally:
        os.umask(before)
    info = (lab / "copy.db").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (mode, owner, owner)


async def test_a_copy_of_what_is_gone_is_for_its_user_alone(agent: Agent, point: Checkpoint, lab: Path) -> None:
    (lab / "shop.db").unlink()
    assert (await copy(agent, point, lab / "copy.db")).state is ReplayState.DONE
    assert (lab / "copy.db").stat().st_mode & 0o777 == 0o600


async def test_nobody_looks_into_a_copy_while_it_is_written(
    agent: Agent, point: Checkpoint, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[str], bool]] = []
    publish = copies.Work.publish

    def look(work: copies.Work, source: Path) -> None:
        folders = [path for path in lab.iterdir() if path.name.startswith(".replay-")]
        seen.extend(
            (path.stat().st_mode & 0o777, [item.name for item in path.iterdir()], work.target.exists())
            for path in folders
        )
        publish(work, source)

    monkeypatch.setattr(copies.Work, "publish", look)
    await copy(agent, point, lab / "copy.db")
    assert seen == [(0o700, [copies.NAME], False)]
    await left_alone(lab, {path.name for path in lab.iterdir() if not path.name.startswith(".replay-")})


def test_a_copy_that_was_cut_off_after_its_publication_is_found(lab: Path) -> None:
    target, source = lab / "copy.db", make_database(lab / "shop.db")
    for again in range(2):
        with copies.work_folder(target, "key", "orders") as work:
            assert work.is_published() is bool(again)
            if not again:
                shutil.copy(source, work.path / copies.NAME)
                work.publish(source)
    target.unlink()
    target.write_text("somebody's")
    with copies.work_folder(target, "key", "orders") as work:
        assert not work.is_published()
        shutil.copy(source, work.path / copies.NAME)
        with pytest.raises(ReplayRefused, match="appeared meanwhile"):
            work.publish(source)
        (work.path / copies.NAME).unlink()
        (work.path / copies.NAME).symlink_to(source)
        with pytest.raises(OSError, match="symbolic links"):
            work.publish(source)
    assert target.read_text() == "somebody's"
    copies.tidy(target, "key")
    assert {path.name for path in lab.iterdir() if path.name.startswith(".replay")} == set()


# --- purges ---------------------------------------------------------------------------------------------------------


def replica_of_another(folder: Path) -> Path:
    """A file with a name of the engine's own."""
    file = folder / "ltx" / "0" / "0000000000000001-0000000000000001.ltx"
    file.parent.mkdir(parents=True)
    file.write_text("the only backup of somebody")
    return file


async def test_a_parent_that_was_swapped_leads_no_purge_to_another_replica(
    agent: Agent, lab: Path, shared: Path
) -> None:
    database = make_database(lab / "shop.db", rows=5)
    victim = replica_of_another(lab / "victim" / "orders")
    with as_other():
        (shared / "backups").mkdir()
    stream = declare("orders", database, f"file://{shared}/backups/orders", purgeDestination=True)
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    with as_other():
        (shared / "backups").rename(shared / "aside")
        (shared / "backups").symlink_to(lab / "victim")
    with pytest.raises(DestinationDenied) as refused:
        await agent.driver.delete_stream("orders", owner=None if stream.owner is None else stream.owner)
    assert "is a symbolic link, and another user may write to its folder" in refused.value.message
    assert victim.read_text() == "the only backup of somebody"
    assert {path.name for path in victim.parents[2].iterdir()} == {"ltx"}
    handle = os.open(shared / "backups" / "orders", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        assert purge_folder(handle).removed == 1  # the control: the last name alone is no link
    finally:
        os.close(handle)
    assert not victim.exists()


async def test_a_purge_removes_the_engines_names_and_names_the_rest(
    agent: Agent, lab: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database, folder = make_database(lab / "shop.db", rows=5), lab / "replica"
    stream = declare("orders", database, f"file://{folder}", purgeDestination=True)
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    outside = replica_of_another(lab / "elsewhere")
    (folder / "ltx" / "3").symlink_to(outside.parent)
    for name in ("photos/2026/a.ltx", "ltx/0/notes.txt", "0000000000000001-0000000000000001.ltx"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of others")
    await agent.driver.delete_stream("orders", owner=stream.owner)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
    assert left == {"photos/2026/a.ltx", "ltx/0/notes.txt", "0000000000000001-0000000000000001.ltx", "ltx/3"}
    assert outside.exists()
    assert all(name in caplog.text for name in left)


async def test_a_replica_behind_a_link_of_others_is_refused_with_the_uri_to_write(
    agent: Agent, lab: Path, shared: Path
) -> None:
    """As after an upgrade: an older release followed the link."""
    database = make_database(lab / "shop.db", rows=5)
    (lab / "disk").mkdir()
    with as_other():
        (shared / "backups").symlink_to(lab / "disk")
    linked = declare("orders", database, f"file://{shared}/backups/orders")
    (found,) = [item for item in await agent.driver.preflight(linked) if item.severity is Severity.ERROR]
    with pytest.raises(DestinationDenied) as refused:
        await agent.driver.upsert_stream(linked)
    for error in (refused.value, found.error("orders")):
        assert error.property == "destination.uri"
        assert "is a symbolic link, and another user may write to its folder" in error.message
        assert error.fix == f"write file://{lab}/disk/orders, if this is the folder that is meant"
    await agent.driver.upsert_stream(declare("orders", database, f"file://{lab}/disk/orders"))
    await caught_up(agent.driver, "orders")


async def test_a_folder_that_may_not_be_written_is_told_as_one(lab: Path) -> None:
    (lab / "closed").mkdir(mode=0o755)
    with as_other(), pytest.raises(CredentialsRefused) as refused:
        await FolderLocation(lab / "closed" / "orders").create_object("claim.json", b"{}", None)
    told = litestream_errors.of_replica(refused.value, "orders")
    assert told.property == "destination.uri"
    assert "key" not in str(told)


async def test_a_claim_follows_no_link_of_others(lab: Path, shared: Path) -> None:
    (lab / "victim").mkdir()
    with as_other():
        (shared / "backups").symlink_to(lab / "victim")
    place = FolderLocation(shared / "backups" / "orders")
    for attempt in (
        place.create_object("claim.json", b"{}", None),
        place.write_object("claim.json", b"{}", None),
        place.read_object("claim.json", None),
        place.remove_object("claim.json", None),
        place.purge_prefix(None),
    ):
        with pytest.raises(CredentialsRefused):
            await attempt
    assert list((lab / "victim").iterdir()) == []


def test_links_of_root_are_followed(lab: Path) -> None:
    (lab / "disk" / "a").mkdir(parents=True)
    (lab / "short").symlink_to("disk/../disk")
    (lab / "absolute").symlink_to(lab / "short" / "a")
    for path in ("short/a", "absolute"):
        with opened(lab / path) as folder:
            assert os.fstat(folder).st_ino == (lab / "disk" / "a").stat().st_ino
    (lab / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"), opened(lab / "loop"):
        pass
    os.lchown(lab / "short", OTHER, OTHER)
    with pytest.raises(Untrusted), opened(lab / "short" / "a"):
        pass


# --- sources --------------------------------------------------------------------------------------------------------


async def test_an_empty_file_stays_empty(agent: Agent, lab: Path) -> None:
    empty = lab / "shop.db"
    empty.touch()
    stream = declare("orders", empty, f"file://{lab}/replica", drainBeforeDelete=Drain.SKIP)
    found = await agent.driver.preflight(stream)
    assert [(item.code, item.property) for item in found if item.severity is Severity.ERROR] == [
        ("RPL-SOURCE-FORMAT", "source.uri")
    ]
    with pytest.raises(SourceFormat):
        await agent.driver.upsert_stream(stream)
    assert empty.read_bytes() == b""
    assert not (lab / "replica").exists()
    make_database(lab / "full.db")
    shutil.copy(lab / "full.db", empty)
    await agent.driver.upsert_stream(stream)  # the control
