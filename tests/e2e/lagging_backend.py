"""A memory backend whose streams are behind their source until a file exists: `python -m tests.e2e.lagging_backend`.

The memory backend delivers at once, so that nothing ever waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replicator.backends.memory import MemoryReplicator
from replicator.model import StreamState, StreamStatus
from replicator.replicator import Description

from tests.e2e.gated import main


class Behind(MemoryReplicator):
    """The memory backend, whose running streams tell that all is still to be delivered.

    :param gate: they have caught up when this file exists.
    """

    def __init__(self, gate: Path) -> None:
        super().__init__()
        self._gate = gate

    async def get_status(self, name: str) -> StreamStatus:
        return self._seen(await super().get_status(name))

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        found = await super().describe(names)
        return [item.model_copy(update={"status": self._seen(item.status)}) for item in found]

    def _seen(self, status: StreamStatus) -> StreamStatus:
        if status.state is not StreamState.RUNNING or self._gate.exists():
            return status
        still = {"state": StreamState.CATCHING_UP, "lag_events": status.events_replicated, "events_replicated": 0}
        return status.model_copy(update=still)


if __name__ == "__main__":
    main(Behind)
