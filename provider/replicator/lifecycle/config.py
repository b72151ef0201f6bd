"""The provider's configuration: one block a backend, with one address or one for each region."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from textwrap import indent
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SerializeAsAny, ValidationError, field_validator

from replicator.backends import REGISTRY, Backend
from replicator.backends.settings import BackendConfig
from replicator.errors import InvalidConfig
from replicator.lifecycle.config_source import PACKAGE, ConfigSource, variable_of
from replicator.lifecycle.failure import Failure, closest, failures_of
from replicator.model import REGION, Model, Text
from replicator.property_values import secret_paths, strip
from replicator.remote.address import default_address, parse_address


class Preflight(StrEnum):
    """What a preview does with what it finds at the live source and destination.

    :param strict: what a change would fail on is an error of the preview.
    :param warn: it is a warning.
    :param off: the preview does not look.
    """

    STRICT = "strict"
    WARN = "warn"
    OFF = "off"


def _agent(address: str) -> str:
    """Return a valid address unchanged. The error does not quote an invalid one: it may be a secret."""
    try:
        parse_address(address)
    except InvalidConfig as error:
        raise ValueError(f"{error.message}; {error.fix}") from None
    return address


Address = Annotated[Text, AfterValidator(_agent)]


class _AgentBlock(BackendConfig):
    """The same, of a backend that agents serve."""

    address: Address | None = None
    regions: dict[str, Address] = Field(default_factory=dict)


def _model(backend: Backend) -> type[BackendConfig]:
    return _AgentBlock if backend.via_agent else backend.settings


class ProviderConfig(Model):
    """The whole configuration. `backends` holds the configured blocks by backend."""

    backends: dict[str, SerializeAsAny[BackendConfig]] = Field(default_factory=dict)
    preflight: Preflight = Preflight.STRICT
    origin: ConfigSource = ConfigSource()

    @field_validator("backends", mode="before")
    @classmethod
    def _of_their_models(cls, blocks: Mapping[str, Any]) -> dict[str, Any]:
        """Read each backend's block, as in a configuration that was stored as JSON, with the backend's own model."""
        return {
            kind: block if isinstance(block, BackendConfig) else _model(REGISTRY[kind]).model_validate(block)
            for kind, block in blocks.items()
        }

    def block(self, backend: Backend) -> BackendConfig:
        """Return the block of a backend."""
        return self.backends.get(backend.kind) or backend.settings()

    def find(self, backend: Backend, region: str) -> str | None:
        """Return the address that manages streams of `region`; `None` if none is configured."""
        block = self.block(backend)
        if configured := block.regions.get(region) or block.address:
            return configured
        return default_address() if backend.default_address and not block.regions else None

    def address(self, backend: Backend, region: str) -> str:
        """Return the address that manages streams of `region`; raise `InvalidConfig` if none is configured."""
        if (address := self.find(backend, region)) is not None:
            return address
        block, key = self.block(backend), backend.config_key
        where = "" if region == "default" else f" in region {region!r}"
        there = f"; {key}.regions has {', '.join(sorted(block.regions))}" if block.regions else ""
        wanted = block.model_dump(mode="json", exclude_defaults=True)
        if region == "default":
            wanted["address"] = backend.example
        else:
            wanted["regions"] = {**block.regions, region: backend.elsewhere}
        raise InvalidConfig(f"no address for backend {backend.kind!r}{where}{there}", fix=self.origin.hint(key, wanted))

    def places(self, backend: Backend, region: str | None) -> list[str]:
        """Return one region for each address of a backend."""
        if region is not None:
            return [region]
        block = self.block(backend)
        elsewhere = [] if block.regions and block.address is None else ["default"]
        by_address = {self.address(backend, place): place for place in [*block.regions, *elsewhere]}
        return list(by_address.values())

    def kinds(self) -> list[str]:
        """Return the configured backends; without any, those that this host's own agent serves."""
        return sorted(self.backends) or [backend.kind for backend in REGISTRY.values() if backend.default_address]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the configuration.

    :param key: its name, without the package's.
    :param backend: the backend of this block; `None` for a setting of all backends.
    """

    key: str
    backend: str | None = None

    @property
    def variable(self) -> str:
        """Return the environment variable that is read if the setting is missing."""
        return variable_of(self.key)


def all_settings() -> Mapping[str, Setting]:
    """Return every setting by its key."""
    blocks = sorted((backend.config_key, backend.kind) for backend in REGISTRY.values())
    return {**{key: Setting(key, kind) for key, kind in blocks}, "preflight": Setting("preflight")}


_RESERVED = frozenset({"version", "pluginDownloadURL"})


def from_text(value: Any) -> Any:
    """Parse JSON text, in which SDKs and `pulumi config` send objects; raise `json.JSONDecodeError` if invalid."""
    return json.loads(value) if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"') else value


def parse_config(
    inputs: Mapping[str, Any], *, resource: str | None = None, environ: Mapping[str, str] | None = None
) -> tuple[ProviderConfig, list[Failure]]:
    """Return the configuration and its errors. They quote no value: Pulumi does not tell here which ones are secret.

    :param inputs: values by camelCase keys; an object may be JSON text.
    :param resource: the provider resource that holds them; `None` for the stack's configuration.
    :param environ: the environment, for settings that the inputs lack.
    """
    ours = {key: value for key, value in inputs.items() if key not in _RESERVED and not key.startswith("__")}
    given = {key: value for key, value in ours.items() if strip(value) is not None}
    settings = all_settings()
    found = {key: (environ or {}).get(setting.variable) for key, setting in settings.items() if key not in given}
    variables = {key: text for key, text in found.items() if text}
    secrets = frozenset(key for key, value in given.items() if secret_paths(value))
    origin = ConfigSource(resource=resource, variables=frozenset(variables), secrets=secrets)
    values, failures = {}, []
    for key, value in {**variables, **strip(given)}.items():
        if key not in settings:
            failures.append(_unknown(key, origin))
            continue
        try:
            values[key] = from_text(value)
        except json.JSONDecodeError as error:
            reason = f"is not JSON: {error.msg} at character {error.pos + 1}"
            failures.append(_failure(key, key, reason, origin, value))
    blocks: dict[str, BackendConfig] = {}
    for key in [key for key in values if settings[key].backend]:
        backend = REGISTRY[settings[key].backend or ""]
        try:
            blocks[backend.kind] = _model(backend).model_validate(values[key])
        except ValidationError as error:
            for failure in failures_of(error, _model(backend), InvalidConfig.code):
                path = ".".join(filter(None, [key, failure.path]))
                failures.append(_failure(key, path, failure.reason, origin, values[key]))
    others = {key: value for key, value in values.items() if settings[key].backend is None}
    try:
        config = ProviderConfig.model_validate({"backends": blocks, "origin": origin, **others})
    except ValidationError as error:
        for failure in failures_of(error, ProviderConfig, InvalidConfig.code):
            failures.append(_failure(failure.path, failure.path, failure.reason, origin, values[failure.path]))
    return (ProviderConfig() if failures else config), failures


def configured(
    inputs: Mapping[str, Any], *, resource: str | None = None, environ: Mapping[str, str] | None = None
) -> ProviderConfig:
    """Return the configuration; raise `InvalidConfig` with all errors."""
    config, failures = parse_config(inputs, resource=resource, environ=environ)
    if len(failures) == 1:
        only = failures[0]
        raise InvalidConfig(only.reason, property=f"{PACKAGE}:{only.path}", fix=only.fix)
    if failures:
        listed = "".join(f"\n{indent(f'{PACKAGE}:{failure}', '    ')}" for failure in failures)
        raise InvalidConfig(f"{len(failures)} settings are wrong", fix=f"fix each of them:{listed}")
    return config


def _unknown(key: str, origin: ConfigSource) -> Failure:
    known = all_settings()
    meant = closest(key, known)
    hint = f"did you mean {meant}?" if meant else f"it has {', '.join(known)}"
    reason = f"is not a setting of this provider; {hint}"
    fix = origin.removal(key) + (f"; then {origin.hint(meant, _example(meant, None))}" if meant else "")
    return Failure(key, reason, InvalidConfig.code, fix)


def _failure(key: str, path: str, reason: str, origin: ConfigSource, value: Any) -> Failure:
    return Failure(path, reason, InvalidConfig.code, origin.hint(key, _example(key, value)))


def _example(key: str, value: Any) -> Any:
    """Return a valid example for an invalid value, with the regions that it names."""
    kind = all_settings()[key].backend
    if kind is None:
        return closest(str(value), list(Preflight)) or Preflight.STRICT
    block = value if isinstance(value, Mapping) else {}
    regions = block.get("regions")
    names = [name for name in regions if re.fullmatch(REGION, name)] if isinstance(regions, Mapping) else []
    address = {"address": REGISTRY[kind].example} if "address" in block or not names else {}
    return address | ({"regions": dict.fromkeys(names, REGISTRY[kind].elsewhere)} if names else {})
