"""requirements.lock, the Go modules and the poms: nothing drifts, nothing names a server."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
PINS = [LOCK, *sorted(ROOT.glob("tools/*.lock"))]
PINS += [path for folder in ("tools", "examples") for path in sorted((ROOT / folder).rglob("go.[ms]*"))]
PINS += sorted(ROOT.glob("tools/kafka/*/*"))


def locked(text: str) -> dict[str, set[Version]]:
    """The versions of each package in a lock; one package may have several, each under its own marker."""
    versions: dict[str, set[Version]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE):
        versions.setdefault(canonicalize_name(name), set()).add(Version(version))
    return versions


def unmet(dependencies: Iterable[str], lock: Mapping[str, set[Version]]) -> list[str]:
    """The dependencies that a lock does not satisfy."""
    parsed = [Requirement(dependency) for dependency in dependencies]
    return [
        str(wanted)
        for wanted in parsed
        if not (found := lock.get(canonicalize_name(wanted.name)))
        or not all(wanted.specifier.contains(version, prereleases=True) for version in found)
    ]


def test_the_lock_satisfies_every_dependency() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = pyproject["project"]["dependencies"] + pyproject["build-system"]["requires"]
    wanted += [each for group in pyproject["dependency-groups"].values() for each in group]
    wanted += [each for extra in pyproject["project"].get("optional-dependencies", {}).values() for each in extra]
    assert unmet(wanted, locked(LOCK.read_text())) == [], "run: make lock"


def test_drift_is_seen() -> None:
    lock = locked("one==1.2 ; marker \\\n    --hash=sha256:00\ntwo-three==2.0 \\\n    --hash=sha256:00\n")
    assert unmet(["one>=1,<2", "Two.Three[extra]==2.0; python_version >= '3.11'"], lock) == []
    assert unmet(["one>=2", "four", "two_three"], lock) == ["one>=2", "four"]


def test_every_locked_package_has_a_hash() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.read_text())
    assert len(entries) > 30
    assert [entry.split()[0] for entry in entries if "==" in entry and "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("pins", PINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pin_names_a_server(pins: Path) -> None:
    text = pins.read_text()
    assert text
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_every_locked_node_package_has_a_hash_and_names_no_server() -> None:
    packages = json.loads((ROOT / "tools" / "node" / "package-lock.json").read_text())["packages"]
    assert len(packages) > 100
    assert [
        name for name, item in packages.items() if name and not item.get("integrity", "").startswith("sha512-")
    ] == []
    assert [name for name, item in packages.items() if "resolved" in item] == []
    asked = json.loads((ROOT / "tools" / "node" / "package.json").read_text())
    assert {**asked["dependencies"], **asked["devDependencies"]}.items() <= {
        name.removeprefix("node_modules/"): item["version"] for name, item in packages.items() if name
    }.items()
