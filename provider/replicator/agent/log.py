"""The agent's own log: one line per event, without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from replicator.agent.private_log import PrivateRotatingFile

_MOST_BYTES = 10_000_000


class Level(StrEnum):
    """The verbosity of the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LineFormatter(logging.Formatter):
    """A formatter: `2026-01-31T12:00:00.000Z INFO replicator.agent.run: text`, with a traceback in the same line.

    :param redact: removes secret values from the finished line.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redact = redact

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Return the time of the event, in UTC with milliseconds."""
        del datefmt
        made = datetime.fromtimestamp(record.created, UTC)
        return made.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Redact secrets before joining its parts, since a value may have several lines."""
        return " | ".join(self._redact(super().format(record)).splitlines())


def start_logging(level: Level, redact: Callable[[str], str], file: Path | None = None) -> None:
    """Configure this process's log. Libraries log warnings only, because their details contain requests.

    :param file: the log file, kept with two older ones of the same size; without it, log to stderr.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = PrivateRotatingFile(file, maxBytes=_MOST_BYTES, backupCount=2, encoding="utf-8")
    handler.setFormatter(LineFormatter(redact))
    logging.basicConfig(level=max(logging.WARNING, _number(level)), handlers=[handler], force=True)
    logging.getLogger("replicator").setLevel(_number(level))


def _number(level: Level) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
