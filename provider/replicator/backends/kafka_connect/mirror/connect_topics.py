"""Detection of a Connect cluster's internal topics with custom names: on a copy, its connectors would run twice."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable

from replicator.backends.kafka.admin import KafkaAdmin
from replicator.backends.kafka.positions import Partition
from replicator.errors import InvalidStream, ReplicatorError

_WITHIN = 2.0
"""Timeout for reading keys, in seconds."""
_HOLDS = 30.0
"""Seconds for which the result for a topic is cached."""

_KEYS = {  # as Kafka 4.3 writes them
    "connectors": re.compile(r"session-key|(?:connector|target-state|commit|logger-cluster)-.+|task-.+-\d+"),
    "status": re.compile(r"status-(?:connector|topic)-.+|status-task-.+-\d+"),
}


class ConnectTopics:
    """Detects the internal topics of Connect clusters in one Kafka cluster, by the keys of compacted topics."""

    def __init__(self, brokers: KafkaAdmin) -> None:
        self._brokers = brokers
        self._known: dict[str, tuple[float, str | None]] = {}

    async def refuse(self, names: Collection[str], include: Collection[str]) -> None:
        """Raise `InvalidStream` if a topic that only a glob matches is visibly one of a Connect cluster.

        :param names: the topics that a mirror copies.
        """
        asked = [name for name in names if name not in include]
        await self._learn([name for name in asked if not self._is_known(name)])
        for name in asked:
            if (what := self._known.get(name, (0.0, None))[1]) is not None:
                raise InvalidStream(
                    f"{name} is where a Connect cluster keeps its {what}; on a copy of it another one would run the "
                    "same connectors",
                    property="include",
                    fix=f"exclude {name}; or name it in include, without a glob, to copy it all the same",
                )

    def _is_known(self, name: str) -> bool:
        return name in self._known and time.monotonic() - self._known[name][0] < _HOLDS

    async def _learn(self, names: Collection[str]) -> None:
        try:
            compacted = await self._brokers.compacted(names)
            topics = await self._brokers.describe(compacted)
        except ReplicatorError:
            return  # its configuration may not be read, so nothing is known
        partitions = [
            Partition(name, at) for name, topic in topics.items() if topic.readable for at in range(topic.partitions)
        ]
        keys = await self._brokers.keys(partitions, _WITHIN)
        now = time.monotonic()
        for name in names:
            found = [key for at, some in keys.items() if at.topic == name for key in some]
            self._known[name] = (now, what_keeps(found))


def what_keeps(keys: Iterable[bytes | None]) -> str | None:
    """Return what a topic with such keys holds for a Connect cluster; `None` if some key is of another kind."""
    words = [key.decode(errors="replace") if key is not None else "" for key in keys]
    if not words:
        return None
    if all(map(_is_position, words)):
        return "offsets"
    return next((what for what, shape in _KEYS.items() if all(map(shape.fullmatch, words))), None)


def _is_position(word: str) -> bool:
    """Tell whether a key is `["CONNECTOR", {…}]`."""
    try:
        found = json.loads(word)
    except ValueError:
        return False
    return isinstance(found, list) and len(found) == 2 and isinstance(found[0], str) and isinstance(found[1], dict)
