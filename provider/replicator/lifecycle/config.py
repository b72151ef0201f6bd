"""The provider's configuration: one block a backend, with one address or one for each region."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field, ValidationError

from replicator.backends import REGISTRY, Backend
from replicator.errors import InvalidConfig
from replicator.lifecycle.failure import Failure, failures_of
from replicator.model import Model, Text
from replicator.remote.address import default_address


class Preflight(StrEnum):
    """What a preview does with what it finds at the live source and destination.

    :param strict: what a change would fail on is an error of the preview.
    :param warn: it is a warning.
    :param off: the preview does not look.
    """

    STRICT = "strict"
    WARN = "warn"
    OFF = "off"


class BackendConfig(Model):
    """Where one backend is reached: one address, or one for each region."""

    address: Text | None = None
    regions: dict[str, Text] = Field(default_factory=dict)


class ProviderConfig(Model):
    """The whole configuration. `backends` holds the configured blocks by backend."""

    backends: dict[str, BackendConfig] = Field(default_factory=dict)
    preflight: Preflight = Preflight.STRICT

    def address(self, backend: Backend, region: str) -> str:
        """The address that manages streams of `region`; raise `InvalidConfig` where none is configured."""
        block = self.backends.get(backend.kind, BackendConfig())
        if (address := block.regions.get(region) or block.address) is not None:
            return address
        if backend.default_address and not block.regions:
            return default_address()
        raise InvalidConfig(
            f"no address for backend {backend.kind!r} and region {region!r}",
            fix="give yours: "
            f"pulumi config set --path 'replicator:{backend.config_key}.address' unix:///run/replicator/agent.sock",
        )

    def places(self, backend: Backend, region: str | None) -> list[str]:
        """The regions that stand for the addresses of a backend, one for each address."""
        if region is not None:
            return [region]
        block = self.backends.get(backend.kind, BackendConfig())
        elsewhere = [] if block.regions and block.address is None else ["default"]
        by_address = {self.address(backend, place): place for place in [*block.regions, *elsewhere]}
        return list(by_address.values())

    def kinds(self) -> list[str]:
        """The backends that are configured; without any, those that this host's own agent serves."""
        return sorted(self.backends) or [backend.kind for backend in REGISTRY.values() if backend.default_address]


def _structured(value: Any) -> Any:
    """SDKs and `pulumi config` send objects as JSON text; a string that is no JSON object stays as it is."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


SETTINGS = (*sorted(backend.config_key for backend in REGISTRY.values()), "preflight")
"""Every key of the configuration, without the package's name."""

_RESERVED = frozenset({"version", "pluginDownloadURL"})


def parse_config(inputs: Mapping[str, Any]) -> tuple[ProviderConfig, list[Failure]]:
    """The configuration in `inputs` (camelCase keys), and what is wrong with it."""
    blocks = {backend.config_key: backend.kind for backend in REGISTRY.values()}
    raw: dict[str, Any] = {"backends": {}}
    failures = []
    for key, value in inputs.items():
        if key in blocks:
            raw["backends"][blocks[key]] = _structured(value)
        elif key == "preflight":
            raw["preflight"] = value
        elif key not in _RESERVED and not key.startswith("__"):
            known = ", ".join(SETTINGS)
            failures.append(Failure(key, f"is not a setting of this provider; it has {known}", InvalidConfig.code))
    try:
        return ProviderConfig.model_validate(raw), failures
    except ValidationError as error:
        keys = {backend.kind: backend.config_key for backend in REGISTRY.values()}
        for failure in failures_of(error, ProviderConfig, InvalidConfig.code):
            kind, _, rest = failure.path.removeprefix("backends.").partition(".")
            path = ".".join(filter(None, [keys.get(kind, kind), rest]))
            failures.append(Failure(path, failure.reason, failure.code))
        return ProviderConfig(), failures
