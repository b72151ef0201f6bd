"""The registry of backends: one line each, imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """How a backend is reached.

    :param kind: its name in `backend`.
    :param config_key: its block in the provider's configuration.
    :param driver: import path of the local driver, `module:class`.
    :param via_agent: the driver runs inside an agent, and everybody else talks to that agent.
    :param default_address: without an address in the configuration, this machine's own agent is used.
    :param managed_at: the end of the stream whose region says which agent or cluster manages it.
    :param served_by: the command that serves it, where the driver needs more than its class; else `replicator serve`.
    :param started_by: the command that a person types where nothing serves it; takes `--socket`.
    """

    kind: str
    config_key: str
    driver: str
    via_agent: bool
    default_address: bool
    managed_at: str = "source"
    served_by: str | None = None
    started_by: str


REGISTRY: Mapping[str, Backend] = {
    backend.kind: backend
    for backend in (
        Backend(
            kind="litestream",
            config_key="litestream",
            driver="replicator.backends.sqlite.driver:SqliteDriver",
            via_agent=True,
            default_address=True,
            served_by="replicator agent run",
            started_by="replicator agent start",
        ),
        Backend(
            kind="memory",
            config_key="memory",
            driver="replicator.backends.memory:MemoryReplicator",
            via_agent=True,
            default_address=False,
            started_by="replicator serve --backend memory",
        ),
    )
}
