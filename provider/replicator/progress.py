"""What an operation does now, told to whoever waits for it: through layers and tasks, beside the arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], None]

_listener: ContextVar[Listener | None] = ContextVar("_listener", default=None)


def tell(text: str) -> None:
    """Say what goes on: a phrase for a person, such as `snapshot, 12.0 MB of 60.0 MB`. Nobody has to listen."""
    if (listener := _listener.get()) is not None:
        listener(text)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tell `listener`, and nobody else, what goes on in here, also in tasks that begin in here."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)
