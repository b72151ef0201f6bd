"""Which stack may change a stream: after an import, and after a restored state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator.model import Stream, token_digest

from tests.e2e.conftest import Make
from tests.e2e.ledger import Ledger, recording
from tests.e2e.ways import LONG, WAYS, orders
from tests.pulumi import Project, Ran

SKIP = "--skip-preview"
CLEAN = "--expect-no-changes"
TYPE = "replicator:index:Stream"
PLUGIN = WAYS["plugin"]


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    with recording() as served:
        yield served


def run_import(project: Project, resource: str, name: str) -> Ran:
    words = ("import", TYPE, resource, f"memory/default/{name}", "--yes", "--protect=false", "--stack", project.stack)
    return project.run(*words, "--generate-code=false")


def owner_is(ledger: Ledger, name: str, project: Project, resource: str) -> None:
    """The record names the resource, with the token of its state."""
    found = ledger.find(name)
    assert found and found.stream.owner
    assert found.stream.owner.urn == project.resources()[resource]["urn"]
    assert found.stream.owner.token == token_digest(project.owner_token(resource))


def test_an_import_takes_a_stream_over_with_the_next_update(ledger: Ledger, make_project: Make) -> None:
    old, new = make_project("taken-from"), make_project("taken-to")
    for project in (old, new):
        project.configure("replicator:memory", {"address": ledger.address})
    name, inputs = "taken-from-orders", orders(old, "orders")
    PLUGIN.write(old, {"orders": inputs})
    old.up(SKIP)
    urn = old.resources()["orders"]["urn"]
    imported = run_import(new, "taken", name)
    assert f"this stream is owned by {urn}; the next update takes ownership" in imported.text
    refused = new.destroy(SKIP, check=False)
    assert refused.code != 0
    (error,) = refused.said("error", "taken")
    assert f"it was imported, and its record still names {urn} [RPL-OWNER-OTHER]" in error
    assert "run pulumi up first, which takes ownership; or run pulumi state delete" in error
    owner_is(ledger, name, old, "orders")

    PLUGIN.write(new, {"taken": inputs})
    planned = new.preview()
    assert planned.done("taken") == ["update"]
    assert planned.said("info", "taken") == [
        f"ownerUrn: the engine's record names {urn}; this update names this resource"
    ]
    owner_is(ledger, name, old, "orders")
    new.up(SKIP)
    owner_is(ledger, name, new, "taken")
    assert new.preview(CLEAN).done("taken") == ["same"]

    taker = new.resources()["taken"]["urn"]
    PLUGIN.write(old, {"orders": {**inputs, "mode": "cdc"}})
    refused = old.up(SKIP, "--refresh", check=False)
    assert refused.code != 0
    assert f"{taker} owns this stream now" in refused.text
    (error,) = refused.said("error", "orders")
    assert f"it is managed by {taker} [RPL-OWNER-OTHER]" in error
    assert f"run pulumi state delete '{urn}' and remove the resource from this program" in error
    old.destroy(SKIP)
    assert ledger.entries(name) == [("made", name, True)]
    new.destroy(SKIP)
    assert ledger.entries(name) == [("made", name, True), ("removed", name, True)]


def test_an_import_of_a_stream_without_an_owner_previews_clean(ledger: Ledger, make_project: Make) -> None:
    project = make_project("unowned")
    project.configure("replicator:memory", {"address": ledger.address})
    inputs = orders(project, "stray")
    ledger.declare(Stream.model_validate(inputs))
    run_import(project, "stray", inputs["name"])
    PLUGIN.write(project, {"stray": inputs})
    assert project.preview(CLEAN).done("stray") == ["same"]
    project.destroy(SKIP)
    assert ledger.find(inputs["name"]) is None


@pytest.mark.timeout(200)
@pytest.mark.parametrize("way", LONG)
def test_a_state_from_before_a_replacement(way: str, ledger: Ledger, make_project: Make, tmp_path: Path) -> None:
    """A restored state has a stale token. It changes nothing until the stream is adopted as the error says."""
    project = make_project(f"restored-{way}")
    project.configure("replicator:memory", {"address": ledger.address})
    name, inputs, backup = f"{project.name}-orders", orders(project, "orders"), str(tmp_path / "state.json")
    WAYS[way].write(project, {"orders": inputs})
    project.up(SKIP)
    project.run("stack", "export", "--file", backup, "--stack", project.stack)
    urn = project.resources()["orders"]["urn"]
    project.up(SKIP, "--target-replace", urn)
    created = ledger.entries(project.name)

    project.run("stack", "import", "--file", backup, "--stack", project.stack)
    WAYS[way].write(project, {"orders": {**inputs, "mode": "cdc"}})
    refused = project.up(SKIP, check=False)
    assert refused.code != 0
    error = refused.said("error", "orders")[-1]
    assert "its record has a newer owner token than this state: the state was restored from a backup" in error
    assert f"run pulumi state delete '{urn}', then pulumi up" in error
    found = ledger.find(name)
    assert found
    assert found.stream.mode == "snapshot_then_cdc"

    left = project.destroy(SKIP)
    assert left.said("info", "orders")[0].endswith("so this delete left the stream as it is")
    assert ledger.entries(project.name) == created

    project.run("stack", "import", "--file", backup, "--stack", project.stack)
    project.run("state", "delete", urn, "--yes", "--stack", project.stack)
    project.up(SKIP)
    owner_is(ledger, name, project, "orders")
    found = ledger.find(name)
    assert found
    assert found.stream.mode == "cdc"
    assert project.preview(CLEAN).done("orders") == ["same"]
    assert ledger.entries(project.name) == created
    project.destroy(SKIP)
    assert ledger.entries(project.name) == [*created, ("removed", name, True)]
