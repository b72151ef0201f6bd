"""The build of the Pulumi CLI: what is kept, what a broken build leaves, which installed CLI will do.

A shell script takes the place of `go`, since it is the failures of a build that matter here; the last test runs the
real programs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tools import prose, pulumi_cli, sdks
from tools.gobuild import GO_LOCK, Cache, GoModule, cache_root, parse_version

SCRIPT = Path(pulumi_cli.__file__)
FILES = sorted(name for module in pulumi_cli.MODULES for name in module.files)
MODULES = (*pulumi_cli.MODULES, sdks.MODULE, prose.MODULE)
CLI_VERSION = pulumi_cli.MODULES[0].sdk_version
FAKE_GO = """#!/bin/sh
module=$(basename "$PWD")
case "$1" in
version) echo "go version go${FAKE_GO_VERSION:-1.99.0} linux/amd64"; exit;;
list) echo "$FAKE_SDK"; exit;;
esac
settings="$CGO_ENABLED $GOTOOLCHAIN $GOWORK $GOFLAGS $GOOS"
[ "$settings" = "0 local off -mod=readonly -buildvcs=false " ] || { echo "settings: $settings" >&2; exit 1; }
echo "$module" >> "$FAKE_LOG"
while [ "$1" != -o ]; do shift; done
case "$module" in
cli) programs=pulumi;;
yaml) programs=pulumi-language-yaml;;
hosts) programs="pulumi-language-go pulumi-language-nodejs pulumi-language-python";;
esac
for program in $programs; do
  printf '#!/bin/sh\\necho %s\\n' "$FAKE_CLI_VERSION" > "$2$program"
  chmod 755 "$2$program"
done
[ "$module" = "$FAKE_AT" ] || exit 0
case "$FAKE_END" in
fail) echo "no such package" >&2; exit 1;;
kill) kill -KILL "$PPID"; exit 1;;
hang) echo "$$" > "$FAKE_PID.new"; mv "$FAKE_PID.new" "$FAKE_PID"; exec sleep 60;;
esac
"""


@dataclass
class Machine:
    """A machine with a fake `go`, an empty cache and nothing else of ours."""

    root: Path

    def __post_init__(self) -> None:
        self.bin = self.root / "bin"
        self.cache = Cache(self.root / "cache")
        self.log = self.root / "log"
        self.pid = self.root / "pid"
        sdk = self.root / "sdk"
        for script in pulumi_cli.MODULES[-1].scripts:
            (sdk / script).parent.mkdir(parents=True, exist_ok=True)
            (sdk / script).write_text("#!/bin/sh\n")
            (sdk / script).chmod(0o444)  # as in Go's module cache
        program(self.bin / "go", FAKE_GO)
        self.env = {
            "PATH": f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "HOME": str(self.root),
            "REPLICATOR_CACHE": str(self.cache.root),
            "GOOS": "plan9",  # what a person left in the shell must not decide what is built
            "GOFLAGS": "-mod=mod",
            "FAKE_SDK": str(sdk),
            "FAKE_LOG": str(self.log),
            "FAKE_PID": str(self.pid),
            "FAKE_CLI_VERSION": CLI_VERSION,
        }

    def start(self, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(SCRIPT), "path"]
        return subprocess.Popen(
            command, env=self.env | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.root
        )

    def run(self, **env: str) -> tuple[int, str, str]:
        with self.start(**env) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def builds(self) -> list[str]:
        return self.log.read_text().split()


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_build_gives_one_folder_of_real_files_and_is_not_repeated(machine: Machine) -> None:
    status, out, err = machine.run()
    assert status == 0, err
    folder = Path(out.strip())
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert all(os.access(path, os.X_OK) and not path.is_symlink() for path in folder.iterdir())
    assert "building pulumi (" in err

    (machine.bin / "go").unlink()
    assert machine.run() == (0, out, "")
    assert machine.builds() == ["cli", "yaml", "hosts"]


@pytest.mark.parametrize(("end", "wanted"), [("fail", 1), ("kill", -signal.SIGKILL)])
def test_a_build_that_ends_half_way_is_not_taken_for_complete(machine: Machine, end: str, wanted: int) -> None:
    status, out, err = machine.run(FAKE_AT="yaml", FAKE_END=end)
    assert (status, out) == (wanted, "")
    assert ("no such package" in err) == (end == "fail")
    assert pulumi_cli.built(machine.cache) is None
    assert not list(machine.cache.root.glob("modules/yaml-*"))

    status, out, err = machine.run()
    assert status == 0, err
    assert sorted(path.name for path in Path(out.strip()).iterdir()) == FILES
    assert machine.builds() == ["cli", "yaml", "yaml", "hosts"], (
        "what was complete is kept, what was not is built again"
    )
    assert not list(machine.cache.root.glob("tmp-*")), "what the dead build left is removed"


def test_a_terminated_build_ends_its_compiler(machine: Machine) -> None:
    with machine.start(FAKE_AT="cli", FAKE_END="hang") as process:
        wait_for(machine.pid.exists)
        compiler = int(machine.pid.read_text())
        assert alive(compiler)
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + signal.SIGTERM, "")
    wait_for(lambda: not alive(compiler))
    assert not list(machine.cache.root.glob("tmp-*"))


def test_two_runs_at_once_build_once(machine: Machine) -> None:
    with machine.start() as first, machine.start() as second:
        one, two = first.communicate(timeout=60), second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), one[1] + two[1]
    assert one[0] == two[0] != ""
    assert machine.builds() == ["cli", "yaml", "hosts"]


def test_a_removed_program_is_built_again(machine: Machine) -> None:
    folder = Path(machine.run()[1].strip())
    (folder / "pulumi").unlink()
    next(machine.cache.root.glob("modules/cli-*/pulumi")).unlink()
    assert pulumi_cli.built(machine.cache) is None
    assert machine.run()[1].strip() == str(folder)
    assert machine.builds() == ["cli", "yaml", "hosts", "cli"]


def test_a_cli_that_tells_no_version_is_refused(machine: Machine) -> None:
    status, out, err = machine.run(FAKE_CLI_VERSION="")
    assert (status, out) == (1, "")
    assert f"not '{CLI_VERSION}'" in err
    assert pulumi_cli.built(machine.cache) is None


def test_an_old_go_gives_way_to_the_pinned_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", machine.env["PATH"])
    pinned = machine.cache.root / f"go-{GO_LOCK.read_text().split()[0].partition('==')[2]}" / "bin" / "go"
    program(pinned, FAKE_GO)
    assert machine.cache.go((1, 26, 6)) == machine.bin / "go"
    monkeypatch.setenv("FAKE_GO_VERSION", "1.26.5")
    assert machine.cache.go((1, 26, 6)) == pinned
    (machine.bin / "go").unlink()
    monkeypatch.setenv("PATH", str(machine.bin))
    assert machine.cache.go((1, 26, 6)) == pinned


def test_the_pinned_go_may_build_every_module() -> None:
    pinned = parse_version(GO_LOCK.read_text().split()[0])
    assert pinned is not None
    assert all((1, 24) < module.go_line <= pinned for module in MODULES)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.folder.name)
def test_a_stamp_is_the_same_in_every_checkout_and_follows_the_sources(module: GoModule, tmp_path: Path) -> None:
    def copy() -> GoModule:
        return replace(module, folder=tmp_path / "checkout", expected="another expectation")

    shutil.copytree(module.folder, copy().folder)
    assert copy().stamp == module.stamp

    stamps = [module.stamp]
    for name in ("go.mod", "go.sum", "gensdk/main.go"):
        changed = copy().folder / name
        changed.parent.mkdir(exist_ok=True)
        with changed.open("a") as file:
            file.write("// changed\n")
        stamps.append(copy().stamp)
    stamps.append(replace(copy(), scripts=("one/more",)).stamp)
    stamps.append(replace(copy(), native=not module.native).stamp)
    assert len(set(stamps)) == len(stamps)


def test_programs_are_read_from_both_forms_of_tool_lines(tmp_path: Path) -> None:
    sdk = "github.com/pulumi/pulumi/sdk/v3"
    (tmp_path / "go.mod").write_text(
        f"module x\n\ngo 1.26.6\n\ntool example.com/a/one\n\ntool (\n\texample.com/b/two\n\tx/three\n)\n\n"
        f"require {sdk} v3.1.2 // indirect\n"
    )
    module = GoModule(tmp_path, "soon", ("python/cmd/four",))
    assert module.files == ("one", "two", "three", "four")
    assert (module.go_line, module.sdk_version) == ((1, 26, 6), "3.1.2")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert cache_root({}) == Path("/home/ada/.cache/pulumi-replicator")
    assert cache_root({"XDG_CACHE_HOME": "not/absolute"}) == Path("/home/ada/.cache/pulumi-replicator")
    assert cache_root({"XDG_CACHE_HOME": "/caches"}) == Path("/caches/pulumi-replicator")
    assert cache_root({"XDG_CACHE_HOME": "/caches", "REPLICATOR_CACHE": "~/own"}) == Path("/home/ada/own")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v3.206.0", (3, 206, 0)),
        ("3.274.1", (3, 274, 1)),
        ("v3.207.0-alpha.1f2e", (3, 207, 0)),
        ("go version go1.27 linux/amd64", (1, 27)),
        ("", None),
        ("dev", None),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, ...] | None) -> None:
    assert parse_version(text) == version


class TestUsersOwnCli:
    """What `--user-ok` takes, and what it passes over."""

    @pytest.fixture
    def install(self, tmp_path: Path) -> Callable[..., str]:
        def install(version: str, *hosts: str, hosts_in: str = "one") -> str:
            program(tmp_path / "one" / "pulumi", f"#!/bin/sh\necho {version}\n")
            for host in hosts:
                program(tmp_path / hosts_in / host, "#!/bin/sh\n")
            return f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}"

        return install

    @pytest.mark.parametrize("version", ["v3.206.0", "v3.274.1", "v4.0.0"])
    @pytest.mark.parametrize("hosts_in", ["one", "two"])
    def test_new_enough_with_its_hosts(
        self, install: Callable[..., str], tmp_path: Path, version: str, hosts_in: str
    ) -> None:
        path = install(version, *pulumi_cli.USER_HOSTS, hosts_in=hosts_in)
        assert pulumi_cli.users_own(path) == tmp_path / "one"

    def test_hosts_beside_what_a_link_points_to(self, install: Callable[..., str], tmp_path: Path) -> None:
        install("v3.206.0", *pulumi_cli.USER_HOSTS)
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "pulumi").symlink_to(tmp_path / "one" / "pulumi")
        assert pulumi_cli.users_own(str(tmp_path / "links")) == tmp_path / "links"

    @pytest.mark.parametrize("version", ["v3.205.9", "v2.300.0", "", "dev"])
    def test_too_old_or_unknown(
        self, install: Callable[..., str], version: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert pulumi_cli.users_own(install(version, *pulumi_cli.USER_HOSTS)) is None
        assert "older than 3.206" in capsys.readouterr().err

    def test_a_missing_host_is_named(self, install: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
        assert pulumi_cli.users_own(install("v3.206.0", "pulumi-language-yaml")) is None
        assert "no pulumi-language-python;" in capsys.readouterr().err

    def test_none(self, tmp_path: Path) -> None:
        assert pulumi_cli.users_own(str(tmp_path)) is None


@pytest.mark.cli
def test_the_real_cli_previews_a_yaml_program_without_a_warning(tmp_path: Path) -> None:
    folder = pulumi_cli.built(Cache(cache_root(os.environ)))
    if folder is None:
        pytest.skip("the Pulumi CLI is not built; run: make cli")
    assert pulumi_cli.cli_version(folder / "pulumi") == CLI_VERSION
    project, state = tmp_path / "project", tmp_path / "state"
    project.mkdir()
    state.mkdir()
    (project / "Pulumi.yaml").write_text("name: empty\nruntime: yaml\noutputs: {hello: world}\n")
    env = {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "only in this test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }

    def pulumi(*arguments: str) -> str:
        command = [str(folder / "pulumi"), "--non-interactive", "--color", "never", *arguments]
        result = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    pulumi("stack", "init", "dev")
    seen = pulumi("preview")
    assert 'hello: "world"' in seen
    assert "+ 1 to create" in seen
    assert "warning" not in seen.lower()
