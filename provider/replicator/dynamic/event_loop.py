"""A separate event loop beside Pulumi's, and the connections on it.

Pulumi calls a dynamic provider in threads, and runs a program on a loop that it may end at any time. On their own loop
the connections stay open, and concurrent callers share a listing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import cache
from threading import Lock, Thread
from typing import Any, TypeVar

from replicator.lifecycle.config import ProviderConfig, all_settings, configured
from replicator.lifecycle.config_source import PACKAGE
from replicator.lifecycle.connections import Connections

T = TypeVar("T")


_first = Lock()
"""Held during a lookup that the first caller fills: the calls of a refresh all start at once."""


def _loop() -> asyncio.AbstractEventLoop:
    with _first:
        return _started()


@cache
def _started() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="replicator", daemon=True).start()
    return loop


def submit(call: Coroutine[Any, Any, T]) -> Future[T]:
    """Run a coroutine on the loop. Wait for the result in a thread, or in another loop with `asyncio.wrap_future`."""
    return asyncio.run_coroutine_threadsafe(call, _loop())


def connections(setting: Callable[[str], Any]) -> Connections:
    """Return the connections of a stack's configuration, for use in submitted calls; raise `InvalidConfig`.

    :param setting: returns the value of `replicator:<key>`, else `None`.
    """
    given = {key: value for key in all_settings() if (value := setting(f"{PACKAGE}:{key}")) is not None}
    with _first:
        return _connections(configured(given, environ=os.environ).model_dump_json())


@cache
def _connections(config: str) -> Connections:
    return Connections(ProviderConfig.model_validate_json(config))
