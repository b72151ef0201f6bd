from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path that is short enough for every system."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        yield Path(folder) / "a.sock"
