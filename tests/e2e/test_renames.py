"""A resource or its stack gets another name: the stream stays, and its record names the new URN."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
import yaml
from replicator.model import token_digest

from tests.e2e.conftest import Make
from tests.e2e.ledger import Ledger, recording
from tests.e2e.ways import LONG, WAYS, orders
from tests.pulumi import ROOT, Project

SKIP = "--skip-preview"
CLEAN = "--expect-no-changes"
PAGE = ROOT / "docs" / "rename.md"


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    with recording() as served:
        yield served


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", LONG)
def test_alias_and_stack_rename(way: str, ledger: Ledger, make_project: Make) -> None:
    project = make_project(f"renamed-{way}")
    project.configure("replicator:memory", {"address": ledger.address})
    name, inputs = f"{project.name}-orders", orders(project, "orders")
    WAYS[way].write(project, {"orders": inputs})
    project.up(SKIP)
    urn, created = project.resources()["orders"]["urn"], ledger.entries(project.name)
    assert created == [("made", name, True)]

    WAYS[way].write(project, {"sales": inputs}, {"sales": {"aliases": [urn]}})
    planned = project.preview()
    assert planned.done("sales") == ["update"]
    assert planned.said("info", "sales") == [
        f"ownerUrn: the engine's record names {urn}; this update names this resource"
    ]
    project.up(SKIP)
    renamed = owned_by(project, "sales", ledger, name)
    assert project.preview(CLEAN).done("sales") == ["same"]

    WAYS[way].write(project, {"orders": inputs})
    refused = project.up(SKIP, check=False)
    assert refused.code != 0
    assert f"stream {name!r}: it is managed by {renamed} [RPL-OWNER-OTHER]" in refused.text
    assert "give it the option aliases: [{name: sales}]; else choose another name" in refused.text
    assert owned_by(project, "sales", ledger, name) == renamed

    WAYS[way].write(project, {"orders": inputs}, {"orders": {"aliases": [renamed]}})
    project.up(SKIP)
    assert owned_by(project, "orders", ledger, name) == urn
    project.run("stack", "rename", "prod", "--stack", project.stack)
    project.stack = "prod"
    WAYS[way].write(project, {"orders": inputs})
    planned = project.preview()
    assert planned.done("orders") == ["update"]
    assert f"the engine's record names {urn}" in planned.said("info", "orders")[0]
    assert project.up(SKIP).done("orders") == ["update"]
    assert owned_by(project, "orders", ledger, name) == urn.replace(":dev:", ":prod:")
    assert project.preview(CLEAN).done("orders") == ["same"]
    assert ledger.entries(project.name) == created
    project.destroy(SKIP)
    assert ledger.entries(project.name) == [*created, ("removed", name, True)]


@pytest.mark.parametrize("given", [True, False], ids=["name-given", "name-left-out"])
def test_another_resource_takes_the_old_name(given: bool, ledger: Ledger, make_project: Make) -> None:
    """The resource `orders` becomes `orders-eu`; a new `orders` of another database is not the same stream."""
    project = make_project(f"reused-{'given' if given else 'made'}")
    project.configure("replicator:memory", {"address": ledger.address})
    first, second = (orders(project, key, name=f"{project.name}-orders" if given else None) for key in ("eu", "us"))
    WAYS["plugin"].write(project, {"orders": first})
    project.up(SKIP)
    state = project.resources()["orders"]
    name, created = state["inputs"]["name"], ledger.entries(project.name)
    after = {"orders": {"dependsOn": ["${orders-eu}"]}}
    both = {"orders-eu": first, "orders": second}

    # In one update Pulumi itself refuses the old name; without the alias, later, it does not.
    for options, words in (
        ({**after, "orders-eu": {"aliases": [state["urn"]]}}, "Duplicate resource URN"),
        (after, f"stream {name!r}: it is managed by {state['urn'].replace('::orders', '::orders-eu')}"),
    ):
        WAYS["plugin"].write(project, both, options)
        refused = project.up(SKIP, check=False)
        assert refused.code != 0
        assert words in refused.said("error", "orders")[0]
        owned_by(project, "orders-eu", ledger, name)
        found = ledger.find(name)
        assert found
        assert found.stream.source.uri == first["source"]["uri"]
    assert "; else choose another name; or, if urn:pulumi:" in refused.text
    assert ledger.entries(project.name) == created

    WAYS["plugin"].write(project, {**both, "orders": {**second, "name": f"{project.name}-us"}})
    project.up(SKIP)
    assert sorted(stream.source.uri for stream in ledger.streams() if stream.name.startswith(project.name)) == sorted(
        inputs["source"]["uri"] for inputs in (first, second)
    )
    project.destroy(SKIP)
    assert [left for left in ledger.names() if left.startswith(project.name)] == []


def test_a_move_between_stacks(ledger: Ledger, make_project: Make) -> None:
    """`pulumi state move` keeps the token, so that the new stack proves that the stream is its own."""
    old, new = make_project("moved-from"), make_project("moved-to")
    for project in (old, new):
        project.configure("replicator:memory", {"address": ledger.address})
    name, inputs = "moved-from-orders", orders(old, "orders")
    WAYS["plugin"].write(old, {"orders": inputs})
    old.up(SKIP)
    moved = old.resources()["orders"]["urn"]
    [line] = re.findall(r"^\$ pulumi (.+)$", section("Split a stack"), re.MULTILINE)
    line = line.replace("::shop::", f"::{old.name}::").replace("/shop/", f"/{old.name}/")
    words = shlex.split(line.replace("/billing/", f"/{new.name}/"))
    assert moved in words
    old.run(*words, "--yes")

    WAYS["plugin"].write(new, {"orders": inputs})
    planned = new.preview()
    assert planned.done("orders") == ["update"]
    assert f"the engine's record names {moved}" in planned.said("info", "orders")[0]
    new.up(SKIP)
    assert owned_by(new, "orders", ledger, name) == moved.replace(f"::{old.name}::", f"::{new.name}::")
    new.preview(CLEAN)
    refused = old.up(SKIP, check=False)
    assert "[RPL-OWNER-OTHER]" in refused.said("error", "orders")[0]
    old.destroy(SKIP)
    assert ledger.entries("moved-") == [("made", name, True)]
    new.destroy(SKIP)
    assert ledger.entries("moved-") == [("made", name, True), ("removed", name, True)]


def section(title: str) -> str:
    """A section of docs/rename.md."""
    return PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_page_on_an_alias_and_a_parent(ledger: Ledger, make_project: Make) -> None:
    """docs/rename.md: what its aliases say is one update each, and no stream is made or removed."""
    project = make_project("page")
    project.configure("replicator:memory", {"address": ledger.address})
    inputs, shop = orders(project, "orders"), orders(project, "shop")
    WAYS["plugin"].write(project, {"orders": inputs, "shop": shop})
    project.up(SKIP)
    created = ledger.entries(project.name)
    name = f"{project.name}-orders"

    written = yaml.safe_load(section("Rename a resource").partition("```yaml\n")[2].partition("```")[0])
    WAYS["plugin"].write(project, {"sales": inputs, "shop": shop}, {"sales": written["resources"]["sales"]["options"]})
    planned = project.preview()
    assert planned.done("sales") == ["update"]
    line = section("Rename a resource").partition("```\n ~")[2].partition("\n")[0]
    assert f"~{line}" in planned.stdout
    project.up(SKIP)
    owned_by(project, "sales", ledger, name)

    block = section("Change the parent").partition("```yaml\n")[2].partition("```")[0]
    WAYS["plugin"].write(project, {"sales": inputs, "shop": shop}, {"sales": yaml.safe_load(block)["options"]})
    assert project.preview().done("sales") == ["update"]
    project.up(SKIP)
    parented = owned_by(project, "sales", ledger, name)
    assert "replicator:index:Stream$replicator:index:Stream::sales" in parented
    assert ledger.entries(project.name) == created

    commands = re.findall(r"^\$ pulumi (.+)$", section("Rename a stack"), re.MULTILINE)
    assert commands == ["stack rename prod", "up"]
    project.run(*commands[0].split(), "--stack", project.stack)
    project.stack = "prod"
    assert project.preview().done("sales") == ["update"]
    project.up(SKIP)
    owned_by(project, "sales", ledger, name)
    assert ledger.entries(project.name) == created
    project.destroy(SKIP)


def test_the_page_on_a_replacement(ledger: Ledger, make_project: Make) -> None:
    """docs/rename.md: its two commands remove the stream and create it."""
    project = make_project("shop")
    project.configure("replicator:memory", {"address": ledger.address})
    WAYS["plugin"].write(project, {"orders": orders(project, "orders")})
    project.up(SKIP)
    destroy, up = (
        shlex.split(line) for line in re.findall(r"^\$ pulumi (.+)$", section("Replace a stream"), re.MULTILINE)
    )
    assert destroy[-1] == project.resources()["orders"]["urn"]
    project.operate(*destroy, SKIP)
    project.operate(*up, SKIP)
    made, removed = ("made", "shop-orders", True), ("removed", "shop-orders", True)
    assert ledger.entries("shop-") == [made, removed, made]
    project.destroy(SKIP)


def owned_by(project: Project, resource: str, ledger: Ledger, name: str) -> str:
    """Return the URN of the resource, which the record names, with the token of the state."""
    found = ledger.find(name)
    assert found and found.stream.owner
    urn = project.resources()[resource]["urn"]
    assert found.stream.owner.urn == urn
    assert found.stream.owner.token == token_digest(project.owner_token(resource))
    return str(urn)
