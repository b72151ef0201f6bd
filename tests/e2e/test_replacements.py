"""Replacements that the provider did not ask for: what happens to the streams and to the delivered data.

Pulumi creates the replacement first for `--target-replace` and a tainted resource, and deletes the original afterwards.
For `replaceOnChanges` it deletes the original first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from replicator.model import StreamState, token_digest

from tests.e2e.conftest import Make
from tests.e2e.ledger import Entry, Ledger, recording
from tests.e2e.ways import LONG, WAYS, orders
from tests.pulumi import Project

SKIP = "--skip-preview"
CLEAN = "--expect-no-changes"
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "purging": {"purgeDestination": True},
    "guarded": {"deletionProtection": True},
}
PROTECTED = "set deletionProtection to false and run pulumi up with no other change"


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    with recording() as served:
        yield served


def streams(project: Project, *, guard: bool = True, **changes: Any) -> dict[str, dict[str, Any]]:
    """The three streams; without `guard`, deletionProtection is off."""
    found = {kind: orders(project, kind, **properties, **changes) for kind, properties in KINDS.items()}
    found["guarded"]["deletionProtection"] = guard
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", LONG)
def test_replacements_that_were_not_asked_for(way: str, ledger: Ledger, make_project: Make) -> None:
    project = make_project(f"replaced-{way}")
    project.configure("replicator:memory", {"address": ledger.address})
    WAYS[way].write(project, streams(project))
    project.up(SKIP)
    created = ledger.entries(project.name)
    assert sorted(created) == sorted(made(project, kind) for kind in KINDS)

    urns = [project.resources()[kind]["urn"] for kind in KINDS]
    tokens = {project.owner_token(kind) for kind in KINDS}
    replaced = project.up(SKIP, *(word for urn in urns for word in ("--target-replace", urn)))
    assert all("create-replacement" in replaced.done(kind) for kind in KINDS), "Pulumi did replace them"
    assert ledger.entries(project.name) == created
    assert not tokens & {project.owner_token(kind) for kind in KINDS}
    owned_and_running(project, ledger)
    said = "this state does not own the stream any more, so this delete left the stream as it is"
    assert [replaced.said("info", kind) for kind in KINDS] == [[said]] * 3

    project.run("state", "taint", *urns, "--yes", "--stack", project.stack)
    assert "create-replacement" in project.up(SKIP, "--refresh").done("guarded")
    assert ledger.entries(project.name) == created
    owned_and_running(project, ledger)
    assert [project.up(SKIP).done(kind) for kind in KINDS] == [["same"]] * 3
    assert ledger.entries(project.name) == created

    replace_on_changes(way, project, ledger)
    project.destroy(SKIP)
    assert sorted(ledger.entries(project.name)[-3:]) == sorted(removed(project, kind) for kind in KINDS)
    assert [name for name in ledger.names() if name.startswith(project.name)] == []


def replace_on_changes(way: str, project: Project, ledger: Ledger) -> None:
    """A change of `options` replaces: the streams are removed, then created, and a guarded one stays."""
    start = len(ledger.entries(project.name))
    options = {kind: {"replaceOnChanges": ["options"]} for kind in KINDS}
    changed: dict[str, Any] = {"options": {"fail": ""}}

    def since() -> list[Entry]:
        return ledger.entries(project.name)[start:]

    WAYS[way].write(project, streams(project, **changed), options)
    for words in ((SKIP,), (SKIP, "--refresh")):
        refused = project.up(*words, check=False)
        assert refused.code != 0
        assert PROTECTED in refused.said("error", "guarded")[0]
        assert since().count(removed(project, "guarded")) == 0

    WAYS[way].write(project, {**streams(project, **changed), "guarded": orders(project, "guarded")}, options)
    assert project.up(SKIP).done("guarded") == ["update"]
    assert "guarded" not in {name.rpartition("-")[2] for _, name, _ in since()}
    WAYS[way].write(project, streams(project, guard=False, **changed), options)
    assert project.up(SKIP).done("guarded") == ["delete-replaced", "replace", "create-replacement"]
    for kind in KINDS:
        name = f"{project.name}-{kind}"
        assert [entry for entry in since() if entry[1] == name] == [removed(project, kind), made(project, kind)]
    owned_and_running(project, ledger)
    assert [project.preview(CLEAN).done(kind) for kind in KINDS] == [["same"]] * 3


def made(project: Project, kind: str) -> Entry:
    return ("made", f"{project.name}-{kind}", True)


def removed(project: Project, kind: str) -> Entry:
    return ("removed", f"{project.name}-{kind}", kind != "purging")


def owned_and_running(project: Project, ledger: Ledger) -> None:
    """Each stream runs, and its record has the token of the state."""
    for kind, resource in project.resources().items():
        if kind in KINDS:
            found = ledger.find(f"{project.name}-{kind}")
            assert found and found.stream.owner
            assert found.status.state is StreamState.RUNNING
            assert found.stream.owner.urn == resource["urn"]
            assert found.stream.owner.token == token_digest(project.owner_token(kind))
