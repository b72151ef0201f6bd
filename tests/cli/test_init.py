"""`replicator agent init` and `agent adopt`: the policy of what is there, and of what is taken over."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from replicator.agent.policy_file import PolicyFile, default_policy
from replicator.agent.registry import FileStore
from replicator.agent.state import StateFolder
from replicator.backends.sqlite.grants import Gate
from replicator.backends.sqlite.record import Phase, StreamRecord
from replicator.errors import PolicyRefused
from replicator.model import Checkpoint, Stream
from replicator.replicator import ReplayMethod, ReplayProgress, ReplayState

from tests.agent.support import Host, call, caught_up, command, replicate_orders
from tests.engines import make_database

EXPECTED = """\
[[source]]
folder = "/srv/shop"

[[source]]
folder = "/srv/bills"

[[destination]]
uri = "s3://backups/orders?endpoint=http://store.lan:9000"
authRef = "env://SHOP_*"

[[destination]]
uri = "s3://backups/items"

[[destination]]
uri = "file:///mnt/replicas/bills"

[[replay]]
folder = "/srv/restored"
"""


def records() -> list[StreamRecord]:
    def record(name: str, source: str, destination: dict[str, str], **changes: object) -> StreamRecord:
        stream = Stream.model_validate(
            {
                "name": name,
                "source": {"kind": "sqlite", "uri": f"sqlite://{source}"},
                "destination": {"kind": "s3", **destination},
            }
        )
        return StreamRecord.model_validate({"stream": stream, "phase": Phase.ACTIVE, "paused": True, **changes})

    replay = ReplayProgress(
        key="one",
        stream="orders",
        state=ReplayState.DONE,
        method=ReplayMethod.COPY,
        start=Checkpoint(lsn="0000000000000001"),
        target="/srv/restored/copy.db",
        started_at=datetime.now(UTC),
    )
    store = "endpoint=http://store.lan:9000&region=eu"
    return [
        record(
            "a-orders",
            "/srv/shop/orders.db",
            {"uri": f"s3://backups/orders?{store}", "authRef": "env://SHOP_*"},
            replays={"one": replay},
        ),
        record("b-items", "/srv/shop/items.db", {"uri": "s3://backups/items"}),
        record("c-bills", "/srv/bills/bills.db", {"uri": "file:///mnt/replicas/bills"}),
    ]


@pytest.fixture
def state(short_path: Path) -> StateFolder:
    folder = StateFolder(short_path / "state")
    folder.make()
    store = FileStore(folder.registry)
    for record in records():
        asyncio.run(store.put(record))
    return folder


def init(state: StateFolder, path: Path, *arguments: str) -> tuple[int, str, str]:
    return call("agent", "init", "--state", str(state.path), "--policy", str(path), *arguments)


def test_what_is_there_is_granted_and_shown(state: StateFolder, tmp_path: Path) -> None:
    path = tmp_path / "etc" / "agent.toml"
    code, out, err = init(state, path, "--dry-run")
    assert (code, out, err) == (0, EXPECTED, "")
    assert not path.exists()
    code, out, err = init(state, path)
    assert (code, err) == (0, "")
    assert path.read_text().endswith(EXPECTED)
    assert path.read_text().rstrip("\n") in out and f"wrote {path}, from 3 streams" in out
    assert path.stat().st_mode & 0o777 == 0o600
    gate = Gate(PolicyFile(path), lambda: [record.stream for record in records()])
    for record in records():
        gate.check_source(record.stream)
        gate.check_destination(record.stream)
    gate.check_copy("a-orders", Path("/srv/restored/other.db"))
    with pytest.raises(PolicyRefused):
        gate.check_copy("a-orders", Path("/etc/cron.d/x"))


def test_a_file_that_is_there_stays(state: StateFolder, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("# mine\n")
    code, _, err = init(state, path)
    assert code == 1
    assert "RPL-CONFIG-INVALID" in err and "--force" in err
    assert path.read_text() == "# mine\n"
    assert init(state, path, "--force")[0] == 0
    assert path.read_text().endswith(EXPECTED)


def test_an_agent_of_another_user_can_read_it(state: StateFolder, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("gives a folder to another user")
    os.chown(state.path, 65534, 65534)
    init(state, tmp_path / "agent.toml")
    info = (tmp_path / "agent.toml").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (0, 65534, 0o640)
    assert PolicyFile(tmp_path / "agent.toml").current() is not None


def test_a_record_that_cannot_be_read_is_named(state: StateFolder, tmp_path: Path) -> None:
    (state.registry / "streams" / "b-items.json").write_text("{")
    _, _, err = init(state, tmp_path / "agent.toml")
    assert "the record of b-items cannot be read" in err


def test_a_stream_that_this_release_refuses_does_not_spoil_the_file(state: StateFolder, tmp_path: Path) -> None:
    store, (orders, *_) = FileStore(state.registry), records()
    renamed = {"kind": "s3", "uri": "s3://backups/old", "authRef": "env://SHOP_*?accessKeyId=SECRET_ACCESS_KEY"}
    old = Stream.model_validate({**orders.stream.wire(), "name": "d-old", "destination": renamed})
    asyncio.run(store.put(orders.model_copy(update={"stream": old, "replays": {}})))
    code, out, err = init(state, tmp_path / "agent.toml")
    assert code == 0 and "s3://backups/old" not in out
    assert "warning: nothing of stream d-old is granted: " in err and "RPL-AUTH-EXPOSED" in err
    assert PolicyFile(tmp_path / "agent.toml").current() is not None
    assert (tmp_path / "agent.toml").read_text().endswith(EXPECTED)


def test_without_streams_the_file_has_examples(tmp_path: Path) -> None:
    init(StateFolder(tmp_path / "nothing"), tmp_path / "agent.toml")
    text = (tmp_path / "agent.toml").read_text()
    assert "# [[source]]" in text
    (tmp_path / "agent.toml").write_text(
        text.replace("# [[", "[[").replace("# folder", "folder").replace("# uri", "uri")
    )
    found = PolicyFile(tmp_path / "agent.toml").current()
    assert found is not None and found.source and found.destination and found.replay
    assert not (tmp_path / "nothing").exists()


@pytest.mark.engine
def test_what_runs_goes_on_under_the_policy_that_init_writes(host: Host) -> None:
    host.start()
    replicate_orders(host)
    path = host.folder / "agent.toml"
    assert init(StateFolder(host.state), path)[0] == 0
    host.end()
    host.start("--policy", str(path))

    async def look() -> None:
        async with host.client() as client:
            await caught_up(client)

    asyncio.run(look())


@pytest.mark.engine
def test_adopt_adds_the_lines_for_what_it_takes_over(host: Host) -> None:
    make_database(host.database(), rows=10)
    config, policy = host.folder / "litestream.yml", host.folder / "agent.toml"
    config.write_text(f'dbs: [{{path: {host.database()}, replica: {{url: "file://{host.folder}/replicas/orders"}}}}]\n')
    mine = '# mine\n[[source]]\nfolder = "/elsewhere"'  # without a line break at its end
    policy.write_text(mine)
    policy.chmod(0o640)
    host.start("--policy", str(policy))
    adopt = ("agent", "adopt", str(config), "--socket", str(host.socket))
    lines = f'[[source]]\nfolder = "{host.folder}"\n\n[[destination]]\nuri = "file://{host.folder}/replicas/orders"\n'
    code, out, _ = call(*adopt, "--dry-run")
    assert code == 0 and f"The agent's policy {policy} needs these lines:\n\n{lines}" in out
    code, out, _ = call(*adopt, "--dry-run", "--json")
    assert "\n\n".join(json.loads(out)["policy"]["lines"]) + "\n" == lines
    assert policy.read_text() == mine
    (host.folder / "replicas" / "orders").mkdir(parents=True)
    (host.folder / "replicas" / "orders" / "notes").write_text("somebody's")
    code, _, err = call(*adopt, "--yes")
    assert code == 1 and "RPL-DEST-INUSE" in err  # the policy let the agent look
    assert policy.read_text() == mine  # and is as it was, since nothing was taken over
    (host.folder / "replicas" / "orders" / "notes").unlink()
    code, out, err = call(*adopt, "--yes")
    assert (code, err) == (0, "")
    assert policy.read_text() == f"{mine}\n\n{lines}"
    assert policy.stat().st_mode & 0o777 == 0o640


@pytest.mark.engine
def test_a_start_without_a_policy_says_so(host: Host, tmp_path: Path) -> None:
    environ = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    if os.geteuid() == 0 and default_policy().exists():
        pytest.fail(f"{default_policy()} is there, and would be read")
    try:
        started = command("agent", "start", *host.places, env=environ)
        assert started.returncode == 0
        assert started.stderr.startswith("warning: the agent has no policy file ") and "agent init" in started.stderr
        command("agent", "stop", "--socket", str(host.socket), env=environ)
        started = command("agent", "start", *host.places, *host.grant_all(), env=environ)
        assert (started.returncode, started.stderr) == (0, "")
    finally:
        command("agent", "stop", "--socket", str(host.socket), env=environ)


@pytest.mark.engine
def test_a_policy_that_the_running_agent_does_not_read_is_told(host: Host) -> None:
    _, read = host.grant_all()
    host.start("--policy", read)
    state = ("--state", str(host.state))
    other = host.folder / "other.toml"
    for more in (("--dry-run",), ()):
        code, out, err = call("agent", "init", *state, "--policy", str(other), *more)
        assert code == 0
        assert f"reads {read}, and not {other}" in err
        assert f"replicator agent init --policy {read}" in err
        assert "the agent reads it" not in out
    code, out, err = call("agent", "init", *state, "--policy", read, "--force")
    assert (code, err) == (0, "")
    assert "the agent reads it before the next thing that it does" in out
    host.end()
    other.unlink()
    code, out, err = call("agent", "init", *state, "--policy", str(other))
    assert (code, err) == (0, "")
