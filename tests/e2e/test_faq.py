"""What docs/faq.md says of an agent that is down during `pulumi up`."""

from __future__ import annotations

from typing import Any

from tests.agent.support import host
from tests.e2e.conftest import Make
from tests.engines import make_database


def test_an_agent_that_is_down_fails_only_the_streams_that_change(make_project: Make) -> None:
    project = make_project("down")
    with host() as agent:
        agent.start(*agent.grant_all())
        make_database(agent.database(), rows=5)
        declared = agent.stream().model_dump(mode="json", by_alias=True, include={"name", "source", "destination"})
        program: dict[str, Any] = {
            "config": {"replicator:litestream": {"value": {"address": agent.address}}},
            "resources": {"orders": {"type": "replicator:index:Stream", "properties": declared}},
        }
        project.write_yaml(program)
        project.up("--skip-preview")
        agent.end()

        assert project.up("--skip-preview", "--expect-no-changes").done("orders") == ["same"]

        program["resources"]["orders"]["properties"] = {**declared, "checkpointInterval": "5s"}
        project.write_yaml(program)
        assert "[RPL-AGENT-DOWN]" in "".join(project.preview().said("warning"))
        failed = project.up("--skip-preview", check=False)
        assert failed.code != 0
        assert "[RPL-AGENT-DOWN]" in failed.text

        agent.start(*agent.grant_all())
        project.up("--skip-preview")
        assert project.resources()["orders"]["outputs"]["checkpointInterval"] == "5s"
