"""What the provider's configuration says of a backend: where it is managed, and how that is reached."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from replicator.model import REGION, Model, Text


class BackendConfig(Model):
    """Where one backend is reached: one address, or one for each region."""

    address: Text | None = None
    regions: dict[str, Text] = Field(default_factory=dict)

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
        `{"env": "env", "file": "file", "dir": "dir"}`, which is what holds where nothing is said.
    """

    address: Workers | None = None
    regions: dict[str, Workers] = Field(default_factory=dict)
    auth_ref: Text | None = None
    ca_file: Text | None = None
    certificate_file: Text | None = None
    key_file: Text | None = None
    secret_providers: dict[str, Text] = Field(default_factory=dict)
