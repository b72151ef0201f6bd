"""Output of the command: results on stdout, errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from replicator.cli.exits import Exit
from replicator.errors import ReplicatorError

if TYPE_CHECKING:
    from replicator.model import Checkpoint

UNKNOWN = "-"
"""The text for a value that the engine cannot tell."""

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def say(line: str) -> None:
    """Print a line without buffering, also into a pipe. End the command if it cannot be written."""
    try:
        print(line, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes the rest when it ends
        if isinstance(error, BrokenPipeError):
            raise SystemExit(Exit.READER_GONE) from None
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(Exit.FAILED) from None


def note(text: str) -> None:
    """Print what a person has to know beside the result, on stderr."""
    print(f"note: {text}", file=sys.stderr, flush=True)


def say_json(value: Any) -> None:
    """Print plain JSON values."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def say_data(value: Any, *, as_yaml: bool) -> None:
    """Print plain JSON values as JSON or as YAML."""
    if not as_yaml:
        say_json(value)
        return
    import yaml

    say(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n"))


def words(value: str) -> str:
    """Return a state such as `catching_up` as words."""
    return value.replace("_", " ")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 stream`, `2 streams`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def rough(time: timedelta) -> str:
    """Return a time span in its largest whole unit: `3 min`. A negative span, as from a skewed clock, is `0 s`."""
    seconds = max(int(time.total_seconds()), 0)
    name, size = next((unit for unit in _UNITS if seconds >= unit[1]), _UNITS[-1])
    return f"{seconds // size} {name}"


def sentence(text: str) -> str:
    """Return a clause as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def point(at: Checkpoint) -> str:
    """Return a position with its time, as far as both are known."""
    from replicator.model import format_time

    parts = [at.lsn, at.wall and format_time(at.wall)]
    return f"{parts[0]} ({parts[1]})" if all(parts) else str(parts[0] or parts[1])


@contextmanager
def showing(what: str) -> Iterator[None]:
    """Show the progress of operations in this block: an updated line on a terminal, else lines on stderr.

    :param what: the text before the first progress.
    """
    from rich.console import Console

    from replicator.progress import told_to

    console = Console(highlight=False)
    last = ""

    def show(text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            if status is None:
                print(f"{text} …", file=sys.stderr, flush=True)
            else:
                status.update(text)

    if not console.is_terminal:
        status = None
        with told_to(show):
            yield
        return
    with console.status(what) as status, told_to(show):
        yield


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Print a `ReplicatorError` as `error: …` and exit with code 1."""
    try:
        yield
    except ReplicatorError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(Exit.FAILED) from None
