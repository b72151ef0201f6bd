"""Destinations: their grammar, and listing and purging them on a real server and in real folders."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from replicator.backends.sqlite import replica
from replicator.backends.sqlite.layout import Purged
from replicator.backends.sqlite.litestream import Binary, CommandLine
from replicator.backends.sqlite.replica import (
    BucketMissing,
    CredentialsRefused,
    FolderLocation,
    PrefixContents,
    PurgeRefused,
    ReplicaUnreachable,
    S3Credentials,
    S3Location,
    engine_environment,
    parse_replica,
)

from tests.engines import S3Server, free_ports, make_database

EMPTY = PrefixContents(objects=0, newest_txid=None, newest_time=None)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/app", S3Location("bucket", "app")),
        ("s3://bucket/a/b/?region=eu-west-1", S3Location("bucket", "a/b", region="eu-west-1")),
        (
            "s3://bucket/a?endpoint=http://127.0.0.1:9000/&region=us-east-1&force-path-style=true",
            S3Location("bucket", "a", "http://127.0.0.1:9000", "us-east-1"),
        ),
        ("s3://bucket/a?endpoint=https%3A%2F%2Fs3.example.org", S3Location("bucket", "a", "https://s3.example.org")),
        ("file:///data/replica/", FolderLocation(Path("/data/replica"))),
    ],
)
def test_destinations_are_parsed_and_their_url_reads_the_same(uri: str, expected: S3Location | FolderLocation) -> None:
    location = parse_replica(uri)
    assert location == expected
    assert parse_replica(location.url_for_engine()) == location
    assert str(location) == uri.partition("?")[0].rstrip("/")


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("s3://bucket", "prefix"),
        ("s3://bucket/", "prefix"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/../b", "prefix"),
        ("s3://bucket/a b", "spaces"),
        (" s3://bucket/a", "spaces"),
        ("s3://bucket/a%20b", "prefix"),
        ("s3://bucket/$HOME", "prefix"),
        ("s3://bucket/a'b", "prefix"),
        ("s3://bucket/a\nb", "control"),
        ("s3://B/a", "bucket"),
        ("s3:///a", "bucket"),
        ("s3://key:hunter2@bucket/a", "authRef"),
        ("s3://bucket/a#b", "#"),
        ("s3://bucket/a?secret-access-key=hunter2", "secret-access-key"),
        ("s3://bucket/a?endpoint=ftp://x", "endpoint"),
        ("s3://bucket/a?endpoint=http://user:hunter2@x", "endpoint"),
        ("file://host/a", "file:///absolute"),
        ("file:///", "folder"),
        ("file:///a/../b", "folder"),
        ("file:///a b", "spaces"),
        ("file:///a%20b", "folder"),
        ("ftp://host/a", "s3://"),
        ("/data", "s3://"),
    ],
)
def test_other_destinations_are_refused_without_repeating_a_secret(uri: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_replica(uri)
    assert "hunter2" not in str(caught.value)


def test_a_child_lies_below() -> None:
    place = parse_replica("s3://bucket/a?endpoint=http://127.0.0.1:9&region=r")
    assert place.child("r2").url_for_engine() == "s3://bucket/a/r2?endpoint=http://127.0.0.1:9&region=r"
    assert str(parse_replica("file:///data/a").child("r2/x")) == "file:///data/a/r2/x"
    for bad in ("", "..", "a b", "/"):
        with pytest.raises(ValueError, match="prefix or folder"):
            place.child(bad)


def test_credentials_do_not_show_in_a_repr() -> None:
    assert "hunter2" not in repr(S3Credentials("hunter2", "hunter2"))


@pytest.mark.engine
async def test_the_newest_transaction_of_each_kind_of_place(
    location: S3Location,
    folder_location: FolderLocation,
    credentials: S3Credentials,
    command_line: CommandLine,
    tmp_path: Path,
) -> None:
    database = make_database(tmp_path / "app.db")
    for place in (location, folder_location):
        assert await place.list_prefix(credentials) == EMPTY
        await command_line.reset(database)
        await command_line.replicate_once(database, place.url_for_engine(), force_snapshot=False)
        contents = await place.list_prefix(credentials)
        assert (contents.objects, contents.newest_txid) == (1, 1)
        (file,) = await command_line.ltx(place.url_for_engine())
        assert contents.newest_time is not None
        assert abs((contents.newest_time - file.created).total_seconds()) < 5


LTX = "0000000000000001-000000000000000a.ltx"
FOREIGN = ("notes.txt", "0000/notes.txt", "ltx/notes.txt", f"backup/{LTX}", f"r0/0000/{LTX}", f"r2/x/0000/{LTX}", LTX)


@pytest.mark.engine
async def test_a_purge_deletes_what_the_engine_wrote_below_the_prefix(
    s3: S3Server, location: S3Location, credentials: S3Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "_BATCH", 2)
    prefix = location.prefix
    written = [f"{prefix}/{part}{level}/{LTX}" for part in ("", "r2/", "r17/") for level in ("0000", "0009")]
    foreign = [f"{prefix}/{name}" for name in FOREIGN]
    beside = [f"{prefix}-other/0000/{LTX}", f"{prefix.rpartition('/')[0]}/neighbour-{prefix[-8:]}/0000/{LTX}"]
    with contextlib.closing(s3.client()) as client:
        for key in written + foreign + beside:
            client.put_object(Bucket=location.bucket, Key=key, Body=b"x")
        purged = await location.purge_prefix(credentials)
        assert (purged.removed, purged.kept) == (len(written), len(foreign))
        assert str(purged) == f"{', '.join(sorted(FOREIGN)[:5])} and 2 more"
        assert sorted(s3.keys(location.bucket, f"{prefix}/")) == sorted(foreign)
        assert (await location.purge_prefix(credentials)).removed == 0
        for key in beside:
            client.head_object(Bucket=location.bucket, Key=key)
    with pytest.raises(PurgeRefused):
        await S3Location(location.bucket, "", location.endpoint, location.region).purge_prefix(credentials)


async def test_a_folder_keeps_what_the_engine_did_not_write(tmp_path: Path) -> None:
    place = FolderLocation(tmp_path / "a")
    assert await place.purge_prefix(None) == Purged()
    outside = tmp_path / "outside"
    written = [f"a/ltx/0/{LTX}", f"a/ltx/9/{LTX}.tmp", f"a/r2/ltx/1/{LTX}"]
    foreign = ["a/notes.txt", "a/ltx/1/notes.txt", f"a/0000/{LTX}", f"a/r2/x/ltx/0/{LTX}"]
    for name in (*written, *foreign, "ab/z", f"outside/ltx/0/{LTX}", f"outside/{LTX}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "a" / "empty").mkdir()
    links = {
        "a/link": "outside",
        "a/r3": "outside",
        "a/ltx/8": "outside/ltx/0",
        f"a/ltx/0/{'f' * 16}-{'f' * 16}.ltx": "",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(outside / LTX if not target else tmp_path / target)
    purged = await place.purge_prefix(None)
    assert (purged.removed, purged.kept) == (len(written), len(foreign) + len(links))
    assert all((tmp_path / name).is_symlink() for name in links)
    assert all((tmp_path / name).exists() for name in foreign) and (tmp_path / "a" / "empty").exists()
    assert (outside / LTX).exists() and (outside / "ltx" / "0" / LTX).exists() and (tmp_path / "ab" / "z").exists()
    assert not (tmp_path / "a" / "ltx" / "9").exists() and not (tmp_path / "a" / "r2" / "ltx").exists()


async def test_a_folder_with_nothing_else_in_it_goes(tmp_path: Path) -> None:
    for name in (f"a/ltx/0/{LTX}", f"a/r2/ltx/1/{LTX}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert (await FolderLocation(tmp_path / "a").purge_prefix(None)).removed == 2
    assert not (tmp_path / "a").exists()


async def test_folders_that_hold_more_than_a_replica_are_not_purged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "users" / "me"
    home.mkdir(parents=True)
    (home / "file").touch()
    monkeypatch.setenv("HOME", str(home))
    link = tmp_path / "link"
    link.symlink_to(home)
    real = tmp_path / "real"
    (real / "below").mkdir(parents=True)
    other = tmp_path / "other"
    other.symlink_to(real)
    for folder in (Path("/"), Path("/usr"), home, home.parent, link, other):
        with pytest.raises(PurgeRefused):
            await FolderLocation(folder).purge_prefix(None)
    assert (home / "file").exists() and (real / "below").exists()


@pytest.mark.engine
async def test_refusals_are_told_apart(s3: S3Server, location: S3Location, credentials: S3Credentials) -> None:
    with pytest.raises(BucketMissing, match="nobody"):
        await S3Location("nobody-made-it", "a", location.endpoint, location.region).list_prefix(credentials)
    stranger = S3Credentials(s3.stranger.access_key_id, s3.stranger.secret_access_key)
    wrong = S3Credentials(credentials.access_key_id, "wrong-secret")
    for identity, code in ((stranger, "AccessDenied"), (wrong, "SignatureDoesNotMatch")):
        for action in (location.list_prefix, location.purge_prefix):
            with pytest.raises(CredentialsRefused, match=code) as caught:
                await action(identity)
            assert "wrong-secret" not in str(caught.value)
    with pytest.raises(CredentialsRefused, match="InvalidAccessKeyId"):
        await location.list_prefix(S3Credentials("unknown", "unknown"))
    (port,) = free_ports(1)
    with pytest.raises(ReplicaUnreachable, match=str(port)):
        await S3Location("lab", "a", f"http://127.0.0.1:{port}", "us-east-1").list_prefix(credentials)


@pytest.mark.engine
async def test_our_environment_is_not_used(
    location: S3Location, credentials: S3Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/bundle.pem")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert await location.list_prefix(credentials) == EMPTY


@pytest.mark.engine
async def test_without_credentials_we_and_the_engine_are_the_same_role(
    s3: S3Server, location: S3Location, binary: Binary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two simple keys in a shared file, and another pair in the environment that must not win.
    file = tmp_path / "role"
    user = s3.stranger
    file.write_text(
        f"[default]\naws_access_key_id = {user.access_key_id}\naws_secret_access_key = {user.secret_access_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.owner.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(CredentialsRefused, match="AccessDenied"):  # known, with a good signature
        await location.list_prefix(None)
    engine = CommandLine(binary.path, engine_environment(None))
    with pytest.raises(Exception, match="AccessDenied"):
        await engine.ltx(location.url_for_engine())


def test_the_engines_environment_is_short() -> None:
    ours = {
        "PATH": "/bin",
        "PULUMI_ACCESS_TOKEN": "x",
        "AWS_CA_BUNDLE": "x",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_PROFILE": "p",
        "HTTPS_PROXY": "http://proxy",
        "DATABASE_PASSWORD": "x",
    }
    given = S3Credentials("key", "secret")
    assert engine_environment(given, ours) == {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    assert engine_environment(None, ours) == {"PATH": "/bin", "HTTPS_PROXY": "http://proxy", "AWS_PROFILE": "p"}


@pytest.mark.engine
async def test_s3_work_does_not_block_the_loop(
    location: S3Location, credentials: S3Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    original = S3Location._list

    def spy(self: S3Location, s3: object) -> PrefixContents:
        threads.append(threading.get_ident())
        return original(self, s3)  # type: ignore[arg-type]

    monkeypatch.setattr(S3Location, "_list", spy)
    await location.list_prefix(credentials)
    assert threads and threads[0] != threading.get_ident()
