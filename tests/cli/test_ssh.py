"""The commands, and an agent on another host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator.remote.ssh.command import CONFIG_VARIABLE

from tests.agent.support import Host, call, replicate_orders
from tests.agent.support import host as make_host
from tests.sshd import Sshd, sshd

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def there() -> Iterator[Sshd]:
    """The way to the host."""
    with sshd() as made:
        yield made


@pytest.fixture(scope="module")
def far(there: Sshd) -> Iterator[Host]:
    """An agent that the login may use as a member of a group, with the stream `orders`."""
    with make_host() as made:
        made.folder.chmod(0o755)
        made.start("--socket-group", there.login.group)
        replicate_orders(made)
        yield made


@pytest.fixture
def address(there: Sshd, far: Host, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(CONFIG_VARIABLE, str(there.config))
    return there.address(far.socket)


def test_status_pause_and_resume(address: str) -> None:
    code, out, err = call("status", "orders", "--json", "--address", address)
    assert (code, err) == (0, "")
    assert [(item["name"], item["state"]) for item in json.loads(out)] == [("orders", "running")]
    assert call("pause", "orders", "--address", address)[0] == 0
    assert "paused" in call("status", "--address", address)[1]
    assert call("resume", "orders", "--address", address) == (0, "orders is running\n", "")


def test_logs(address: str, far: Host) -> None:
    code, out, err = call("logs", "orders", "--address", address)
    assert (code, err) == (0, "")
    assert out == call("logs", "orders", "--address", far.address)[1]
    assert "control socket listening" in out


def test_a_replay_logs_in_once(address: str, there: Sshd, far: Host) -> None:
    before, target = there.logins(), far.folder / "copy.db"
    [found] = json.loads(call("status", "--json", "--address", address)[1])
    start = ("--lsn", found["lastCheckpoint"]["lsn"], "--target", str(target), "--yes")
    code, out, err = call("replay", "orders", *start, "--address", address)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("done: ")
    assert target.exists()
    assert there.logins() == before + 2  # one for each command


def test_a_path_of_another_host_is_absolute(address: str) -> None:
    code, _, err = call("replay", "orders", "--lsn", "1", "--target", "copy.db", "--yes", "--address", address)
    assert code == 2
    assert "write an absolute path; it is on the agent's host" in " ".join(err.replace("│", " ").split())


def test_a_failure_says_what_to_do(there: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"UserKnownHostsFile /dev/null\n{there.config.read_text()}")
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    code, out, err = call("status", "--address", there.address())
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "error: the host key of db.example, or of a jump host before it, is not known here [RPL-SSH-KEYUNKNOWN]",
        f"  → log in once by hand, and compare the fingerprint before you accept it: ssh -F {config} db.example",
    ]


@pytest.mark.parametrize("command", [("status",), ("pause", "orders"), ("resume", "orders"), ("replay", "orders")])
def test_a_wrong_address_is_refused(command: tuple[str, ...]) -> None:
    start = ("--lsn", "1", "--yes") if command[0] == "replay" else ()
    code, _, err = call(*command, *start, "--address", "ssh://app:hunter2@db1")
    assert code == 1
    assert "error: address: an address holds no password [RPL-CONFIG-INVALID]" in err
    assert "hunter2" not in err
