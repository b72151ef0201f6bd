"""The registry of backends: one line each, imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from replicator.backends.settings import BackendConfig, ConnectConfig, DebeziumConfig
from replicator.capabilities import TABLE
from replicator.model import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """How a backend is reached.

    :param kind: its name in `backend`.
    :param config_key: its block in the provider's configuration.
    :param driver: import path, `module:name`: of the class that an agent makes, or, for a backend without an agent, of
        what opens an address with a block of the configuration.
    :param via_agent: the driver runs inside an agent, and everybody else talks to that agent.
    :param settings: the model of the block.
    :param example: an address, for a person who has to give one; `elsewhere` is that of another region.
    :param default_address: without an address in the configuration, this machine's own agent is used.
    :param identified_by: the engine object that holds the identity of what manages the stream, if the backend has one.
    :param served_by: the command that serves it, where the driver needs more than its class; else `replicator serve`.
    :param declarations: import path of a module with the functions of `declarations.DeclarationRules`.
    :param started_by: the command that a person types where no agent serves it; takes `--socket`.
    """

    kind: str
    config_key: str
    driver: str
    via_agent: bool
    default_address: bool
    identified_by: str | None = None
    served_by: str | None = None
    started_by: str | None = None
    declarations: str | None = None
    settings: type[BackendConfig] = BackendConfig
    example: str = "unix:///run/replicator/agent.sock"
    elsewhere: str = "ssh://user@host"


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
            declarations="replicator.backends.sqlite.declarations",
        ),
        Backend(
            kind="kafka-mirror",
            config_key="kafkaMirror",
            driver="replicator.backends.kafka_connect.mirror.driver:open_mirror",
            via_agent=False,
            default_address=False,
            declarations="replicator.backends.kafka_connect.mirror.declarations",
            identified_by="connectCluster",
            settings=ConnectConfig,
            example="http://connect.example:8083",
            elsewhere="http://connect.example:8083",
        ),
        Backend(
            kind="debezium",
            config_key="debezium",
            driver="replicator.backends.kafka_connect.debezium.driver:open_debezium",
            via_agent=False,
            default_address=False,
            declarations="replicator.backends.kafka_connect.debezium.declarations",
            identified_by="connectCluster",
            settings=DebeziumConfig,
            example="http://connect.example:8083",
            elsewhere="http://connect.example:8083",
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


def region_of(stream: Stream) -> str | None:
    """The region that says which agent or cluster manages a stream."""
    route = TABLE[stream.backend or ""].route(stream)
    return (stream.source if route.managed_at == "source" else stream.destination).region


def stream_id(stream: Stream) -> str:
    """The resource id: `<backend>/<region or "default">/<name>`."""
    return f"{stream.backend}/{region_of(stream) or 'default'}/{stream.name}"
