"""Redaction of the secrets in the provider's configuration and in inputs. Imported only if there are some."""

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
"""Parts of paths that reveal nothing, and occur in other texts and in ordinary words."""

_OF_FILES = frozenset({"sqlite", "base", "file"})
_EXAMPLES = re.compile("(" + "|".join(map(re.escape, (*URI_EXAMPLES.values(), authref.EXAMPLES))) + ")")
_PLAIN = frozenset({"state", "backend", "desiredState", "mode"})
"""Outputs with fixed words, which alerts and policies read."""


def redactor_of(values: Any, known: Redactor | None = None) -> Redactor:
    """Return a redactor of all secret texts in these values, also inside JSON text, and of parts of secret addresses.

    :param known: the redactor to extend; the default is a new one.
    """
    redactor = known or Redactor()
    for text in _secrets(values, hidden=False):
        redactor.add(text)
    return redactor


def redacted(text: str, redactor: Redactor) -> str:
    """Return a message without secrets. The provider's own examples stay: they do not depend on the secret."""
    pieces = _EXAMPLES.split(text)
    return "".join(piece if place % 2 else redactor(piece) for place, piece in enumerate(pieces))


def sealed(outputs: Any, redactor: Redactor) -> Any:
    """Return outputs with each text that contains a secret as a Secret. Numbers and states stay plain."""
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
    """Yield the parts of an address, or of each one in a list, that messages and objects name."""
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
            yield str(plain.with_name(f".{plain.name}-"))  # prefix of litestream's folder beside a database
            yield from {str(plain.parent)} - _KNOWN_FOLDERS
