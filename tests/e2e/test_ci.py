"""docs/ci.md: its files in a repository, and the commands of its jobs on a runner that reaches a host through ssh."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.litestream import BUCKET, World, world
from tests.e2e.walk import Walk, files, steps, walk
from tests.engines import s3_server
from tests.pulumi import ROOT
from tests.sshd import Sshd, sshd

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

PAGE = ROOT / "docs" / "ci.md"
TEXT = PAGE.read_text("utf-8")
FILES = files(PAGE)
GITHUB = yaml.safe_load(FILES[".github/workflows/streams.yml"])
GITLAB = yaml.safe_load(FILES[".gitlab-ci.yml"])
HOST, SOCKET, HOST_KEY = "db1.eu.example", "/run/replicator/agent.sock", "/etc/ssh/ssh_host_ed25519_key.pub"
DATABASE, REPLICA = "/var/lib/shop/shop.db", "s3://backups/eu/orders?region=eu-central-1"
JOBS = ("preview", "up", "drift")


def at_github(job: str) -> list[str]:
    """The command lines of a job."""
    runs = (step["run"] for step in GITHUB["jobs"][job]["steps"] if "run" in step)
    return [line for run in runs for line in run.splitlines()]


def typed(words: str) -> str:
    """The command of the page that has these words."""
    (found,) = [step.command for step in steps(PAGE) if words in step.command]
    return found


@dataclass
class Repository:
    """The files of the page in a folder, for a database, a bucket and a host that are here."""

    runner: Walk
    here: World
    way: Sshd
    key: str = ""

    @property
    def folder(self) -> Path:
        return self.runner.home / "repository"

    def fill(self) -> None:
        """Do what the page says, on the runner and on the host."""
        (self.folder / "ci").mkdir(parents=True)
        (wheel,) = self.runner.home.glob("*.whl")
        shutil.copy(wheel, self.folder / "ci")
        for name in ("ci/run.sh", "ci/ssh_config", "Pulumi.yaml"):
            (self.folder / name).write_text(FILES[name])
        (self.folder / "ci/run.sh").chmod(0o755)
        self.change(REPLICA, self.here.s3.url(BUCKET, "orders"))
        self.change(DATABASE, str(self.here.database("orders")))
        self.change(SOCKET, str(self.here.host.socket))

        self.run(typed("ssh-keygen -q"))
        self.key = (self.folder / "ci-key").read_text()
        (line,) = re.findall(r"^(restrict,.*) ssh-ed25519 …$", TEXT, re.MULTILINE)
        public = (self.folder / "ci-key.pub").read_text()
        authorized = self.way.folder / "authorized_keys"
        authorized.write_text(f"{line.replace(SOCKET, str(self.here.host.socket))} {public}")
        pinned = self.run(typed(HOST_KEY).replace(HOST_KEY, str(self.way.folder / "host_key.pub"))).stdout
        (self.folder / "ci/known_hosts").write_text(pinned)
        shown = self.run("ssh-keygen -lf ci/known_hosts").stdout
        assert shown.split()[1] == self.run(f"ssh-keygen -lf {self.way.folder / 'host_key.pub'}").stdout.split()[1]
        config = self.folder / "ci/ssh_config"
        where = f"Host {HOST}\n  HostName 127.0.0.1\n  Port {self.way.port}\n  User {self.way.login.user}\n"
        config.write_text(f"{where}  HostKeyAlias {HOST}\n{config.read_text()}")

    def change(self, old: str, new: str) -> None:
        """Change the program."""
        program = self.folder / "Pulumi.yaml"
        text = program.read_text()
        assert old in text
        program.write_text(text.replace(old, new))

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a line of a job."""
        return subprocess.run(
            ["bash", "-ec", command.replace(SOCKET, str(self.here.host.socket))],
            cwd=self.folder,
            env={**self.runner.variables(), "REPLICATOR_SSH_KEY": self.key, "STACK": "prod", **environment},
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def job(self, name: str) -> list[subprocess.CompletedProcess[str]]:
        """Run a job until a line fails."""
        ran: list[subprocess.CompletedProcess[str]] = []
        for line in at_github(name):
            if not ran or ran[-1].returncode == 0:
                ran.append(self.run(line))
        return ran

    def outputs(self) -> Any:
        return json.loads(self.run("pulumi stack output --json --stack prod").stdout)

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        self.way.stop()
        yield
        self.way.start()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with s3_server(tmp_path_factory.mktemp("s3")) as s3, sshd(HOST) as way, walk() as runner:
        s3.make_bucket(BUCKET)
        state = runner.home / "state"
        state.mkdir()
        runner.environment.update(
            PULUMI_BACKEND_URL=f"file://{state}", PULUMI_CONFIG_PASSPHRASE="", PIP_NO_CACHE_DIR="1"
        )
        with world(s3, "--socket-group", way.login.group) as here:
            here.host.folder.chmod(0o755)
            made = Repository(runner, here, way)
            made.fill()
            yield made


@pytest.fixture
def repository(filled: Repository) -> Iterator[Repository]:
    """With the program of the page, and an empty stack."""
    program = (filled.folder / "Pulumi.yaml").read_text()
    assert filled.run("pulumi stack init prod").returncode == 0
    yield filled
    (filled.folder / "Pulumi.yaml").write_text(program)
    removed = filled.run("ci/run.sh pulumi destroy --yes --skip-preview --remove --stack prod")
    assert removed.returncode == 0, removed.stdout + removed.stderr


def test_both_systems_run_the_same_commands() -> None:
    assert {job: at_github(job) for job in JOBS} == {job: GITLAB[job]["script"] for job in JOBS}
    assert set(GITHUB["jobs"]) == {*JOBS, "check"}
    assert {*JOBS, "variables", "default"} == set(GITLAB)


def test_a_job_gets_the_secrets_that_the_page_lists_and_a_fork_gets_none() -> None:
    listed = set(re.findall(r"^\| `([A-Z_]+)`", TEXT.partition("## Secrets")[2], re.MULTILINE))
    for job in JOBS:
        assert GITHUB["jobs"][job]["env"] == {name: f"${{{{ secrets.{name} }}}}" for name in listed}
    assert "secrets." not in str(GITHUB["jobs"]["check"])
    for job in ("up", "drift"):
        assert GITHUB["jobs"][job]["environment"] == GITLAB[job]["environment"] == "production"


def test_the_jobs(repository: Repository) -> None:
    (previewed,) = repository.job("preview")
    assert (previewed.returncode, "warning" in previewed.stdout) == (0, False), previewed.stdout + previewed.stderr
    assert "+ 2 to create" in previewed.stdout
    assert repository.here.names() == []

    (done,) = repository.job("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert repository.here.names() == ["orders"]
    *_, printed = steps(PAGE)
    assert repository.run(printed.command).stdout == printed.printed == "0\n"
    assert [ran.returncode for ran in repository.job("drift")] == [0, 0]

    repository.here.command("pause", "orders")
    (line,) = at_github("preview")
    assert repository.run(f"{line} --expect-no-changes").returncode == 0
    (drifted,) = repository.job("drift")
    assert drifted.returncode == 7
    block = TEXT.partition("was paused with `replicator pause`:\n\n```\n")[2].partition("```")[0]
    assert [row for row in block.splitlines() if row not in drifted.stdout + drifted.stderr] == []
    waited = repository.run(at_github("drift")[1])
    assert (waited.returncode, "paused" in waited.stdout + waited.stderr) == (1, True), waited

    assert repository.outputs()["state"] == "running"
    assert repository.run("ci/run.sh pulumi refresh --yes --skip-preview --run-program --stack prod").returncode == 0
    found = repository.outputs()
    assert (found["state"], found.get("lagSeconds")) == ("paused", None)
    assert repository.job("up")[0].returncode == 0
    assert repository.outputs()["state"] == "running"


def test_a_fork_is_checked_without_a_secret(filled: Repository, tmp_path: Path) -> None:
    job = GITHUB["jobs"]["check"]
    assert set(job["env"]) == {"PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"}
    logins = filled.way.logins()
    environment = {**job["env"], "PULUMI_BACKEND_URL": f"file://{tmp_path}", "REPLICATOR_SSH_KEY": ""}
    for line in at_github("check"):
        ran = filled.run(line, **environment)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ("+ 2 to create" in ran.stdout, "warning" in ran.stdout) == (True, False)
    filled.change("kind: sqlite", "kind: sqlight")
    refused = filled.run(line, **environment)
    filled.change("kind: sqlight", "kind: sqlite")
    assert refused.returncode != 0
    assert filled.way.logins() == logins


def outcome(ran: subprocess.CompletedProcess[str]) -> str:
    """A cell of the table."""
    warned = "warning:" in ran.stdout
    return "error" if ran.returncode else "0, a warning" if warned else "0"


def table() -> dict[str, list[str]]:
    section = TEXT.partition("## What the job gets")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in section.splitlines() if row.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_what_a_job_gets(repository: Repository) -> None:
    (preview,), (up,) = at_github("preview"), at_github("up")
    well, fault, away = table().values()

    def row() -> list[str]:
        previews = [repository.run(preview, REPLICATOR_PREFLIGHT=word) for word in ("strict", "warn", "off")]
        return [outcome(ran) for ran in (*previews, repository.run(up))]

    repository.change(f"{BUCKET}/", "nowhere/")
    assert row() == fault
    repository.change("nowhere/", f"{BUCKET}/")
    with repository.unreachable():
        asked = shlex.join(["bash", "-c", typed("replicator status")])
        assert [*row()[:3], "error, if it has to change a stream"] == away
        assert repository.run(up).returncode != 0
        (said,) = re.findall(r"^warning: this preview could not look.*$", TEXT, re.MULTILINE)
        assert said in repository.run(preview).stdout
        assert repository.run(asked).returncode == 1
    assert row() == well
    assert repository.run(asked).returncode == 0

    with repository.unreachable():
        nothing = repository.run(up)
        assert outcome(nothing) == "0, a warning"
        assert repository.outputs() == {"lagSeconds": None, "state": None}
        refreshed = repository.run(f"{preview} --refresh", REPLICATOR_PREFLIGHT="off")
        assert (refreshed.returncode, "RPL-SSH-UNREACHABLE" in refreshed.stdout) == (1, True)
        repository.change("name: orders\n", "name: orders\n      checkpointInterval: 10s\n")
        offline = repository.run(preview, REPLICATOR_PREFLIGHT="off")
        assert offline.returncode == 0
        assert "warning: the status of litestream/default/orders is not known" in offline.stdout
        assert "warning: checkpointInterval: restarts" in offline.stdout


def test_the_key_may_be_a_file_and_is_not_in_the_environment(repository: Repository) -> None:
    key = repository.folder / "ci-key"
    ran = repository.run(
        f"ci/run.sh bash -c 'ssh-add -l; env; {typed('replicator status')}'", REPLICATOR_SSH_KEY=str(key)
    )
    assert ran.returncode == 0, ran.stderr
    assert "(ED25519)" in ran.stdout
    assert "REPLICATOR_SSH_KEY" not in ran.stdout
    assert repository.key.splitlines()[1] not in ran.stdout


def test_another_host_key_is_not_taken(repository: Repository) -> None:
    pinned = repository.folder / "ci/known_hosts"
    right = pinned.read_text()
    pinned.write_text(f"{HOST} {(repository.folder / 'ci-key.pub').read_text()}")
    ran = repository.run(typed("replicator status"))
    pinned.write_text(right)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "RPL-SSH-KEYCHANGED" in repository.run(at_github("preview")[0]).stdout + ran.stderr
