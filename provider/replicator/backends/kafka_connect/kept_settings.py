"""Settings of an adopted connector, which stay as they are until the declaration changes what they are made from.

The record has their names alone. Their values stay in the connector's configuration, and each write carries them over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from replicator.backends.kafka_connect.deployed import DeployedStream, differing
from replicator.backends.kafka_connect.record import RECORD_KEYS
from replicator.model import Endpoint


class CarriedOver(NamedTuple):
    """A configuration to write.

    :param kept: the names of the settings that still stay as they are.
    :param config: the configuration with their values.
    """

    kept: tuple[str, ...]
    config: dict[str, str]


def kept_of(deployed: DeployedStream, config: Mapping[str, str], never: Collection[str] = ()) -> tuple[str, ...]:
    """Return what an adopted connector has otherwise than its declaration says.

    :param config: the configuration by the declaration.
    :param never: as in `Recipe`.
    """
    return tuple(sorted(differing(deployed.connector, config) - RECORD_KEYS - set(never)))


def carry_over(
    deployed: DeployedStream, before: Mapping[str, str], after: Mapping[str, str], together: Iterable[Collection[str]]
) -> CarriedOver:
    """Return the configuration of another declaration, with the settings of the connector that it leaves alone.

    :param before: the configuration by the recorded declaration.
    :param after: the configuration by the new one.
    :param together: as in `Recipe`.
    """
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    changed |= {key for group in together if not changed.isdisjoint(group) for key in group}
    kept = tuple(key for key in deployed.record.kept if key not in changed)
    config = {key: value for key, value in after.items() if key not in kept}
    there = deployed.connector.config
    return CarriedOver(kept, {**config, **{key: there[key] for key in kept if key in there}})


def keeps_login(deployed: DeployedStream | None, keys: Iterable[str], old: Endpoint, new: Endpoint) -> bool:
    """Tell whether a connector logs in at an end as it did before it was adopted.

    :param keys: the settings of the login.
    :param old: the end by the recorded declaration.
    """
    return deployed is not None and old == new and not set(keys).isdisjoint(deployed.record.kept)
