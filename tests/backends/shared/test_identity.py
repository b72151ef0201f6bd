"""One place has one identity, however its URI is written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from replicator.backends.shared.identity import AWS, Look, resolved_endpoint


@pytest.mark.parametrize(
    ("one", "other", "relation"),
    [
        ("s3://b/p", "s3://b/p/", "same"),
        ("s3://b/p?region=a", "s3://b/p?region=b", "same"),
        ("s3://b/p", "s3://b/p?endpoint=https://s3.eu-central-1.amazonaws.com", "same"),
        ("s3://b/p?endpoint=https://s3.amazonaws.com/", "s3://b/p?endpoint=https://s3-eu-west-1.amazonaws.com", "same"),
        ("s3://b/p?endpoint=http://Minio:9000", "s3://b/p?region=x&endpoint=http%3A%2F%2Fminio%3A9000%2F", "same"),
        ("s3://b/p?endpoint=https://s3.example.org", "s3://b/p?endpoint=http://s3.example.org:80", "same"),
        ("s3://b/p?endpoint=https://s3.example.org:443", "s3://b/p?endpoint=https://s3.example.org.", "same"),
        ("s3://b/p?endpoint=http://127.0.0.1:9000", "s3://b/p?endpoint=http://localhost:9000", "same"),
        ("s3://b/p?endpoint=http://a:9000", "s3://b/p?endpoint=http://b:9000", "apart"),
        ("s3://b/p?endpoint=http://a:9000", "s3://b/p?endpoint=http://a:9001", "apart"),
        ("s3://b/p?endpoint=http://a:9000", "s3://b/p", "apart"),
        ("s3://b/p", "s3://b/p?endpoint=https://amazonaws.com.example.org", "apart"),
        ("s3://b/p", "s3://b/p/below", "contains"),
        ("s3://b/p", "s3://b/p2", "apart"),
        ("s3://b/p", "s3://c/p", "apart"),
        ("s3://b/p", "file:///b/p", "apart"),
        ("s3://b/a/../p", "s3://b/p", "apart"),  # in object storage `..` is a name like any other
        ("s3://b/P", "s3://b/p", "apart"),
        ("kafka://Broker:9092/t", "kafka://broker:9092/t", "same"),
        ("kafka://a:9092", "kafka://b:9092", "apart"),
    ],
)
def test_places_of_servers(one: str, other: str, relation: str) -> None:
    assert _relation(one, other) == relation
    assert (str(Look().at(one)) == str(Look().at(other))) is (relation == "same")


@pytest.mark.parametrize(
    ("one", "other", "relation"),
    [
        ("real/shop", "current/shop", "same"),
        ("real/shop", "real/shop/", "same"),
        ("real/shop", "real/../real/./shop", "same"),
        ("real/shop", "current/../real/shop", "same"),
        ("real/not-yet", "current/not-yet", "same"),
        ("real/not/yet", "current/not/yet", "same"),
        ("real/shop", "shop-link", "same"),
        ("real", "current/not/yet", "contains"),
        ("real/not-yet", "current/not-yet/inside", "contains"),
        ("real/shop", "current/bills", "apart"),
        ("real/not-yet", "current/not-yet-either", "apart"),
        ("real/shop", "elsewhere/shop", "apart"),
        ("elsewhere/not-yet", "real/not-yet", "apart"),
        ("circle/shop", "circle/shop", "same"),
        ("circle/shop", "real/shop", "apart"),
        ("dangling/shop", "gone/shop", "same"),
        ("real/file.db", "hard.db", "same"),
    ],
)
def test_places_of_this_host(tmp_path: Path, one: str, other: str, relation: str) -> None:
    _make_tree(tmp_path)
    assert _relation(f"file://{tmp_path}/{one}", f"file://{tmp_path}/{other}") == relation


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_folder_that_is_mounted_twice_is_one_place(tmp_path: Path) -> None:
    _make_tree(tmp_path)
    (tmp_path / "mounted").mkdir()
    command = ["mount", "--bind", str(tmp_path / "real"), str(tmp_path / "mounted")]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this host allows no mounts")
    try:
        for below, inside in (("shop", ""), ("not-yet", ""), ("not-yet", "/inside"), ("not/yet", "/at/all")):
            here, there = f"file://{tmp_path}/real/{below}", f"file://{tmp_path}/mounted/{below}{inside}"
            assert _relation(here, there) == ("contains" if inside else "same")
        assert _relation(f"file://{tmp_path}/real", f"file://{tmp_path}/mounted/shop") == "contains"
        assert _relation(f"file://{tmp_path}/real/not-yet", f"file://{tmp_path}/mounted/other") == "apart"
    finally:
        subprocess.run(["umount", tmp_path / "mounted"], check=True)


def test_a_folder_that_is_made_between_two_looks_is_the_same_place(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/replicas/shop"
    before = Look().at(uri)
    (tmp_path / "replicas" / "shop").mkdir(parents=True)
    after = Look().at(uri)
    assert before.is_same(after) and after.is_same(before)
    assert Look().at(f"file://{tmp_path}/replicas").contains(before)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (None, AWS),
        ("https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com", AWS),
        ("http://[::1]:9000/", "localhost:9000"),
        ("https://minio.example.org/s3/", "minio.example.org/s3"),
        ("https://minio:port", "https://minio:port"),
    ],
)
def test_the_address_of_a_store(endpoint: str | None, expected: str) -> None:
    assert resolved_endpoint(endpoint) == expected


def _make_tree(folder: Path) -> None:
    (folder / "real" / "shop").mkdir(parents=True)
    (folder / "elsewhere" / "shop").mkdir(parents=True)
    (folder / "real" / "file.db").touch()
    (folder / "hard.db").hardlink_to(folder / "real" / "file.db")
    for name, target in {
        "current": "real",
        "shop-link": "current/shop",
        "circle": "circle",
        "dangling": "gone",
    }.items():
        (folder / name).symlink_to(target)


def _relation(one: str, other: str) -> str:
    look = Look()
    first, second = look.at(one), look.at(other)
    assert first.overlaps(second) is second.overlaps(first)
    if first.is_same(second):
        return "same"
    assert not second.contains(first)
    return "contains" if first.contains(second) else "apart"
