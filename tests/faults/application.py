"""An application that is killed: `python application.py DATABASE`. It says whether it could restart the WAL.

It does what makes litestream lose rows that trusts the WAL: rows, then a new WAL over the old one, with old frames left
behind. To close the database would remove the WAL, so it does not.
"""

from __future__ import annotations

import os
import sqlite3
import sys


def main() -> None:
    database = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
    for _ in range(30):
        database.execute("INSERT INTO item (value) VALUES (hex(randomblob(200)))")
    database.execute("PRAGMA busy_timeout = 100")
    (busy, _, _) = database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    database.execute("PRAGMA busy_timeout = 10000")
    database.execute("INSERT INTO item (value) VALUES ('last')")
    print(int(busy == 0), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
