"""One agent for each region, each on a host of its own: a stream is managed where its source is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.agent.support import Host
from tests.agent.support import host as make_host
from tests.engines import make_database
from tests.pulumi import Project
from tests.sshd import Sshd, sshd

pytestmark = pytest.mark.engine

REGIONS = ("us-east", "eu-fra")


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, tuple[Sshd, Host]]]:
    """An agent with a database in each region."""
    with ExitStack() as stack:
        made = {}
        for region in REGIONS:
            way = stack.enter_context(sshd(f"{region}.example"))
            there = stack.enter_context(make_host())
            there.folder.chmod(0o755)
            make_database(there.database(region), rows=10)
            there.start("--socket-group", way.login.group)
            made[region] = way, there
        yield made


def program(places: dict[str, tuple[Sshd, Host]]) -> dict[str, Any]:
    """A stream for each region, in one provider."""
    regions = {region: way.address(there.socket) for region, (way, there) in places.items()}
    resources: dict[str, Any] = {
        "agents": {
            "type": "pulumi:providers:replicator",
            "properties": {"litestream": {"regions": regions}},
            "defaultProvider": True,
        }
    }
    for region, (_, there) in places.items():
        resources[region] = {
            "type": "replicator:index:Stream",
            "properties": {
                "name": region,
                "source": {"kind": "sqlite", "uri": f"sqlite://{there.database(region)}", "region": region},
                "destination": {"kind": "s3", "uri": f"file://{there.folder}/replicas/{region}"},
                "waitFor": "caught_up",
            },
        }
    return {"resources": resources, "outputs": {region: f"${{{region}.id}}" for region in places}}


async def names(there: Host) -> list[str]:
    async with there.client() as client:
        return [stream.name for stream in await client.list_streams()]


def left_over(config: Path) -> list[str]:
    """The ssh processes that use a configuration."""
    listed = subprocess.run(["ps", "-axwwo", "args="], check=True, stdout=subprocess.PIPE, text=True)
    return [line for line in listed.stdout.splitlines() if f"-F {config}" in line]


async def test_two_agents_through_ssh(places: dict[str, tuple[Sshd, Host]], tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text("\n".join(way.config.read_text() for way, _ in places.values()))
    project = Project(tmp_path / "project", name="regions", environment={"REPLICATOR_SSH_CONFIG": str(config)})
    project.write_yaml(program(places))
    project.init()

    project.up("--skip-preview")
    assert project.outputs() == {region: f"litestream/{region}/{region}" for region in REGIONS}
    assert [await names(there) for _, there in places.values()] == [["us-east"], ["eu-fra"]]
    assert all(way.logins() == 1 for way, _ in places.values())
    assert left_over(config) == []

    project.preview("--expect-no-changes")
    project.refresh("--skip-preview", "--expect-no-changes")

    way, _ = places["eu-fra"]
    way.stop()
    failed = project.refresh("--skip-preview", check=False)
    assert failed.code != 0
    assert "eu-fra.example cannot be reached" in failed.text
    assert "[RPL-SSH-UNREACHABLE]" in failed.text
    assert set(project.resources()) >= set(REGIONS)  # a host that is away is not a stream that is gone
    way.start()

    project.destroy("--skip-preview")
    assert [await names(there) for _, there in places.values()] == [[], []]
    assert left_over(config) == []
