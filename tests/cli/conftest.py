"""Hosts for the commands: an empty one for each test, and one with an agent and streams for all that only look."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent.support import Host, replicate_orders
from tests.agent.support import host as make_host


@pytest.fixture
def host() -> Iterator[Host]:
    """A folder for one agent; nothing runs yet."""
    with make_host() as made:
        yield made


@pytest.fixture(scope="module")
def live() -> Iterator[Host]:
    """An agent with the stream `orders`, which has uploaded all of its rows."""
    with make_host() as made:
        made.start()
        replicate_orders(made)
        yield made
