"""A client of an agent in a process of its own: it reads a stream a line, starts it, and prints what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from replicator.errors import ReplicatorError
from replicator.model import Stream
from replicator.remote.client import RemoteReplicator

from tests.backends.sqlite.line_process import LineProcess


class Starter(LineProcess):
    """The other end of the process. Use it as an async context manager."""

    def __init__(self, socket: Path) -> None:
        super().__init__(__name__, str(socket))

    async def start(self, stream: Stream) -> str:
        """Start a stream; `made`, or the error's code and text."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(stream.wire()).encode() + b"\n")
        return str(json.loads(await asyncio.wait_for(self._process.stdout.readline(), 60)))


async def _serve(socket: str) -> None:
    client = RemoteReplicator("litestream", f"unix://{socket}", start_hint="")
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                await client.upsert_stream(Stream.model_validate_json(line))
                answer = "made"
            except ReplicatorError as error:
                answer = f"{error.code} {error.message}"
            print(json.dumps(answer), flush=True)
    finally:
        await client.aclose()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
