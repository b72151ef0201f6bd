"""Where a command looks for the agent: as it is told, as the environment says, or here."""

from __future__ import annotations

import json

import pytest
from replicator.cli.clients import address_of
from replicator.errors import InvalidConfig
from replicator.remote.address import default_address

from tests.agent.support import Host, call

VARIABLE = "REPLICATOR_LITESTREAM"
BLOCK = json.dumps({"address": "unix:///env", "regions": {"eu-fra": "ssh://db2"}})


@pytest.mark.parametrize(
    ("given", "variable", "found"),
    [
        (None, "", default_address()),
        (None, "{}", default_address()),
        (None, BLOCK, "unix:///env"),
        ("ssh://db1", BLOCK, "ssh://db1"),
        ("ssh://db1", "wrong", "ssh://db1"),
    ],
)
def test_the_address(given: str | None, variable: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, variable)
    monkeypatch.setenv("REPLICATOR_PREFLIGHT", "no concern of a command")
    assert address_of("litestream", given) == found


@pytest.mark.parametrize(
    ("given", "variable", "says"),
    [
        ("db1", "", "address: is not an address of an agent"),
        (None, "unix:///env", "replicator:litestream: must be an object"),
        (None, "unix:///env", f"export {VARIABLE}="),
        (None, '{"regions": {"eu-fra": "ssh://db2"}}', f"{VARIABLE} has no address that stands for all regions"),
    ],
)
def test_no_address(given: str | None, variable: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, variable)
    with pytest.raises(InvalidConfig) as caught:
        address_of("litestream", given)
    assert says in str(caught.value)


@pytest.mark.engine
def test_every_command_that_asks_an_agent_reads_the_variable(live: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"address": live.address}))
    for command in (("list",), ("status",), ("status", "orders", "--json")):
        code, out, err = call(*command)
        assert (code, err) == (0, "")
        assert "orders" in out
    code, out, _ = call("doctor")
    assert f"at {live.address}" in " ".join(out.split())
