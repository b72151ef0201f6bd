"""A served memory backend that records which streams it made and removed: `python -m tests.e2e.ledger`.

A count of calls cannot tell a delete that removed a stream from one that left it as it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from replicator.backends.memory import MemoryReplicator
from replicator.model import Owner, Stream
from replicator.remote.server import build_app, serve

from tests.e2e.memory import Memory, serving

Entry = tuple[str, str, bool]
"""`made` or `removed`, the stream's name, and whether its destination holds data afterwards."""


class Recorder(MemoryReplicator):
    """The memory backend, which appends an entry to a file for each stream that it makes or removes."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    async def upsert_stream(self, stream: Stream) -> None:
        before = await self._by_name()
        await super().upsert_stream(stream)
        if stream.name not in before:
            self._note("made", stream)

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        before = await self._by_name()
        done = await super().delete_stream(name, owner=owner)
        if name in before and name not in await self._by_name():
            self._note("removed", before[name])
        return done

    async def _by_name(self) -> dict[str, Stream]:
        return {stream.name: stream for stream in await self.list_streams()}

    def _note(self, what: str, stream: Stream) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps([what, stream.name, bool(self.delivered.get(stream.destination.uri))]) + "\n")


class Ledger(Memory):
    """The served backend, and what it recorded."""

    def __init__(self, served: Memory, file: Path) -> None:
        super().__init__(served.socket)
        self._file = file

    def entries(self, prefix: str = "") -> list[Entry]:
        """Return what was made and removed, of the streams whose names begin so, in order."""
        found: list[Entry] = [tuple(json.loads(line)) for line in self._file.read_text().splitlines()]
        return [entry for entry in found if entry[1].startswith(prefix)]


@contextmanager
def recording() -> Iterator[Ledger]:
    """Serve such a backend until the block ends."""
    with tempfile.NamedTemporaryFile(prefix="ledger-") as file:
        command = (sys.executable, "-m", "tests.e2e.ledger")
        with serving(command, ("--file", file.name)) as served:
            yield Ledger(served, Path(file.name))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--file", type=Path, required=True)
    given = parser.parse_args()

    def ready() -> None:
        print(f"listening on unix://{given.socket}", flush=True)

    asyncio.run(serve(build_app({"memory": Recorder(given.file)}), given.socket, ready=ready))


if __name__ == "__main__":
    main()
