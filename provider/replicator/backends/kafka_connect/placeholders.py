"""Placeholders that the worker resolves: a secret's value never passes through the provider, only its name does.

A placeholder is `${alias:path:key}` of a config provider in the worker's configuration (Kafka's ConfigTransformer).
"""

from __future__ import annotations

from collections.abc import Mapping

from replicator.authref import AuthRef
from replicator.errors import Unsupported


def placeholder(ref: AuthRef, field: str, aliases: Mapping[str, str], property: str) -> str:
    """Return the placeholder for one field (`username`, `password`) of a secret.

    Raise `Unsupported` if no placeholder can express it: the transformer splits at `:` and ends at `}`.
    """
    alias = aliases[ref.scheme]
    if ref.scheme == "env":
        return f"${{{alias}:{ref.entry(field)}}}"
    if ":" in ref.path or "}" in ref.path:
        raise Unsupported(
            "a worker cannot name a path that holds : or }",
            property=property,
            fix="put the secret at a path without them",
        )
    return f"${{{alias}:{ref.path}:{ref.entry(field)}}}"


def placeholders(ref: AuthRef | None, aliases: Mapping[str, str], property: str) -> dict[str, str]:
    """Return placeholders for user name and password; empty without a login."""
    if ref is None:
        return {}
    refuse_one_value(ref, property)
    return {field: placeholder(ref, field, aliases, property) for field in ("username", "password")}


def refuse_one_value(ref: AuthRef, property: str) -> None:
    """Raise `Unsupported` if a reference names one value."""
    if ref.key is not None:
        raise Unsupported(
            "names one value, and a login needs a user name and a password",
            property=property,
            fix="name a bundle of both: env://KAFKA_EU_* or file:///etc/kafka/eu.properties",
        )
