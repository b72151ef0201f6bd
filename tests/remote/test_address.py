"""Addresses of agents: what they name, and what is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from replicator.errors import InvalidConfig
from replicator.lifecycle.connections import start_hint
from replicator.remote.address import (
    SOCKET_PATH_LIMIT,
    SshAddress,
    UnixAddress,
    default_address,
    default_socket,
    parse_address,
    parse_unix,
)
from replicator.remote.ssh.ask import WHERE


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("unix:///run/a.sock", UnixAddress(Path("/run/a.sock"))),
        ("ssh://db1", SshAddress(None, "db1", None, None)),
        ("ssh://db1/", SshAddress(None, "db1", None, None)),
        ("ssh://Alias_1.example", SshAddress(None, "Alias_1.example", None, None)),
        ("ssh://app@db1.example", SshAddress("app", "db1.example", None, None)),
        ("ssh://app@db1:2222/run/a.sock", SshAddress("app", "db1", 2222, "/run/a.sock")),
        ("ssh://db1/run/a@b/a.sock", SshAddress(None, "db1", None, "/run/a@b/a.sock")),
        ("ssh://db1:22/run/a@b", SshAddress(None, "db1", 22, "/run/a@b")),
        ("ssh://a.b+c-d@10.0.0.1", SshAddress("a.b+c-d", "10.0.0.1", None, None)),
        ("ssh://app@[2001:db8::1]:22/s", SshAddress("app", "2001:db8::1", 22, "/s")),
        ("ssh://[::1]", SshAddress(None, "::1", None, None)),
    ],
)
def test_an_address(address: str, expected: SshAddress | UnixAddress) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "/run/a.sock",
            "unix:run/a.sock",
            "unix://run/a.sock",
            "http://localhost:1",
            "SSH://h",
            "ssh:/h",
            "ssh:h",
        ),
        *(
            "ssh://",
            "ssh:///run/a.sock",
            "ssh://@h",
            "ssh://a@@h",
            "ssh://a/b@h:c",
            "ssh://h:",
            "ssh://h:x",
            "ssh://h:0",
        ),
        *("ssh://h:65536", "ssh://::1", "ssh://[::1", "ssh://h\n", "ssh://h /s", "ssh://h?x=1", "ssh://h#x"),
        # options and tokens of ssh, and what a shell would read
        *("ssh://-oProxyCommand=x", "ssh://-l@h", "ssh://h%h", "ssh://$(x)", "ssh://a;b@h", "ssh://h/run/%h"),
        *("ssh://h/run/${HOME}", "ssh://h/run/$(x)", "ssh://h/a:b", "ssh://h/a b", "ssh://h/a'b", 'ssh://h/a"b'),
        *("ssh://h/a\\b", "ssh://h/a\nb", "ssh://h/a`b`", "ssh://h/run/", "ssh://h/~/s", f"ssh://h/{'x' * 104}"),
    ],
)
def test_no_address_is_refused_with_what_works(address: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_address(address)
    assert caught.value.property == "address"
    assert "unix:///" in str(caught.value.fix) or str(SOCKET_PATH_LIMIT) in str(caught.value.fix)


@pytest.mark.parametrize("address", ["ssh://app:hunter2@h", "ssh://app:hun/ter2@h/run/a.sock", "ssh://app:@h"])
def test_a_password_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(InvalidConfig, match="an address holds no password") as caught:
        parse_address(address)
    assert "hun" not in str(caught.value)
    assert "ssh-agent" in str(caught.value.fix)


def test_what_is_for_this_host_alone() -> None:
    assert parse_unix("unix:///a") == Path("/a")
    with pytest.raises(InvalidConfig, match="ssh://h is on another host"):
        parse_unix("ssh://h")


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        (default_address(), "start it: replicator agent start"),
        ("unix:///a", "start it: replicator agent start --socket /a"),
        ("ssh://app@db1", "start it on db1: replicator agent start"),
        ("ssh://db1/run/a", "start it on db1: replicator agent start --socket /run/a"),
    ],
)
def test_how_to_start_an_agent(address: str, hint: str) -> None:
    assert start_hint("litestream", address) == hint


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("runtime", [None, "", "run"])
@pytest.mark.parametrize("root", [False, True])
def test_a_host_looks_where_an_agent_there_listens(
    shell: str, runtime: str | None, root: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script that runs on the host, and `default_socket`, which the agent there uses, say the same."""
    tool = tmp_path / "id"
    tool.write_text(f"#!/bin/sh\necho {0 if root else 1000}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if runtime is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime and str(tmp_path / runtime))
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    said = subprocess.run([shell, "-c", WHERE], check=True, capture_output=True, text=True)
    assert (said.stdout, said.stderr) == (f"replicator={default_socket()}\n", "")
