"""Secrets of the provider's configuration and of inputs, kept out of every text. Imported only where there are some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from replicator.authref import Redactor
from replicator.lifecycle.config import from_text
from replicator.property_values import Secret

_PLAIN = frozenset({"state", "backend", "desiredState", "mode"})
"""Words of ours, which alerts and policies read."""


def redactor_of(values: Any, known: Redactor | None = None) -> Redactor:
    """What hides every text that is secret in these values, also as part of JSON text, and an address in its parts.

    :param known: a redactor that is to hide them too; left out, a new one.
    """
    redactor = known or Redactor()
    for text in _secrets(values, hidden=False):
        redactor.add(text)
    return redactor


def sealed(outputs: Any, redactor: Redactor) -> Any:
    """Return outputs in which each text that holds a secret is one. Numbers stay plain, and so do states."""
    if isinstance(outputs, dict):
        return {key: value if key in _PLAIN else sealed(value, redactor) for key, value in outputs.items()}
    if isinstance(outputs, list | tuple):
        return [sealed(item, redactor) for item in outputs]
    return Secret(outputs) if isinstance(outputs, str) and redactor(outputs) != outputs else outputs


def _secrets(value: Any, *, hidden: bool) -> Iterator[str]:
    if isinstance(value, Secret):
        yield from _secrets(value.value, hidden=True)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _secrets(item, hidden=hidden)
    elif isinstance(value, str) and hidden:
        yield value
        yield from _parts(value)
        try:
            inner = from_text(value)
        except json.JSONDecodeError:
            return
        if inner is not value:
            yield from _secrets(inner, hidden=True)


def _parts(text: str) -> Iterator[str]:
    """What messages name of an address, or of one in a list."""
    for address in text.split(","):
        try:
            found = urlsplit(address.strip())
        except ValueError:
            continue
        if found.scheme:
            yield from filter(None, (address.strip(), found.netloc, found.path, found.hostname))
            yield f"{found.username}@{found.hostname}"
