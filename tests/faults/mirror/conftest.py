"""Where the streams under test run."""

from __future__ import annotations

import pytest

from tests.faults.mirror.cell import MirrorEnv
from tools.kafka.pair import Pair


@pytest.fixture(scope="session")
def shared(kafka: Pair) -> MirrorEnv:
    """The clusters of the run, with the worker of the west."""
    return MirrorEnv(kafka.east.bootstrap, kafka.west.bootstrap, kafka.west.connect)
