"""Random operations over databases and topics at once, while agents, engines, workers and ends die and come back.

At the end content is compared, at the destinations alone. REPLICATOR_SOAK_SECONDS is how long `make proof` goes on (two
hours if left out), and REPLICATOR_PROOF_SEED repeats the choices of a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from pathlib import Path

import pytest
from replicator.backends.sqlite.database import content_hash

from tests.soak.databases import Database, databases
from tests.soak.story import Story
from tests.soak.topics import Topic, topics

LONG = int(os.environ.get("REPLICATOR_SOAK_SECONDS", "7200"))
DATABASES, TOPICS = 4, 3
MOST = 1200
"""Seconds beside a soak's own: starts, and the comparison at the end."""


@pytest.mark.engine
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(60, marks=pytest.mark.timeout(600)),
        pytest.param(LONG, marks=[pytest.mark.proof, pytest.mark.timeout(LONG + MOST)]),
    ],
    ids=["a minute", "long"],
)
async def test_nothing_is_lost_whatever_happens(tmp_path: Path, seconds: int, request: pytest.FixtureRequest) -> None:
    long = "long" in request.node.name
    seed = os.environ.get("REPLICATOR_PROOF_SEED") or (uuid.uuid4().hex[:8] if long else "1")
    print(f"REPLICATOR_PROOF_SEED={seed}")
    story = Story(seed, seconds)
    async with (
        topics(story, tmp_path, TOPICS) as (mirrored, clusters),
        databases(story, tmp_path, DATABASES) as (
            files,
            agents,
        ),
    ):
        subjects: list[Database | Topic] = [*files, *mirrored]
        await asyncio.gather(*(subject.make() for subject in subjects))
        story.begin()
        async with asyncio.TaskGroup() as all_:
            for subject in subjects:
                all_.create_task(story.go_on(random.Random(f"{seed}/{subject.name}/order"), subject.actions, pause=1))
            for chaos in (clusters, agents):
                all_.create_task(story.go_on(random.Random(f"{seed}/{chaos.name}"), chaos.actions, pause=15))
        for subject in subjects:
            await subject.make()
        for subject in subjects:
            await subject.compare()
        await _assert_a_loss_is_found(files[0], mirrored[0])
    print("\n".join(f"{count:6d} {what}" for what, count in sorted(story.counts.items())))


async def _assert_a_loss_is_found(file: Database, topic: Topic) -> None:
    """The control: the comparisons see one row and one record that are not at the destination."""
    await file.write_while_paused()
    assert await file.restored() != await content_hash(file.database)
    topic.cell.written.append("never")
    with pytest.raises(AssertionError, match="lacks 1"):
        await topic.cell.misses_nothing()
