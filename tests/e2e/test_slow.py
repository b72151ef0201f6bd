"""A slow link to the store, with the real CLI: only `customTimeouts` end a wait, and the next run goes on."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from replicator.model import StreamState

from tests.e2e.conftest import Make
from tests.e2e.litestream import World
from tests.e2e.test_interrupts import finish
from tests.link import Link, link_to
from tests.pulumi import Project
from tests.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

MB = 1_000_000
SKIP = "--skip-preview"


@pytest.fixture
def link(here: World) -> Iterator[Link]:
    port = urlsplit(here.s3.endpoint).port
    assert port is not None
    with link_to(port, rate=MB, delay=0.1) as link:
        yield link


def declare(here: World, link: Link, project: Project, name: str, timeouts: dict[str, str], **changes: Any) -> None:
    """Write a program with a database of 16 MB, which takes 16 s, or twice that."""
    if not here.host.database(name).exists():
        with contextlib.closing(sqlite3.connect(here.database(name))) as shop, shop:
            shop.execute("CREATE TABLE photo (content)")
            shop.executemany("INSERT INTO photo VALUES (randomblob(?))", [(MB,)] * 16)
    inputs = here.inputs(name, **changes)
    inputs["destination"]["uri"] = link.url(inputs["destination"]["uri"])
    here.grant(inputs["destination"]["uri"])
    here.write(project, inputs, options={"customTimeouts": timeouts})


def test_a_create_that_is_too_short_is_finished_by_the_next_run(here: World, link: Link, make_project: Make) -> None:
    project = make_project("slow")
    declare(here, link, project, "slow", {"create": "12s"}, mode="snapshot")
    late = project.up(SKIP, check=False)
    assert late.code == 1
    assert "the change took longer than 12 s; nothing was undone; last progress: snapshot, " in late.text
    assert " of 16." in late.text, "how far it is"
    assert project.resources()["main"]["id"] == "litestream/default/slow"
    link.rate = 20 * MB
    declare(here, link, project, "slow", {}, mode="snapshot")
    project.up(SKIP)
    assert here.status("slow").state is StreamState.PAUSED
    assert here.restored("slow") == here.content("slow")
    project.destroy(SKIP)


@pytest.mark.parametrize("changes", [{}, {"checkpointInterval": "2s"}], ids=["shared", "own"])
def test_a_first_copy_shows_how_far_it_is(
    here: World, link: Link, make_project: Make, changes: dict[str, str], request: pytest.FixtureRequest
) -> None:
    name = f"far-{request.node.callspec.id}"
    project = make_project(name)
    declare(here, link, project, name, {}, **changes)
    running = project.start("up", SKIP)
    try:
        wait_until(lambda: " of 16." in here.command("status"), "the command shows the upload", timeout=60)
        assert re.search(f"^{name} +snapshot, .* of 16\\.", here.command("status"), re.MULTILINE)
    finally:
        text = finish(running, 120)
    assert running.returncode == 0, text
    here.caught_up(name)
    assert here.restored(name) == here.content(name)
    project.destroy(SKIP)
