"""The agent's own log: one line an event, without secrets."""

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
    """How much is said."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LineFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO replicator.agent.run: text`, a traceback in the same line.

    :param redact: takes secret values out of the finished line.
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
        """Return the line. Secrets are looked for before its parts are joined, since a value may have several lines."""
        return " | ".join(self._redact(super().format(record)).splitlines())


def start_logging(level: Level, redact: Callable[[str], str], file: Path | None = None) -> None:
    """Let this process log; libraries say warnings only, because their details hold requests.

    :param file: log there, and keep two older files of the same size; else to stderr.
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
