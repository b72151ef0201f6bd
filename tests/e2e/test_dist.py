"""What `make dist` makes: the tarball as Pulumi installs it, and the wheels, each where nothing else of ours is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from replicator import __version__
from replicator.cli.doctor.plugin import ask_version

from tests.e2e import wheel_env
from tests.e2e.conftest import Make
from tests.e2e.memory import Memory
from tests.e2e.programs import stream, yaml_program
from tests.pulumi import ROOT, Project, cli_folder
from tools.dist import BINARY, Target, build, build_plugin, here
from tools.gobuild import Cache, cache_root

MINOR = here().minor
SOURCES = ("LICENSE", "README.md", "provider", "pyproject.toml", "requirements.lock", "schema.json", "sdk", "tools")
SDK_PROGRAM = """
import pulumi
import pulumi_replicator as replicator

provider = replicator.Provider("provider", memory={{"address": {address!r}}})
main = replicator.Stream("main", **{inputs!r}, opts=pulumi.ResourceOptions(provider=provider))
pulumi.export("id", main.id)
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels and the tarball for this Python, by the first word of their names."""
    made = build(tmp_path_factory.mktemp("dist"), here(), Cache(cache_root(os.environ)))
    return {path.name.partition("-")[0]: path for path in made}


@pytest.fixture(scope="module")
def tarball(dist: dict[str, Path]) -> Path:
    return dist["pulumi"]


@pytest.fixture(scope="module")
def plugin(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tarball, unpacked."""
    return unpack(tarball, tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def only_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds Python, by the name of its minor version, and nothing else."""
    folder = tmp_path_factory.mktemp("python")
    (folder / f"python{MINOR}").symlink_to(os.path.realpath(sys.executable))
    return folder


def unpack(tarball: Path, folder: Path) -> Path:
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, filter="data")
    return folder


# --- the tarball -----------------------------------------------------------------------------------------------------


def test_the_same_sources_give_the_same_bytes(dist: dict[str, Path], tmp_path: Path) -> None:
    """In another folder, at another time, with another umask, by the command that people use."""
    for name in SOURCES:
        source, copy = ROOT / name, tmp_path / "copy" / name
        if source.is_dir():
            shutil.copytree(source, copy, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, copy)
    command = [sys.executable, "tools/dist.py", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path / "copy", check=True, stdout=subprocess.PIPE, text=True, umask=0o077)
    again = [Path(line) for line in done.stdout.splitlines()]
    assert {path.name: path.read_bytes() for path in again} == {path.name: path.read_bytes() for path in dist.values()}


def test_no_path_of_this_machine_is_in_it(plugin: Path, dist: dict[str, Path]) -> None:
    paths = {os.fsencode(path) for path in (ROOT, sys.prefix, dist["pulumi"].parent, Path.home() / ".cache")}
    files = [path for path in plugin.rglob("*") if path.is_file()]
    assert len(files) > 500
    assert [str(path) for path in files if any(place in path.read_bytes() for place in paths)] == []


def test_each_part_comes_with_its_licence(plugin: Path) -> None:
    parts = sorted((plugin / "lib").glob("*.dist-info"))
    assert len(parts) > 10
    assert [part.name for part in parts if not any("licen" in path.name.lower() for path in part.rglob("*"))] == []
    assert (plugin / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_all_that_the_plugin_imports_is_in_it(plugin: Path) -> None:
    """The agent's side is not: drivers that run in an agent, and its server."""
    code = """
import importlib, pkgutil, sys
sys.path.append(sys.argv[1])
from replicator.backends import REGISTRY
drivers = [backend.driver.partition(":")[0] for backend in REGISTRY.values() if not backend.via_agent]
serving = ("remote.app", "remote.inbound", "remote.pending", "remote.server", "plugin.__main__")
families = {".".join(driver.split(".")[:3]) for driver in drivers}
for package in ("replicator.plugin", "replicator.lifecycle", "replicator.remote", *families):
    package = importlib.import_module(package)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.removeprefix("replicator.") not in serving:
            print(importlib.import_module(module.name).__file__)
"""
    command = [sys.executable, "-I", "-S", "-c", code, str(plugin / "lib")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert len(loaded) > 30
    assert [path for path in loaded if not path.startswith(str(plugin))] == []


def test_another_python_gets_its_own_wheels(dist: dict[str, Path], tmp_path: Path) -> None:
    minor = "3.12" if MINOR != "3.12" else "3.13"
    other = Target(here().platform, minor)
    made = build_plugin(other, dist["replicator_provider"], tmp_path, Cache(cache_root(os.environ)))
    assert made.name == f"{BINARY}-v{__version__}-{other.platform}-{other.python}.tar.gz"
    folder = unpack(made, tmp_path / "plugin")
    assert f"python{minor} " in (folder / BINARY).read_text()
    tags = [path.name.split(".")[1] for path in folder.rglob("*.so")]
    ours = [tag for tag in tags if tag != "abi3"]
    assert ours
    assert {tag.split("-")[1] for tag in ours} == {minor.replace(".", "")}


# --- the launcher ----------------------------------------------------------------------------------------------------


def start(plugin: Path, path: str) -> tuple[str, str, int]:
    """Start a plugin with nothing but PATH, end it after its first line; what it wrote, and its exit code."""
    with subprocess.Popen(
        [plugin / BINARY], env={"PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    return line + out, err, process.returncode


def stub(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def test_it_starts_with_nothing_but_python(plugin: Path, only_python: Path) -> None:
    out, err, code = start(plugin, str(only_python))
    assert (int(out) > 0, err, code) == (True, "", 0)


def test_a_stub_and_another_python_on_path_are_passed_over(plugin: Path, only_python: Path, tmp_path: Path) -> None:
    stub(tmp_path / "a" / f"python{MINOR}", "echo no version is chosen >&2; exit 127")
    stub(tmp_path / "a" / "python3", "exit 1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "python").symlink_to(only_python / f"python{MINOR}")
    out, err, code = start(plugin, f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    assert (int(out) > 0, err, code) == (True, "", 0)


@pytest.mark.parametrize("kind", ["none", "another"])
def test_without_a_fitting_python_it_says_what_it_needs(plugin: Path, tmp_path: Path, kind: str) -> None:
    if kind == "another":
        stub(tmp_path / "python3", "exit 1")
    out, err, code = start(plugin, str(tmp_path))
    assert (out, code) == ("", 1)
    first, then = err.splitlines()
    assert first == f"{BINARY} needs Python {MINOR} on PATH and finds none [RPL-PLUGIN-PYTHON]"
    assert then.startswith(f"  → install Python {MINOR}, or ")


def test_it_starts_through_a_link(plugin: Path, only_python: Path, tmp_path: Path) -> None:
    (tmp_path / BINARY).symlink_to(plugin / BINARY)
    out, err, code = start(tmp_path, str(only_python))
    assert (int(out) > 0, err, code) == (True, "", 0)


def test_it_needs_no_right_to_write_into_its_folder(
    tarball: Path, only_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = unpack(tarball, tmp_path / "plugin")

    def listing() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in (plugin, *plugin.rglob("*"))}

    before = listing()
    with read_only(plugin):
        monkeypatch.setenv("PATH", str(only_python))
        assert ask_version(plugin / BINARY) == __version__
    assert listing() == before  # which holds for root, too, whom no mode stops


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folders = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


# --- installed -------------------------------------------------------------------------------------------------------


def live(project: Project, memory: Memory) -> None:
    """A program's life: nothing is said but what is done, and nothing is left."""
    assert project.preview().said("warning") == []
    up = project.up("--skip-preview")
    assert (up.done("main"), up.said("warning")) == (["create"], [])
    name = project.resources()["main"]["inputs"]["name"]
    assert name in memory.names()
    project.refresh("--skip-preview", "--expect-no-changes")
    assert project.preview("--expect-no-changes").said("warning") == []
    project.destroy("--skip-preview")
    assert name not in memory.names()


def install(project: Project, tarball: Path) -> None:
    project.run("plugin", "install", "resource", "replicator", __version__, "--file", str(tarball))


def path_of(*folders: Path) -> dict[str, str]:
    """An environment whose PATH holds the CLI and these folders alone."""
    return {"PATH": os.pathsep.join(map(str, (cli_folder(), *folders)))}


def test_pulumi_installs_it_for_a_yaml_program(
    tarball: Path, only_python: Path, make_project: Make, memory: Memory
) -> None:
    project = make_project("dist-yaml", plugins=None, environment=path_of(only_python))
    project.write_yaml(yaml_program(memory.address, stream(project)))
    missing = project.preview(check=False)
    assert missing.code != 0
    assert f"no resource plugin '{BINARY}' found" in missing.text

    install(project, tarball)
    listed = json.loads(project.run("plugin", "ls", "--json").stdout)
    assert [(item["name"], item["kind"], item["version"]) for item in listed] == [
        ("replicator", "resource", __version__)
    ]
    live(project, memory)


def test_pulumi_installs_it_for_a_python_program(
    dist: dict[str, Path], only_python: Path, make_project: Make, memory: Memory, tmp_path: Path
) -> None:
    python = wheel_env.make(tmp_path, dist["pulumi_replicator"])
    asked = subprocess.run([python, "-c", "import replicator"], capture_output=True, text=True, check=False)
    assert "No module named 'replicator'" in asked.stderr
    environment = {"PULUMI_PYTHON_CMD": str(python), **path_of(only_python)}
    project = make_project("dist-python", plugins=None, environment=environment)
    project.write_python(SDK_PROGRAM.format(address=memory.address, inputs=stream(project)))
    install(project, dist["pulumi"])
    live(project, memory)


def test_the_wheel_alone_is_command_and_plugin(
    dist: dict[str, Path], make_project: Make, memory: Memory, tmp_path: Path
) -> None:
    scripts = wheel_env.make(tmp_path, dist["replicator_provider"]).parent
    helped = subprocess.run([scripts / "replicator", "--help"], capture_output=True, text=True, check=False)
    assert (helped.returncode, "doctor" in helped.stdout) == (0, True)
    project = make_project("dist-wheel", plugins=scripts, environment=path_of())
    project.write_yaml(yaml_program(memory.address, stream(project)))
    live(project, memory)
