"""A host for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent.support import Host
from tests.agent.support import host as make_host


@pytest.fixture
def host() -> Iterator[Host]:
    """A folder for one agent; nothing runs yet."""
    with make_host() as made:
        yield made
