"""The `replicator` command. Each module here is one command; it imports what it needs when it runs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the console script. `replicator.cli.exits` has its exit codes."""
    if sys.argv[1:3] == ["agent", "dial-stdio"]:
        # Each login through ssh waits for it, and the imports of the other commands take ten times as long.
        from replicator.cli.dial import fast

        fast(sys.argv[3:])
    try:
        from replicator.cli.commands import app
        from replicator.cli.output import errors_for_people

        with errors_for_people():
            app()
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(130)
