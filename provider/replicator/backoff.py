"""Delays between attempts."""

from __future__ import annotations


class Backoff:
    """Growing delays, in seconds.

    :param first: the first delay.
    :param most: the longest one.
    :param factor: what each delay is multiplied by for the next one.
    """

    def __init__(self, first: float, most: float, *, factor: float = 2.0) -> None:
        self._first = first
        self._most = most
        self._factor = factor
        self.delay = first

    def grow(self) -> float:
        """Return the present delay, and make the next one longer."""
        delay, self.delay = self.delay, min(self.delay * self._factor, self._most)
        return delay

    def reset(self) -> None:
        """Begin with the first delay again."""
        self.delay = self._first
