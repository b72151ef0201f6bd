"""docs/containers.md: its image, its manifest, and the agent as they would run it, without a container runtime.

The agent's container becomes a process in namespaces of its own: another user, process 1, a root that is read-only.
Its folders lie below one of the test, since this machine's `/data` and `/run` are not ours. It keeps the right to read
every file, because the interpreter of the tests may be in a folder that root alone may enter.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from replicator import __version__
from replicator.model import Stream
from replicator.remote.client import RemoteReplicator

from tests.agent.support import caught_up
from tests.engines import S3Server, add_rows, make_database, s3_server
from tests.test_documentation import DOCS, parts, wrong
from tests.waiting import wait_until

PAGE = (DOCS / "containers.md").read_text("utf-8")


def fence(kind: str) -> str:
    """The one block of the page that is marked so."""
    (found,) = [token.content for token in parts(PAGE) if token.type == "fence" and token.info == kind]
    return found


IMAGE = dict(line.split(" ", 1) for line in fence("dockerfile").splitlines())
ENVIRONMENT = dict(word.split("=") for word in IMAGE["ENV"].split())
CONFIG, SET = yaml.safe_load_all(fence("yaml"))
POD = SET["spec"]["template"]["spec"]
(SIDECAR,) = POD["initContainers"]
USER: int = POD["securityContext"]["runAsUser"]


def test_the_image_has_this_release_and_commands_that_exist() -> None:
    wheel = f"replicator_provider-{__version__}-py3-none-any.whl"
    assert IMAGE["COPY"].split()[0] == wheel
    assert IMAGE["RUN"].split()[-1] == f"/tmp/{wheel}"
    assert wrong(json.loads(IMAGE["ENTRYPOINT"])[1:]) == []
    assert wrong(json.loads(IMAGE["HEALTHCHECK"].partition("CMD ")[2])[1:]) == []
    assert IMAGE["USER"] == f"{USER}:{POD['securityContext']['runAsGroup']}"
    assert json.loads(IMAGE["ENTRYPOINT"]) == SIDECAR["command"]


def test_the_manifest_has_one_writer_and_no_right_that_is_not_needed() -> None:
    assert SET["spec"]["replicas"] == 1
    assert SIDECAR["restartPolicy"] == "Always"
    assert SIDECAR["securityContext"]["readOnlyRootFilesystem"] is True
    assert SIDECAR["securityContext"]["allowPrivilegeEscalation"] is False
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert POD["terminationGracePeriodSeconds"] > 30  # what the agent takes to upload what is left
    for probe in ("startupProbe", "livenessProbe"):
        assert wrong(SIDECAR[probe]["exec"]["command"][1:]) == []


def test_each_mount_has_a_volume() -> None:
    volumes = {volume["name"] for volume in POD["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in SET["spec"]["volumeClaimTemplates"]}
    containers = [SIDECAR, *POD["containers"]]
    assert {mount["name"] for container in containers for mount in container["volumeMounts"]} == volumes
    keys = {mount["subPath"] for mount in SIDECAR["volumeMounts"] if "subPath" in mount}
    assert keys == set(CONFIG["data"])


BEGIN = f"""
set -e
mount --make-rprivate /
mount -o remount,ro,bind /
for folder in "$1/data" "$1/run/replicator"; do
  mount --bind "$folder" "$folder"
  mount -o remount,rw,bind "$folder"
done
shift
if touch "$PWD/writable" 2>/dev/null; then exit 99; fi
exec setpriv --reuid {USER} --regid {USER} --groups {USER} --no-new-privs \\
  --bounding-set=-all,+dac_read_search --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search "$@"
"""
"""What a container runtime does before it runs the command; the folder of the mounts is its first argument."""


class Box:
    """The volumes of the pod, laid out as kubelet does, and the agent's container on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "run/replicator/agent.sock"
        self.policy = root / "etc/replicator/agent.toml"
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            **{name: f"{root}{value}" for name, value in ENVIRONMENT.items()},
        }
        self._runs: subprocess.Popen[str] | None = None
        self._folder(root / "data", 0o2775)
        self._folder(root / "run/replicator", 0o2777)
        self._folder(root / "run/secrets/s3", 0o3777)
        self.policy.parent.mkdir(parents=True)

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def grant(self, server: S3Server) -> None:
        """Mount the policy by `subPath`, with the server in place of the page's store."""
        text = CONFIG["data"]["agent.toml"].replace('"/data"', f'"{self.root}/data"')
        text = text.replace("dir:///run", f"dir://{self.root}/run").replace("https://s3.example.com", server.endpoint)
        self.policy.write_text(text)
        os.chown(self.policy, 0, USER)
        self.policy.chmod(0o644)

    def hand_over(self, server: S3Server) -> None:
        """Mount the secret: links to links to files of root that the group may read."""
        folder = self.root / "run/secrets/s3"
        values = folder / "..2026_01_31_12_00_00.1"
        values.mkdir()
        (folder / "..data").symlink_to(values.name)
        pair = {"accessKeyId": server.owner.access_key_id, "secretAccessKey": server.owner.secret_access_key}
        for name, value in pair.items():
            (values / name).write_text(value)
            os.chown(values / name, 0, USER)
            (values / name).chmod(0o440)
            (folder / name).symlink_to(f"..data/{name}")

    def command(self, *words: str) -> list[str]:
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return [*namespaces, "sh", "-c", BEGIN, "sh", str(self.root), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A container that ends by itself."""
        return subprocess.run(
            self.command(*words), env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def start(self) -> None:
        """Start the sidecar, and wait until its startup probe succeeds."""
        with (self.root / "log").open("a") as log:
            self._runs = subprocess.Popen(
                self.command(*SIDECAR["command"]), env=self.environment, stdout=log, stderr=log, text=True
            )
        wait_until(lambda: self.probe("startupProbe") == 0, what=f"the agent answers: {self.log}", interval=0.2)

    def probe(self, name: str) -> int:
        assert self._runs is not None
        assert self._runs.poll() is None, self.log
        return self.run(*SIDECAR[name]["exec"]["command"]).returncode

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal to the container's process 1; its exit code."""
        runs, self._runs = self._runs, None
        assert runs is not None
        children = Path(f"/proc/{runs.pid}/task/{runs.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), how)
        return runs.wait(POD["terminationGracePeriodSeconds"])

    def close(self) -> None:
        if self._runs is not None:
            with suppress(ProcessLookupError):
                self.end(signal.SIGKILL)

    def _folder(self, path: Path, mode: int) -> None:
        path.mkdir(parents=True)
        os.chown(path, 0, USER)
        path.chmod(mode)


@pytest.fixture
def box() -> Iterator[Box]:
    if not _may_unshare():
        pytest.skip("namespaces and another user need root, unshare and setpriv")
    with _folder() as root:
        made = Box(root)
        try:
            yield made
        finally:
            made.close()


def _may_unshare() -> bool:
    """Whether this process may make namespaces and be another user; root in a container often may not."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def _folder() -> Iterator[Path]:
    """A short path, since those of sockets have to be."""
    root = Path(tempfile.mkdtemp(prefix="rpl-"))
    root.chmod(0o755)
    try:
        yield root
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as made:
        made.make_bucket("backups")
        yield made


def application(database: Path) -> None:
    """What the application's container does: it makes the database, as the user of the pod."""
    make_database(database, rows=10)
    os.chown(database, USER, USER)


@pytest.mark.engine
async def test_the_sidecar_replicates_and_goes_on_after_its_end(box: Box, server: S3Server) -> None:
    box.grant(server)
    box.hand_over(server)
    await asyncio.to_thread(box.start)
    assert await asyncio.to_thread(box.probe, "livenessProbe") == 0
    status = json.loads((await asyncio.to_thread(box.run, "replicator", "agent", "status", "--json")).stdout)
    assert (status["pid"], status["state"]) == (1, f"{box.root}/data/replicator")

    database = box.root / "data/shop.db"
    await asyncio.to_thread(application, database)
    stream = Stream.model_validate(
        {
            "name": "shop",
            "source": {"kind": "sqlite", "uri": f"sqlite://{database}"},
            "destination": {
                "kind": "s3",
                "uri": server.url("backups", "shop"),
                "authRef": f"dir://{box.root}/run/secrets/s3",
            },
            "owner": {"urn": "urn:shop"},
        }
    )
    first = await _upload(box, stream)
    replay = ("replicator", "replay", "shop", "--lsn", first, "--target", f"{box.root}/data/copy.db", "--yes")
    copied = await asyncio.to_thread(box.run, *replay)
    assert copied.returncode == 0, copied.stderr
    assert (box.root / "data/copy.db").stat().st_uid == USER

    assert await asyncio.to_thread(box.end) == 0, box.log
    await asyncio.to_thread(box.start)
    add_rows(database, 5)
    assert await _upload(box) > first
    assert (await asyncio.to_thread(box.run, "replicator", "status", "--quiet")).returncode == 0
    assert await asyncio.to_thread(box.end, signal.SIGKILL) != 0
    await asyncio.to_thread(box.start)
    await _upload(box)


async def _upload(box: Box, stream: Stream | None = None) -> str:
    """Declare the stream if it is given, and wait until all is uploaded; the position then."""
    client = RemoteReplicator("litestream", f"unix://{box.socket}", start_hint="start it")
    try:
        if stream is not None:
            await client.upsert_stream(stream)
        found = (await caught_up(client, "shop", within=40)).last_checkpoint
        assert found is not None and found.lsn is not None
        return found.lsn
    finally:
        await client.aclose()


@pytest.mark.engine
async def test_one_dial_stdio_for_each_connection_is_a_way_to_the_agent(box: Box, server: S3Server) -> None:
    """What the socat of the page does."""
    box.grant(server)
    await asyncio.to_thread(box.start)
    (inner,) = re.findall(r'EXEC:"kubectl exec -i shop-0 -c agent -- (.*?)"', PAGE)
    inner = inner.replace("/run/", f"{box.root}/run/")
    started = 0

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal started
        started += 1
        process = await asyncio.create_subprocess_exec(
            *box.command(*inner.split()),
            env=box.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        await asyncio.gather(_pass_on(reader, process.stdin), _pass_on(process.stdout, writer))
        await process.wait()

    near = box.root / "near.sock"
    async with await asyncio.start_unix_server(carry, near):
        client = RemoteReplicator("litestream", f"unix://{near}", start_hint="start it")
        assert await client.list_streams() == []
        await client.aclose()
        ended = await asyncio.create_subprocess_exec(
            *("replicator", "list", "--address", f"unix://{near}"),
            env=box.environment,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await ended.communicate()
        assert (ended.returncode, out.decode()) == (0, "there are no streams\n")
    assert started >= 2


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        target.write(data)
        await target.drain()
    target.close()


def test_each_missing_thing_gives_the_error_of_the_page(box: Box) -> None:
    wanted = dict(block.split(":\nerror: ", 1) for block in fence("text").strip().split("\n\n"))
    box.policy.write_text("")
    found = {}

    def first_error(*options: str) -> str:
        ended = box.run(*SIDECAR["command"], *options)
        assert ended.returncode == 1
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ").replace(str(box.root), "")

    found["a state folder of its own"] = first_error("--state", f"{box.root}/data")
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            patch.delitem(box.environment, name)
        found["the three variables"] = first_error()

    (box.root / "data/replicator").mkdir()
    os.chown(box.root / "data/replicator", USER, USER)
    (box.root / "data/replicator").chmod(0o2770)
    found["OnRootMismatch"] = first_error()
    shutil.rmtree(box.root / "data/replicator")

    box.policy.parent.chmod(0o777)
    found["subPath"] = first_error()
    assert found == {name: text.replace("\n", " ") for name, text in wanted.items()}
