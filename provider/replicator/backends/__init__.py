"""The registry of backends: one line each, imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backend:
    """How a backend is reached.

    :param kind: its name in `backend`.
    :param config_key: its block in the provider's configuration.
    :param driver: import path of the local driver, `module:class`.
    :param via_agent: the driver runs inside an agent, and everybody else talks to that agent.
    :param managed_at: the end of the stream whose region says which agent or cluster manages it.
    """

    kind: str
    config_key: str
    driver: str
    via_agent: bool
    managed_at: str = "source"


REGISTRY: Mapping[str, Backend] = {
    backend.kind: backend
    for backend in (
        Backend("litestream", "litestream", "replicator.backends.sqlite.driver:SqliteDriver", via_agent=True),
        Backend("memory", "memory", "replicator.backends.memory:MemoryReplicator", via_agent=True),
    )
}
