"""Failures of connectors and tasks that this process has seen. Connect itself keeps only their current state."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable

from replicator.backends.kafka_connect.connector import Connector, ConnectorState
from replicator.backends.kafka_connect.deployed import DeployedStream

HOUR = 3600.0


class Failures:
    """Counts the failures of streams.

    A failure counts once when it is first seen, and again if the task was seen running or on another worker meanwhile.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, frozenset[tuple[object, ...]]] = {}
        self._seen: defaultdict[str, deque[float]] = defaultdict(deque)

    def count(self, deployed: DeployedStream) -> int | None:
        """Note a stream's status, and return its number of failures in the last hour.

        Return `None` if none was seen: a failure that was repaired between two reads leaves no trace.
        """
        now, failed = self._clock(), frozenset(item for connector in deployed.all for item in _failed(connector))
        seen = self._seen[deployed.name]
        seen.extend(now for _ in failed - self._failed.get(deployed.name, frozenset()))
        self._failed[deployed.name] = failed
        while seen and now - seen[0] > HOUR:
            seen.popleft()
        return len(seen) or None


def _failed(connector: Connector) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    if connector.state is ConnectorState.FAILED:
        found.append((connector.name, connector.worker, connector.fault))
    for task in connector.tasks:
        if task.state is ConnectorState.FAILED:
            found.append((connector.name, task.id, task.worker, task.trace))
    return found
