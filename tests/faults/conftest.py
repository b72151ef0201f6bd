"""One nursery of agents for the session, and a short folder for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import find_engine
from tests.faults.cell import Nursery
from tests.faults.processes import litestreams

pytest.register_assert_rewrite("tests.faults.subjects", "tests.faults.mirror.subjects", "tests.faults.mirror.cell")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that forks agents. None of them outlives its test."""
    find_engine("litestream")
    made = Nursery()
    try:
        yield made
    finally:
        left = made.close()
    assert left == []


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        yield Path(folder)
        assert litestreams(Path(folder)) == []
