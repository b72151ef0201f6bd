"""Progress of an operation for its caller: it passes through layers and tasks without arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], None]

_listener: ContextVar[Listener | None] = ContextVar("_listener", default=None)


def tell(text: str) -> None:
    """Report progress as a phrase for people, such as `snapshot, 12.0 MB of 60.0 MB`. It works without a listener."""
    if (listener := _listener.get()) is not None:
        listener(text)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Send progress in this block, and in tasks that start in it, to `listener` only."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)
