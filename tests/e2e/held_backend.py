"""A memory backend that holds calls of one kind while a file says so: `python -m tests.e2e.held_backend`.

What a test cuts off is then under way for certain, and nothing else is slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from replicator.backends.memory import MemoryReplicator
from replicator.model import Owner, Stream
from replicator.replicator import Description

from tests.e2e.gated import main


class Held(MemoryReplicator):
    """The memory backend, which does nothing in a call whose name is in a file, as long as it is.

    :param gate: the file.
    """

    def __init__(self, gate: Path) -> None:
        super().__init__()
        self._gate = gate

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        await self._passed("describe")
        return await super().describe(names)

    async def upsert_stream(self, stream: Stream) -> None:
        await self._passed("upsert_stream")
        await super().upsert_stream(stream)

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        await self._passed("delete_stream")
        return await super().delete_stream(name, owner=owner)

    async def _passed(self, call: str) -> None:
        while self._gate.read_text() == call:
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    main(Held)
