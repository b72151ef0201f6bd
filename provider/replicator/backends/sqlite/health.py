"""What the agent has seen go wrong with a stream; in memory, since the process started."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

_HOUR = 3600.0


@dataclass
class Health:
    """One stream's failures.

    :param error: why it does not replicate now; `None` where it does.
    :param by_person: it stays so until somebody runs an update; trying again would not be right.
    :param retry_at: when to try again, on the monotonic clock.
    """

    error: str | None = None
    last_error: str | None = None
    by_person: bool = False
    retry_at: float = 0.0
    attached_at: float | None = None
    _delay: float = 1.0
    _failures: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))

    def well(self) -> None:
        """It replicates."""
        self.error, self.by_person, self._delay = None, False, 1.0

    def attached(self) -> None:
        """It was taken up just now."""
        self.well()
        self.attached_at = time.monotonic()

    def failed(self, text: str, *, by_person: bool = False) -> None:
        """It does not replicate. Count the failure, and try again later."""
        self.error, self.by_person = text, by_person
        self.noted(text)
        self.retry_at = time.monotonic() + self._delay
        self._delay = min(self._delay * 2, 30.0)

    def noted(self, text: str) -> None:
        """Something failed, and the engine goes on by itself."""
        self.last_error = text
        self._failures.append(time.monotonic())

    @property
    def errors_last_hour(self) -> int:
        """Failures seen within the last 3,600 seconds."""
        since = time.monotonic() - _HOUR
        while self._failures and self._failures[0] < since:
            self._failures.popleft()
        return len(self._failures)
