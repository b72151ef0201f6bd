"""The policy file: what it grants, who may have written it, and when it is read again."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from replicator.agent.policy_file import PolicyFile, default_policy
from replicator.backends.sqlite.grants import Gate, Policy, destination_lines, lines_for
from replicator.errors import InvalidConfig, PolicyRefused, PolicyUnusable, SecretExposed
from replicator.model import Stream

OTHER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


def stream(uri: str, auth_ref: str | None = "env://SHOP_*", source: str = "/var/lib/shop/shop.db") -> Stream:
    destination = {"kind": "s3", "uri": uri, **({"authRef": auth_ref} if auth_ref else {})}
    return Stream.model_validate(
        {"name": "orders", "source": {"kind": "sqlite", "uri": f"sqlite://{source}"}, "destination": destination}
    )


def policy(**tables: list[dict[str, str]]) -> Policy:
    return Policy.model_validate(tables)


class Fixed:
    """A policy that nobody changes."""

    path = Path("/etc/replicator/agent.toml")

    def __init__(self, policy: Policy | None) -> None:
        self._policy = policy

    def current(self) -> Policy | None:
        return self._policy


def nobody() -> list[Stream]:
    return []


HERE = "s3://backups/eu?endpoint=https://store.example"


@pytest.mark.parametrize(
    ("uri", "granted"),
    [
        ("s3://backups/eu?endpoint=https://store.example", True),
        ("s3://backups/eu/orders?endpoint=https://STORE.example:443&region=eu", True),
        ("s3://backups/europe?endpoint=https://store.example", False),
        ("s3://backups/us?endpoint=https://store.example", False),
        ("s3://other/eu?endpoint=https://store.example", False),
        ("s3://backups/eu?endpoint=http://store.example", False),
        ("s3://backups/eu?endpoint=https://store.example:8443", False),
        ("s3://backups/eu?endpoint=https://store.example.thief.example", False),
        ("s3://backups/eu", False),
        ("file:///backups/eu", False),
    ],
)
def test_a_place_is_compared_by_scheme_host_bucket_and_prefix(uri: str, granted: bool) -> None:
    found = policy(destination=[{"uri": HERE, "authRef": "env://SHOP_*"}])
    assert found.grants_destination(uri, "env://SHOP_*") is granted


def test_a_machine_that_anybody_rents_at_aws_is_not_aws() -> None:
    found = policy(destination=[{"uri": "s3://backups", "authRef": "env://SHOP_*"}])
    assert found.grants_destination("s3://backups/orders?region=eu-west-1", "env://SHOP_*")
    rented = "https://ec2-198-51-100-1.compute-1.amazonaws.com"
    assert not found.grants_destination(f"s3://backups/orders?endpoint={rented}", "env://SHOP_*")


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("env://SHOP_*", True),
        ("ref+env://SHOP_*", True),
        ("env://SHOP_*?accessKeyId=ID", False),
        ("env://SHOP*", False),
        ("env://OTHER_*", False),
        (None, False),
    ],
)
def test_a_reference_is_granted_with_its_renames_and_no_others(asked: str | None, granted: bool) -> None:
    found = policy(destination=[{"uri": HERE, "authRef": "env://SHOP_*"}])
    assert found.grants_destination(HERE, asked) is granted


def test_a_folder_of_references_ends_at_the_folder(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "shop.json").touch()
    (tmp_path / "shadow").touch()
    (keys / "link").symlink_to(tmp_path / "shadow")
    found = policy(destination=[{"uri": HERE, "authRef": f"file://{keys}/*"}])
    assert found.grants_destination(HERE, f"file://{keys}/shop.json")
    for outside in (f"{keys}/link", f"{keys}/../shadow", str(tmp_path / "shadow")):
        assert not found.grants_destination(HERE, f"file://{outside}")
    assert not found.grants_destination(HERE, f"file://{keys}/shop.json?accessKeyId=x")


def test_paths_are_judged_where_they_lead(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "way-out").symlink_to(outside)
    (tmp_path / "way-in").symlink_to(inside)
    folder = {"folder": str(inside)}
    found = policy(source=[folder], replay=[folder], destination=[{"uri": f"file://{inside}"}])
    for path, granted in (
        (inside / "a.db", True),
        (tmp_path / "way-in" / "a.db", True),
        (inside / "way-out" / "a.db", False),
        (inside / ".." / "outside" / "a.db", False),
        (tmp_path / "inside-too" / "a.db", False),
    ):
        assert found.grants_source(path) is granted, path
        assert found.grants_copy(path) is granted, path
        if ".." not in path.parts:
            assert found.grants_destination(f"file://{path}", None) is granted, path


def test_what_is_refused_comes_with_the_lines_that_grant_it(tmp_path: Path) -> None:
    file = PolicyFile(tmp_path / "agent.toml")
    file.create([])
    gate = Gate(file, nobody)
    asked = stream("s3://backups/eu?endpoint=http://store.example&region=eu")
    checks: list[tuple[Callable[[], None], str]] = [
        (partial(gate.check_source, asked), "source.uri"),
        (partial(gate.check_destination, asked), "destination.uri"),
        (partial(gate.check_copy, "orders", tmp_path / "copy.db"), "target"),
    ]
    for check, property in checks:
        with pytest.raises(PolicyRefused) as refused:
            check()
        assert refused.value.property == property
        assert refused.value.fix is not None
        said, _, lines = refused.value.fix.partition("\n")
        assert str(file.path) in said
        file.add([lines])
        check()
    with pytest.raises(PolicyRefused) as refused:
        gate.check_destination(stream("s3://backups/eu?endpoint=http://store.example", "env://OTHER_*"))
    assert refused.value.property == "destination.authRef"


def test_lines_keep_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" \\ näme'
    asked = stream("s3://backups/eu", source=str(folder / "shop.db").replace("%", "%25"))
    file = PolicyFile(tmp_path / "agent.toml")
    file.create(lines_for(Policy(), [asked], [folder / "copy.db"]))
    found = file.current()
    assert found is not None
    assert lines_for(found, [asked], [folder / "copy.db"]) == []


@pytest.mark.parametrize("endpoint", ["http://store.example", "http://0.0.0.0:9000", "http://localhost.thief.example"])
def test_a_key_goes_over_http_only_where_the_policy_names_the_endpoint(endpoint: str) -> None:
    asked = stream(f"s3://backups/eu?endpoint={endpoint}")
    with pytest.raises(SecretExposed) as refused:
        Gate(Fixed(None), nobody).check_destination(asked)
    assert (
        refused.value.fix is not None and destination_lines(asked.destination.uri, "env://SHOP_*") in refused.value.fix
    )
    Gate(Fixed(None), lambda: [asked]).check_destination(asked)  # what ran before goes on
    https = policy(destination=[{"uri": f"s3://backups/eu?endpoint={endpoint.replace('http:', 'https:')}"}])
    with pytest.raises(PolicyRefused):
        Gate(Fixed(https), lambda: [asked]).check_destination(asked)
    named = policy(destination=[{"uri": asked.destination.uri, "authRef": "env://SHOP_*"}])
    Gate(Fixed(named), nobody).check_destination(asked)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000"])
def test_a_key_goes_over_http_to_this_host(endpoint: str) -> None:
    Gate(Fixed(None), nobody).check_destination(stream(f"s3://backups/eu?endpoint={endpoint}"))


def test_without_a_file_there_is_one_warning(tmp_path: Path) -> None:
    (found,) = Gate(PolicyFile(tmp_path / "agent.toml"), nobody).findings()
    assert (found.severity, found.code, found.property) == ("warning", "RPL-POLICY-NONE", None)
    assert Gate(Fixed(Policy()), nobody).findings() == []
    assert Gate(None, nobody).findings() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[sources]]\nfolder = "/a"\n', "sources is not a setting"),
        ('[[source]]\nfolders = "/a"\n', "source.0.folders is not a setting"),
        ('[[source]]\nfolder = "a"\n', "source.0.folder: must be an absolute path"),
        ('[[destination]]\nuri = "s3://B/p"\n', "destination.0.uri: a bucket's name"),
        ('[[destination]]\nuri = "s3://backups"\nauthRef = "hunter2"\n', "destination.0.authRef: the reference"),
        ("[[source]]\nfolder = 1\n", "source.0.folder: Input should be a valid string"),
        ("[[source]\n", "is not TOML"),
    ],
)
def test_mistakes_are_named_and_grant_nothing(tmp_path: Path, text: str, said: str) -> None:
    file = PolicyFile(tmp_path / "agent.toml")
    file.path.write_text(text)
    for _ in range(2):
        with pytest.raises(PolicyUnusable) as refused:
            file.current()
        assert said in refused.value.message
        assert refused.value.message.count(str(file.path)) == 1
        assert "hunter2" not in str(refused.value)


def test_a_changed_file_is_read_again_and_a_lost_one_grants_nothing(tmp_path: Path) -> None:
    file = PolicyFile(tmp_path / "agent.toml")
    assert file.current() is None
    file.create([])
    assert file.current() == Policy()
    file.add(['[[source]]\nfolder = "/a"'])
    assert file.current() == policy(source=[{"folder": "/a"}])
    good = file.path.read_text()
    file.path.write_text("[[source")
    with pytest.raises(PolicyUnusable):
        file.current()
    file.path.write_text(good)
    assert file.current() == policy(source=[{"folder": "/a"}])
    file.path.unlink()
    with pytest.raises(PolicyUnusable):
        file.current()


def test_a_file_that_was_asked_for_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyUnusable):
        PolicyFile(tmp_path / "agent.toml", required=True).current()


@pytest.mark.parametrize("mode", [0o622, 0o646, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = PolicyFile(tmp_path / "agent.toml")
    file.create([])
    if os.geteuid() == 0:
        os.chown(file.path, 0, OTHER)
    file.path.chmod(mode)
    with pytest.raises(PolicyUnusable, match="another user may change it"):
        file.current()
    file.path.chmod(0o640)
    assert file.current() == Policy()


@as_root
def test_a_file_of_another_user_or_in_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    file = PolicyFile(folder / "agent.toml")
    file.create([])
    os.chown(file.path, OTHER, OTHER)
    with pytest.raises(PolicyUnusable):
        file.current()
    os.chown(file.path, 0, 0)
    assert file.current() == Policy()
    os.chown(folder, OTHER, OTHER)
    file.path.touch()
    with pytest.raises(PolicyUnusable, match="another user may write to the folder"):
        file.current()
    with pytest.raises(InvalidConfig):
        file.add(['[[source]]\nfolder = "/"'])


def test_a_link_is_no_policy(tmp_path: Path) -> None:
    PolicyFile(tmp_path / "real.toml").create([])
    (tmp_path / "agent.toml").symlink_to("real.toml")
    with pytest.raises(PolicyUnusable, match="it is a symbolic link"):
        PolicyFile(tmp_path / "agent.toml").current()


def test_a_file_is_made_for_its_readers_and_not_written_over(tmp_path: Path) -> None:
    file = PolicyFile(tmp_path / "new" / "agent.toml")
    text = file.create(['[[source]]\nfolder = "/a"'])
    assert file.path.read_text() == text
    assert file.path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidConfig, match="exists"):
        file.create([])
    file.create([], group=os.getegid(), over=True)
    assert file.path.stat().st_mode & 0o777 == 0o640
    before = file.add(['[[source]]\nfolder = "/b"'])
    assert file.path.stat().st_mode & 0o777 == 0o640
    file.put_back(before)
    assert file.current() == Policy()
    assert [path.name for path in file.path.parent.iterdir()] == ["agent.toml"]


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_policy() == Path("/etc/replicator/agent.toml")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/app/.config")
    assert default_policy() == Path("/home/app/.config/replicator/agent.toml")
