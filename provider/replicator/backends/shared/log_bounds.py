"""The bounds of an answer of `Replicator.log`."""

from __future__ import annotations

from collections.abc import Sequence

from replicator.replicator import LOG_BYTES, LOG_LINES


def fitting_first(lines: Sequence[str], most: int) -> Sequence[str]:
    """Return the first lines that fit into an answer.

    :param most: how many lines were asked for.
    """
    size = 0
    for count, line in enumerate(lines[: min(most, LOG_LINES)]):
        size += len(line.encode())
        if size > LOG_BYTES:
            return lines[:count]
    return lines[: min(most, LOG_LINES)]


def fitting_last(lines: Sequence[str], most: int) -> Sequence[str]:
    """Return the last lines that fit into an answer.

    :param most: how many lines were asked for.
    """
    return fitting_first(lines[::-1], most)[::-1]
