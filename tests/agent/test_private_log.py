"""The agent's logs are their owner's alone, whatever the umask is and also after a rotation."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator.agent.log import Level, start_logging


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def quiet() -> Iterator[None]:
    """The logging of the tests themselves afterwards."""
    root = logging.getLogger()
    handlers, level, own = root.handlers[:], root.level, logging.getLogger("replicator").level
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("replicator").setLevel(own)


@pytest.mark.usefixtures("open_umask", "quiet")
def test_a_log_and_its_older_files_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicator.agent.log._MOST_BYTES", 200)
    log = tmp_path / "agent.log"
    log.touch(0o644)  # as an earlier release left it
    start_logging(Level.INFO, str, log)
    for number in range(20):
        logging.getLogger("replicator").info("line %d", number)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"agent.log": 0o600, "agent.log.1": 0o600, "agent.log.2": 0o600}
