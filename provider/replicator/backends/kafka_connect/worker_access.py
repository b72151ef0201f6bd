"""Access to a Connect cluster's workers, from a block of the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from replicator import authref
from replicator.authref import Redactor
from replicator.backends.kafka_connect.cluster import PATIENCE, ConnectCluster
from replicator.backends.kafka_connect.rest import Access, ConnectRest
from replicator.backends.settings import ConnectConfig
from replicator.errors import ReplicatorError


def open_cluster(
    address: str, settings: ConnectConfig, redactor: Redactor, *, patience: float = PATIENCE
) -> ConnectCluster:
    """Open the Connect cluster at an address of `settings`; raise what `access` raises.

    :param patience: as in `ConnectCluster`.
    """
    return ConnectCluster(
        ConnectRest(access(address, settings, redactor, os.environ), redact=redactor), patience=patience
    )


def access(address: str, settings: ConnectConfig, redactor: Redactor, environ: Mapping[str, str]) -> Access:
    """Return the access to the workers. A secret is read here, and goes nowhere else.

    :param address: the chosen address of `settings`.

    Raise `SecretSyntax` or `SecretNotFound` if the login cannot be read.
    """
    urls = tuple(url.strip().rstrip("/") for url in address.split(","))
    login = _login(settings.auth_ref, redactor, environ) if settings.auth_ref else {}
    return Access(
        urls,
        login.get("username"),
        login.get("password"),
        _path(settings.ca_file),
        _path(settings.certificate_file),
        _path(settings.key_file),
    )


def _login(ref: str, redactor: Redactor, environ: Mapping[str, str]) -> dict[str, str]:
    fields = ("username", "password")
    try:
        found = authref.resolve(authref.parse(ref), fields, required=fields, environ=environ)
    except ReplicatorError as error:
        error.property = "authRef"
        raise
    redactor.add(found["password"])
    return found


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
