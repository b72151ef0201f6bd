from __future__ import annotations

import pytest

from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine


def test_one(kafka: Pair) -> None:
    assert kafka.east.cluster_id != kafka.west.cluster_id
