"""The memory backend in a process of its own, which answers each call after a while, as an engine far away does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from replicator.remote.client import RemoteReplicator

_COMMAND = str(Path(sys.executable).parent / "replicator")


class Memory:
    """A served memory backend.

    :param socket: where it is served.
    """

    def __init__(self, socket: Path) -> None:
        self.address = f"unix://{socket}"

    def calls(self) -> dict[str, int]:
        """How often each operation was called since the start; asking is no operation."""

        async def ask() -> dict[str, int]:
            replicator = RemoteReplicator("memory", self.address, start_hint="start it")
            try:
                return (await replicator.info()).calls
            finally:
                await replicator.aclose()

        return asyncio.run(ask())


@contextmanager
def serving(folder: Path, latency: str) -> Iterator[Memory]:
    """Serve a memory backend on a socket in `folder` until the block ends.

    :param latency: the wait before each operation, such as `50ms`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "memory.sock"
    command = [_COMMAND, "serve", "--backend", "memory", "--latency", latency, "--socket", str(socket)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != f"listening on unix://{socket}\n":
                raise RuntimeError(f"the memory backend did not start: {' '.join(command)}")
            yield Memory(socket)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
