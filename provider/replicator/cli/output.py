"""What the command prints: results on stdout, errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from replicator.errors import ReplicatorError


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Print an error of ours as `error: …` and end with exit code 1."""
    try:
        yield
    except ReplicatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
