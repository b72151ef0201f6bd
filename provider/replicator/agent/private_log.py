"""Log files that only their owner may read: an engine's text may hold secrets that no redactor knows."""

from __future__ import annotations

import io
import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path


class PrivateRotatingFile(RotatingFileHandler):
    """A rotating log file, and the older ones beside it, with mode 0600 under every umask."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the line: a full disk must not stop the process that logs."""

    def _open(self) -> io.TextIOWrapper:
        os.close(os.open(self.baseFilename, os.O_CREAT | os.O_WRONLY, 0o600))
        Path(self.baseFilename).chmod(0o600)
        return super()._open()
