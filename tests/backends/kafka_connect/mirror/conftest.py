"""Mirrors between the two clusters of the run, removed when the test ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv
from tools.kafka.cluster import Broker
from tools.kafka.pair import Pair

OpenBed = Callable[..., MirrorEnv]
"""Opens what `MirrorEnv` describes, until the test ends."""


@pytest.fixture
async def open_bed() -> AsyncIterator[OpenBed]:
    opened: list[MirrorEnv] = []

    def open_(*given: Any, **rest: Any) -> MirrorEnv:
        opened.append(MirrorEnv(*given, **rest))
        return opened[-1]

    yield open_
    for bed in reversed(opened):
        await bed.remove()


@pytest.fixture
def bed(kafka: Pair, open_bed: OpenBed) -> MirrorEnv:
    """From east to west, by the workers of the west."""
    return open_bed(kafka.east, kafka.west, kafka.west.connect)


@pytest.fixture
def at_source(kafka: Pair, open_bed: OpenBed) -> MirrorEnv:
    """From east to west, by the workers of the east."""
    return open_bed(kafka.east, kafka.west, kafka.east.connect)


@pytest.fixture
def third(tmp_path: Path) -> Iterator[Broker]:
    """A broker of this test alone, which may end."""
    broker = Broker(tmp_path / "third")
    broker.start()
    yield broker
    broker.kill()
