"""The engine's checks of a database's WAL, and the last transaction file of each.

The oldest change in a waiting file is not older than the last check before the file. The engine checks each second,
but not reliably: its process may be stopped or starved, or pause after an error.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime

from replicator.backends.sqlite.litestream import SyncActivity

_KEPT = 300  # checks of one database; there are thousands of databases
_WHOLE = 32 * 1024 * 1024  # bytes; the engine takes a WAL above 64 MiB in several files


class WalChecks:
    """The last check for each of the newest transactions of one database."""

    def __init__(self) -> None:
        self._txids: list[int] = []
        self._began: list[datetime] = []

    def note(self, began: datetime, txid: int) -> None:
        """Remember a complete check: what was committed before it began is in the files up to `txid`."""
        if self._txids and txid < self._txids[-1]:  # the engine counts from 1 again
            self._txids.clear()
            self._began.clear()
        if self._txids and txid == self._txids[-1]:
            self._began[-1] = max(self._began[-1], began)
            return
        self._txids.append(txid)
        self._began.append(began)
        if len(self._txids) > _KEPT:  # while no file arrives, the first one is that of the last arrival
            del self._txids[1], self._began[1]

    def until(self, txid: int) -> datetime | None:
        """Return the time until which all commits are in the files up to `txid`; `None` if unknown.

        Earlier checks are forgotten: the caller asks for the last transaction at the destination.
        """
        place = bisect_right(self._txids, txid) - 1
        if place < 0:
            return None
        del self._txids[:place], self._began[:place]
        return self._began[0]


def whole_look(activity: SyncActivity) -> tuple[datetime, int] | None:
    """Return when the engine's last check began, and its last transaction; `None` if it was not complete.

    The phases are those of 0.5.17.
    """
    if activity.operation != "sync" or activity.phase != "update_metrics" or activity.active or activity.error:
        return None
    if activity.started_at is None or activity.txid is None or (activity.wal_size or 0) >= _WHOLE:
        return None
    return activity.started_at, activity.txid
