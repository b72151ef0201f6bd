from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.ssh_client import processes, use
from tests.sshd import Sshd
from tests.waiting import wait_until


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path that is short enough for every system."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        yield Path(folder) / "a.sock"


@pytest.fixture
def path(host: Sshd) -> Iterator[Path]:
    """A socket of an agent on the host, which the login may use."""
    made = Path(tempfile.mkdtemp(prefix="a", dir=host.folder))
    made.chmod(0o755)
    yield made / "s"
    assert not list(made.glob("s"))


@pytest.fixture
def configured(host: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The client knows the host, has a temporary folder of its own, and at the end leaves nothing in it."""
    use(host, monkeypatch)
    tmp_path_factory.getbasetemp()  # pytest's own, made on first use, stays where it was
    with tempfile.TemporaryDirectory(prefix="rpl-") as ours:
        Path(ours).chmod(0o755)  # a second host's login has to get through
        monkeypatch.setattr(tempfile, "tempdir", ours)
        monkeypatch.setenv("TMPDIR", ours)
        yield
        wait_until(lambda: not processes(), what="no ssh is left")
        assert not list(Path(ours).iterdir())
