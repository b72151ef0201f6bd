"""The failures of a stream that the agent has seen since it started, in memory."""

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
    """One stream's failures. The start and the end of each are logged: an operator reads the log first.

    :param name: the stream's.
    :param error: why the stream does not replicate now; `None` if it does.
    :param stalled: why its uploads do not arrive, though litestream keeps trying.
    :param by_person: the failure stays until an update; a retry would be wrong.
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
        """Note that the stream replicates."""
        self.error, self.stalled, self.by_person, self._answers_since = None, None, False, None
        self._backoff.reset()

    def attached(self) -> None:
        """Note that the stream has just been attached."""
        if self.error is not None:
            _log.info("stream %s: replicates again", self.name)
        self.well()
        self.attached_at = time.monotonic()

    def failed(self, text: str, *, by_person: bool = False, passing: bool = False) -> None:
        """Note that the stream does not replicate. Count it, and retry later; soon, if `passing`."""
        if text != self.error:
            _log.warning("stream %s: failed: %s", self.name, text)
        self.error, self.by_person = text, by_person
        self._note(text, passing=passing)

    def flows(self) -> None:
        """Note that uploads arrive."""
        if self.stalled is not None:
            _log.info("stream %s: uploads again", self.name)
        if self.stalled is not None or self._answers_since is not None:
            self.stalled, self._answers_since = None, None
            self._backoff.reset()

    def answers(self) -> None:
        """Note that nothing is uploaded though the store answers, a failure that the engine does not report."""
        self.stalled = None
        if self._answers_since is None:
            self._answers_since = time.monotonic()
            self.last_error = "nothing was uploaded, though the store answers, and litestream does not say why"
            self._failures.append(self._answers_since)

    def answered_for(self) -> float:
        """Return for how many seconds the store has answered while nothing was uploaded."""
        return time.monotonic() - self._answers_since if self._answers_since is not None else 0.0

    def stalls(self, text: str) -> None:
        """Note that nothing is uploaded while the engine keeps trying. Count it, and ask again later."""
        if text != self.stalled:
            _log.warning("stream %s: nothing is uploaded: %s", self.name, text)
        self.stalled, self._answers_since = text, None
        self._note(text)

    def _note(self, text: str, *, passing: bool = False) -> None:
        self.last_error = text
        self._failures.append(time.monotonic())
        self.retry_at = time.monotonic() + (self._backoff.delay if passing else self._backoff.grow())

    @property
    def errors_last_hour(self) -> int:
        """Return the number of failures within the last 3,600 seconds."""
        since = time.monotonic() - _HOUR
        while self._failures and self._failures[0] < since:
            self._failures.popleft()
        return len(self._failures)
