"""The smallest backend: what a new one needs, and nothing else. It moves both ways between two kinds."""

from __future__ import annotations

from replicator.backends import Backend
from replicator.backends.memory import MemoryReplicator
from replicator.backends.settings import BackendConfig
from replicator.capabilities import TABLE, Capabilities, No, Route
from replicator.model import EndpointKind, Mode

LINE = Backend(
    kind="toy",
    config_key="toy",
    driver="tests.backends.toy.driver:open_toy",
    via_agent=False,
    default_address=False,
    example="toy://here",
    elsewhere="toy://there",
)

(_MEMORY,) = TABLE["memory"].routes

OUT = Route(
    pairs=frozenset({(EndpointKind.POSTGRES, EndpointKind.NATS)}),
    modes={mode: No("a toy copies no changes; use snapshot") for mode in Mode}
    | {Mode.SNAPSHOT: _MEMORY.modes[Mode.CDC]},
    conflicts=_MEMORY.conflicts,
    start_from=_MEMORY.start_from,
    replay=_MEMORY.replay,
    features=_MEMORY.features,
    default_interval="1s",
    lag_unit="row",
    changes=_MEMORY.changes,
    removal="the rows stay",
    pause_cost="rows wait",
)
BACK = Route(
    pairs=frozenset({(EndpointKind.NATS, EndpointKind.POSTGRES)}),
    managed_at="destination",
    modes=_MEMORY.modes,
    conflicts=_MEMORY.conflicts,
    start_from=_MEMORY.start_from,
    replay=_MEMORY.replay,
    features=_MEMORY.features,
    default_interval="1s",
    lag_unit="message",
    changes={key: value for key, value in _MEMORY.changes.items() if key != "destination.region"}
    | {"source.region": _MEMORY.changes["destination.region"]},
    removal="the messages stay",
    pause_cost="messages wait",
)
ROW = Capabilities(backend="toy", routes=(OUT, BACK))


class Toy(MemoryReplicator):
    """A Replicator."""

    kind = "toy"


_OPEN: dict[str, Toy] = {}


def open_toy(address: str, settings: BackendConfig) -> Toy:
    """Open the toy at an address."""
    return _OPEN.setdefault(address, Toy())
