"""Foreign mirrors: the routes of MirrorMaker 2 connectors that no stream created, read from their configurations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from replicator.backends.kafka.admin import KafkaAdmin
from replicator.backends.kafka.endpoint import KafkaEndpoint
from replicator.backends.kafka_connect.connector import Connector
from replicator.backends.kafka_connect.mirror.connector_configs import SOURCE_CLASS
from replicator.backends.kafka_connect.mirror.globs import Names
from replicator.backends.kafka_connect.mirror.routes import ClusterIdentity, Route
from replicator.backends.kafka_connect.mirror.topics import (
    IDENTITY_POLICY,
    PREFIX_POLICY,
    Naming,
    came_through,
    read_patterns,
)
from replicator.backends.shared.single_flight import SingleFlight
from replicator.errors import ReplicatorError

CLASSES = frozenset({SOURCE_CLASS, "MirrorSourceConnector", "MirrorSource"})
EXCLUDED = r"mm2.*\.internal,.*\.replica,__.*"  # MirrorMaker 2's default
_NEVER = (r"__.*", r"\..*", r"mm2.*\.internal", r".*\.checkpoints\.internal")
_SOURCE = "source.cluster.bootstrap.servers"
_OVERRIDE = "producer.override.bootstrap.servers"
_HOLDS = 30.0
"""Seconds for which the identity of the cluster at an address is cached."""


class ForeignMirrors(NamedTuple):
    """The mirrors of a Connect cluster that no stream created.

    :param unknown: why the routes of some connectors are unknown, by connector.
    """

    routes: tuple[Route, ...]
    unknown: Mapping[str, str]


class Unreadable(Exception):
    """The reason why a connector's route is unknown."""


class ForeignMirrorReader:
    """Reads the routes of connectors, and asks the addresses of their sources for cluster ids."""

    def __init__(self) -> None:
        self._ids: dict[str, SingleFlight[str | None]] = {}

    async def read(self, connectors: Iterable[Connector], worker: str) -> ForeignMirrors:
        """Return the mirrors among connectors that no stream created.

        :param worker: id of the Kafka cluster that holds the workers' topics.
        """
        routes: list[Route] = []
        unknown: dict[str, str] = {}
        for connector in connectors:
            try:
                routes.append(route_of(connector.name, connector.config, worker))
            except Unreadable as error:
                unknown[connector.name] = str(error)
        return ForeignMirrors(tuple(await asyncio.gather(*map(self._located, routes))), unknown)

    async def _located(self, route: Route) -> Route:
        """Add the ids of both clusters, by which other spellings of their addresses are recognized."""
        source, destination = await asyncio.gather(self._seen(route.source), self._seen(route.destination))
        return replace(route, source=source, destination=destination)

    async def _seen(self, spot: ClusterIdentity) -> ClusterIdentity:
        return spot if spot.id else spot._replace(id=await self._id(spot.bootstrap))

    async def _id(self, bootstrap: str) -> str | None:
        if bootstrap not in self._ids:
            self._ids[bootstrap] = SingleFlight(partial(_ask_id, bootstrap), _HOLDS)
        return await self._ids[bootstrap].get()


async def _ask_id(bootstrap: str) -> str | None:
    """Return the id of the cluster that answers without a login; `None` if none does."""
    try:
        return (await KafkaAdmin(KafkaEndpoint("source", bootstrap), {}).cluster()).id
    except ReplicatorError:
        return None


def is_mirror(connector: Connector) -> bool:
    """Tell whether a connector copies topics as a stream's connector does."""
    return connector.config.get("connector.class") in CLASSES


def route_of(name: str, config: Mapping[str, str], worker: str) -> Route:
    """Return a connector's route; raise `Unreadable` if its configuration does not tell it.

    MirrorMaker 2 writes where its worker's producer writes, whatever target the configuration names.
    """
    policy = config.get("replication.policy.class", PREFIX_POLICY)
    if policy not in (PREFIX_POLICY, IDENTITY_POLICY):
        raise Unreadable(f"the names of its copies are made by {policy}")
    if not config.get(_SOURCE) or "${" in config[_SOURCE]:
        raise Unreadable(f"its {_SOURCE} is not in its configuration")
    naming = Naming(
        config.get("source.cluster.alias", "source"),
        config.get("target.cluster.alias", "target"),
        policy == PREFIX_POLICY,
        config.get("replication.policy.separator", "."),
    )
    include, exclude = _expressions(config, "topics", ".*"), _expressions(config, "topics.exclude", EXCLUDED)
    never = read_patterns(_NEVER)
    back = came_through(naming) if naming.prefixed else ()
    names = Names(tuple(read_patterns(include)), (*read_patterns(exclude), *never, *back))
    destination = ClusterIdentity(None, config[_OVERRIDE]) if _OVERRIDE in config else ClusterIdentity(worker, "")
    return Route(name, ClusterIdentity(None, config[_SOURCE]), destination, naming, names, declared=False)


def _expressions(config: Mapping[str, str], key: str, default: str) -> list[str]:
    """Return the regular expressions in a list, each without alternatives."""
    found = [word for item in config.get(key, default).split(",") for word in item.strip().split("|") if word]
    if len(read_patterns(found)) < len(found):
        raise Unreadable(f"its {key} {config[key]!r} holds more than names, . [] * and +")
    return found
