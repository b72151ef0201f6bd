"""What the agent has seen go wrong with a stream; in memory, since the process started."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field

from replicator.backoff import Backoff

_HOUR = 3600.0
_LONGEST_DELAY = 30.0

_log = logging.getLogger(__name__)


@dataclass
class Health:
    """One stream's failures. Each new one is logged, and so is its end: a person on call reads the log first.

    :param name: the stream's.
    :param error: why it does not replicate now; `None` where it does.
    :param stalled: why its uploads do not arrive, though litestream goes on trying.
    :param by_person: it stays so until somebody runs an update; trying again would not be right.
    :param retry_at: when to try again, on the monotonic clock.
    """

    name: str
    error: str | None = None
    stalled: str | None = None
    last_error: str | None = None
    by_person: bool = False
    retry_at: float = 0.0
    attached_at: float | None = None
    _backoff: Backoff = field(default_factory=lambda: Backoff(1.0, _LONGEST_DELAY))
    _answers_since: float | None = None
    _failures: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))

    def well(self) -> None:
        """It replicates."""
        self.error, self.stalled, self.by_person, self._answers_since = None, None, False, None
        self._backoff.reset()

    def attached(self) -> None:
        """It was taken up just now."""
        if self.error is not None:
            _log.info("stream %s: replicates again", self.name)
        self.well()
        self.attached_at = time.monotonic()

    def failed(self, text: str, *, by_person: bool = False, passing: bool = False) -> None:
        """It does not replicate. Count the failure, and try again later; soon, where it was somebody else's."""
        if text != self.error:
            _log.warning("stream %s: failed: %s", self.name, text)
        self.error, self.by_person = text, by_person
        self._note(text, passing=passing)

    def flows(self) -> None:
        """Its uploads arrive."""
        if self.stalled is not None:
            _log.info("stream %s: uploads again", self.name)
        if self.stalled is not None or self._answers_since is not None:
            self.stalled, self._answers_since = None, None
            self._backoff.reset()

    def answers(self) -> None:
        """Nothing is uploaded, though the store answers. That is a failure, of which the engine says nothing."""
        self.stalled = None
        if self._answers_since is None:
            self._answers_since = time.monotonic()
            self.last_error = "nothing was uploaded, though the store answers, and litestream does not say why"
            self._failures.append(self._answers_since)

    def answered_for(self) -> float:
        """Seconds since the store answers and nothing is uploaded."""
        return time.monotonic() - self._answers_since if self._answers_since is not None else 0.0

    def stalls(self, text: str) -> None:
        """Nothing is uploaded, and the engine goes on trying by itself. Count it, and ask again later."""
        if text != self.stalled:
            _log.warning("stream %s: uploads nothing: %s", self.name, text)
        self.stalled, self._answers_since = text, None
        self._note(text)

    def _note(self, text: str, *, passing: bool = False) -> None:
        self.last_error = text
        self._failures.append(time.monotonic())
        self.retry_at = time.monotonic() + (self._backoff.delay if passing else self._backoff.grow())

    @property
    def errors_last_hour(self) -> int:
        """Failures seen within the last 3,600 seconds."""
        since = time.monotonic() - _HOUR
        while self._failures and self._failures[0] < since:
            self._failures.popleft()
        return len(self._failures)
