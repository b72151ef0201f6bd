"""Growing delays between attempts."""

from __future__ import annotations


class Backoff:
    """Growing delays, in seconds.

    :param first: the first delay.
    :param most: the longest one.
    :param factor: the factor from each delay to the next.
    """

    def __init__(self, first: float, most: float, *, factor: float = 2.0) -> None:
        self._first = first
        self._most = most
        self._factor = factor
        self.delay = first

    def grow(self) -> float:
        """Return the current delay, and make the next one longer."""
        delay, self.delay = self.delay, min(self.delay * self._factor, self._most)
        return delay

    def reset(self) -> None:
        """Restart with the first delay."""
        self.delay = self._first
