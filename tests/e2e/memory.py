"""The memory backend in a process of its own, and what somebody else may do to its streams meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from replicator.model import Checkpoint, Stream, StreamStatus
from replicator.remote.client import RemoteReplicator
from replicator.replicator import Description, ReplayProgress

from tests.pulumi import ROOT, SCRIPTS

EFFECTS = ("upsert_stream", "delete_stream", "pause", "resume", "replay")
SERVE = (str(SCRIPTS / "replicator"), "serve", "--backend", "memory")
SERVE_BEHIND = (sys.executable, "-m", "tests.e2e.lagging_backend")
SERVE_HELD = (sys.executable, "-m", "tests.e2e.held_backend")

T = TypeVar("T")


class Memory:
    """One served memory backend, seen by somebody who does not use Pulumi.

    :param socket: where it is served.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.address = f"unix://{socket}"

    def pause(self, name: str) -> None:
        self._ask(lambda replicator: replicator.pause(name))

    def delete(self, name: str) -> None:
        self._ask(lambda replicator: replicator.delete_stream(name))

    def declare(self, stream: Stream) -> None:
        """Make a stream that no resource manages."""
        self._ask(lambda replicator: replicator.upsert_stream(stream))

    def find(self, name: str) -> Description | None:
        found = self._ask(lambda replicator: replicator.describe([name]))
        return found[0] if found else None

    def status(self, name: str) -> StreamStatus:
        return self._ask(lambda replicator: replicator.get_status(name))

    def streams(self) -> list[Stream]:
        return self._ask(lambda replicator: replicator.list_streams())

    def names(self) -> list[str]:
        return sorted(stream.name for stream in self.streams())

    def start_replay(self, name: str, start: Checkpoint, *, key: str) -> None:
        self._ask(lambda replicator: replicator.replay(name, start, key=key))

    def replay(self, name: str, key: str) -> ReplayProgress:
        return self._ask(lambda replicator: replicator.get_replay(name, key))

    def calls(self) -> dict[str, int]:
        """How often each operation was called."""
        return self._ask(lambda replicator: replicator.info()).calls

    def effects(self) -> dict[str, int]:
        """The same, of the operations that change something."""
        calls = self.calls()
        return {method: calls[method] for method in EFFECTS}

    def _ask(self, call: Callable[[RemoteReplicator], Awaitable[T]]) -> T:
        async def ask() -> T:
            replicator = RemoteReplicator("memory", self.address, start_hint="start it")
            try:
                return await call(replicator)
            finally:
                await replicator.aclose()

        return asyncio.run(ask())


@contextmanager
def serving(command: Sequence[str] = SERVE, arguments: Sequence[str] = ()) -> Iterator[Memory]:
    """Serve a memory backend on a socket of its own until the block ends."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        socket = Path(folder) / "memory.sock"
        process = subprocess.Popen(
            [*command, "--socket", str(socket), *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"listening on unix://{socket}\n"
            yield Memory(socket)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
