"""What the provider's configuration says of a backend: where it is managed, and how that is reached."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from replicator import authref
from replicator.errors import InvalidConfig, InvalidStream, ReplicatorError
from replicator.model import REGION, EndpointKind, Model, Stream, Text


class BackendConfig(Model):
    """Where one backend is reached: one address, or one for each region."""

    address: Text | None = None
    regions: dict[str, Text] = Field(default_factory=dict)

    def refusals(self, stream: Stream) -> Iterable[ReplicatorError]:
        """Return what the configuration does not allow in a stream, with the property."""
        return ()

    @field_validator("regions")
    @classmethod
    def _named(cls, regions: dict[str, str]) -> dict[str, str]:
        for name in regions:
            if not re.fullmatch(REGION, name):
                raise ValueError(f"{name!r} is no region: a stream can only name one that matches {REGION}")
        return regions


def _workers(address: str) -> str:
    """An address as it stands. What is wrong with it is said without it: it may be a secret."""
    for url in address.split(","):
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("is not the address of a Connect worker; write http://host:8083, or several with commas")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address holds no login; name it with authRef")
    return address


_PLACEHOLDER = re.compile(r"\$\{([^}:]*):")

DEFAULT_ALIASES: Mapping[str, str] = {"env": "env", "file": "file", "dir": "dir"}
"""By scheme, the name that Kafka's own documentation gives the worker's provider."""


Workers = Annotated[Text, AfterValidator(_workers)]


class ConnectConfig(BackendConfig):
    """Where Kafka Connect clusters are reached, and how their workers name secrets.

    :param address: one or several workers of a cluster, `http://host:8083`, separated by commas.
    :param regions: addresses by region of the destination, where one differs from `address`.
    :param auth_ref: user name and password for the workers, where they ask for them.
    :param ca_file: a PEM file with the authority of the workers' certificates; left out, those of this system.
    :param certificate_file: a PEM file with the certificate that is shown to the workers.
    :param key_file: a PEM file with the certificate's key, where that is another one.
    :param secret_providers: the name that the workers give the ConfigProvider of a reference's scheme, such as
        `{"env": "env", "file": "file", "dir": "dir"}`, which is what holds where nothing is said. What it does not
        name, no stream may use.
    """

    address: Workers | None = None
    regions: dict[str, Workers] = Field(default_factory=dict)
    auth_ref: Text | None = None
    ca_file: Text | None = None
    certificate_file: Text | None = None
    key_file: Text | None = None
    secret_providers: dict[str, Text] = Field(default_factory=dict)

    @property
    def aliases(self) -> Mapping[str, str]:
        """The names of the workers' ConfigProviders, by scheme of reference."""
        return self.secret_providers or DEFAULT_ALIASES

    def refusals(self, stream: Stream) -> Iterator[ReplicatorError]:
        """Yield an error for each placeholder that a worker would resolve by a provider that is not named."""
        aliases = self.aliases
        for end, endpoint in (("source", stream.source), ("destination", stream.destination)):
            if endpoint.auth_ref and (scheme := authref.parse(endpoint.auth_ref).scheme) not in aliases:
                yield _unnamed(f"{end}.authRef", f"the scheme {scheme}", aliases)
        for key, value in stream.options.items():
            for alias in sorted(set(_PLACEHOLDER.findall(str(value))) - set(aliases.values())):
                yield _unnamed(f"options.{key}", f"a ConfigProvider {alias}", aliases)


class DebeziumConfig(ConnectConfig):
    """Where Kafka Connect clusters with Debezium are reached.

    :param kafka: the brokers of the workers' Kafka cluster, `kafka://host:9092`, which streams to a database need:
        their changes pass through topics there.
    :param kafka_regions: the same by region of the destination, where it differs from `kafka`.
    :param kafka_auth_ref: user name and password for these brokers, where they ask for them.
    """

    kafka: Text | None = None
    kafka_regions: dict[str, Text] = Field(default_factory=dict)
    kafka_auth_ref: Text | None = None

    def brokers_of(self, address: str) -> str | None:
        """Return the brokers of the Connect cluster at an address; `None` if they are not named."""
        here = [region for region, known in self.regions.items() if known == address]
        return next((self.kafka_regions[region] for region in here if region in self.kafka_regions), self.kafka)

    def refusals(self, stream: Stream) -> Iterator[ReplicatorError]:
        """Yield errors as `ConnectConfig` does, and one for a stream between databases where no brokers are named."""
        yield from super().refusals(stream)
        is_between = (stream.source.kind, stream.destination.kind) == (EndpointKind.POSTGRES, EndpointKind.POSTGRES)
        if is_between and self.kafka is None and stream.destination.region not in self.kafka_regions:
            yield without_brokers()


def without_brokers() -> InvalidConfig:
    """Return the error for a configuration that does not name the brokers of the workers' Kafka cluster."""
    return InvalidConfig(
        "changes for a database pass through topics of the Connect workers' Kafka cluster, and the configuration does "
        "not name its brokers",
        fix="pulumi config set --path replicator:debezium.kafka kafka://b1.example:9092",
    )


def _unnamed(property: str, what: str, aliases: Mapping[str, str]) -> InvalidStream:
    return InvalidStream(
        f"uses {what}, and secretProviders names {', '.join(sorted(aliases))} alone",
        property=property,
        fix="use a reference of those schemes; or name the worker's provider in secretProviders of the configuration",
    )
