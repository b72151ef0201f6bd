"""Offsets of many partitions as one checkpoint: `orders=42,8;users=-,3`.

Each topic has one number for each partition, in their order: the next offset to copy, as consumers commit it. A `-`
stands for a partition with an unknown offset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from replicator.errors import InvalidStream
from replicator.model import LSN_LIMIT, Checkpoint


class Partition(NamedTuple):
    """One partition of a topic; `orders/3` as text."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


Offsets = Mapping[Partition, int]
"""The next offset to copy, by partition."""

_TOPIC = re.compile(r"([A-Za-z0-9._-]{1,249})=((?:-|[0-9]+)(?:,(?:-|[0-9]+))*)")


def checkpoint(offsets: Offsets) -> Checkpoint | None:
    """Return the offsets as a checkpoint; `None` if none is known, or if it exceeds the maximal length."""
    text = write(offsets)
    return Checkpoint(lsn=text) if text and len(text) <= LSN_LIMIT else None


def write(offsets: Offsets) -> str | None:
    """Return the offsets as text; `None` if none is known."""
    topics: dict[str, dict[int, int]] = {}
    for (topic, number), offset in offsets.items():
        topics.setdefault(topic, {})[number] = offset
    parts = [
        f"{topic}={','.join(str(known.get(number, '-')) for number in range(max(known) + 1))}"
        for topic, known in sorted(topics.items())
    ]
    return ";".join(parts) or None


def read(text: str) -> dict[Partition, int]:
    """Read offsets from text; raise `InvalidStream` if it has another form."""
    found: dict[Partition, int] = {}
    topics: set[str] = set()
    for part in text.split(";"):
        match = _TOPIC.fullmatch(part.strip())
        if match is None or match[1] in topics:
            raise InvalidStream(
                f"{part[:80]!r} is no position of a mirror",
                property="lsn",
                fix='write the next offset of each partition, as in "orders=42,8;users=-,3"',
            )
        topics.add(match[1])
        for number, offset in enumerate(match[2].split(",")):
            if offset != "-":
                found[Partition(match[1], number)] = int(offset)
    return found
