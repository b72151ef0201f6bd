"""Secrets of the provider's configuration and of inputs, kept out of every text. Imported only where there are some."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from replicator import authref
from replicator.authref import Redactor
from replicator.lifecycle.config import from_text
from replicator.model import URI_EXAMPLES
from replicator.property_values import Secret

_KNOWN_HOSTS = frozenset({"bucket", "localhost", "127.0.0.1"})
_TOP = ("", "data", "etc", "home", "mnt", "opt", "root", "run", "srv", "tmp", "usr", "var")
_KNOWN_FOLDERS = frozenset(f"/{name}" for name in (*_TOP, "var/backups", "var/data", "var/lib", "var/tmp"))
"""Parts that tell nothing, and stand in other texts and in ordinary words."""

_OF_FILES = frozenset({"sqlite", "base", "file"})
_EXAMPLES = re.compile("(" + "|".join(map(re.escape, (*URI_EXAMPLES.values(), authref.EXAMPLES))) + ")")
_PLAIN = frozenset({"state", "backend", "desiredState", "mode"})
"""Words of ours, which alerts and policies read."""


def redactor_of(values: Any, known: Redactor | None = None) -> Redactor:
    """Return what hides every text that is secret in these values, also as part of JSON text, and an address in its parts.

    :param known: a redactor that is to hide them too; left out, a new one.
    """
    redactor = known or Redactor()
    for text in _secrets(values, hidden=False):
        redactor.add(text)
    return redactor


def redacted(text: str, redactor: Redactor) -> str:
    """Return a message without what is secret. Our own examples stay: they say the same whatever the secret is."""
    pieces = _EXAMPLES.split(text)
    return "".join(piece if place % 2 else redactor(piece) for place, piece in enumerate(pieces))


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
    """Yield what messages and objects name of an address, or of one in a list."""
    if "://" not in text:
        return
    for address in map(str.strip, text.split(",")):
        try:
            found = urlsplit(address if "://" in address else f"//{address}")
            settings = parse_qsl(found.query)
        except ValueError:
            continue
        yield address
        yield f"{found.username}@{found.hostname}"
        yield from {found.netloc, found.hostname or ""} - _KNOWN_HOSTS
        yield from _parts_of_path(found.netloc, found.path, is_file=found.scheme in _OF_FILES)
        for _, value in settings:
            if "://" in value:
                yield from (value, value.rstrip("/"), *_parts(value))


def _parts_of_path(store: str, path: str, *, is_file: bool) -> Iterator[str]:
    yield path
    plain = PurePosixPath("/" + unquote(path).strip("/"))  # as the agent writes it
    if plain.name:
        yield f"{store}{plain}"
        if is_file:
            yield str(plain.with_name(f".{plain.name}-"))  # how the folder of litestream beside a database begins
            yield from {str(plain.parent)} - _KNOWN_FOLDERS
