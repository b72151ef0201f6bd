"""A worker's validation of a configuration, without the values of placeholders.

Validation resolves placeholders such as `${env:NAME}`. It echoes the values of all fields but passwords, both as values
and in error texts. (Seen on Kafka 4.3.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from typing import Any

PLACEHOLDER = "${"
_SECRET = re.compile(r"(?i)jaas|passw|secret|token|credential|user\.info|key$")
_MARK = "[redacted]"
_SHORTEST = 4  # characters of a secret that is looked for in texts
_BREAKS_JAAS = frozenset('"\\\n\r')
_HIDDEN = "its value is refused; the worker's text is not shown, since it may hold a secret"


@dataclass(frozen=True, slots=True)
class FieldError:
    """An error in one field of a configuration."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@dataclass(frozen=True, slots=True)
class Validation:
    """A worker's validation of a configuration. It has no errors about fields that the connector does not know."""

    errors: tuple[FieldError, ...]


class Problem(Enum):
    """Why a worker cannot use a placeholder."""

    UNRESOLVED = "the worker leaves it as it is: it has no such config provider, or that knows or allows no such name"
    UNREADABLE = "the worker's config provider fails to read it"
    EMPTY = "it stands for an empty text"
    BREAKS_JAAS = 'what it stands for holds a quote ("), a backslash or a line break, which breaks a JAAS line'


def is_secret(key: str) -> bool:
    """Tell whether the value of a setting may be a secret, by the setting's name."""
    return _SECRET.search(key) is not None


def holds_secrets(config: Mapping[str, str]) -> bool:
    """Tell whether an engine's text about a configuration may show a secret: it has one, or a placeholder of one."""
    return any(PLACEHOLDER in value or is_secret(key) for key, value in config.items())


def read_validation(body: Mapping[str, Any], sent: Mapping[str, str]) -> Validation:
    """Return the errors in the answer of `/connector-plugins/CLASS/config/validate`."""
    values = [item["value"] for item in body["configs"]]
    secret = {text: _MARK for key, text in sent.items() if is_secret(key) and len(text) >= _SHORTEST} | {
        echo: text
        for value in values
        if PLACEHOLDER in (text := sent.get(value["name"], ""))
        and isinstance(echo := value["value"], str)
        and echo not in ("", text)
    }
    return Validation(tuple(error for value in values for error in _errors(value, sent, secret)))


def echo_of(field: str, body: Mapping[str, Any]) -> str:
    """Return the value that the worker sees in a field."""
    echo: str = next(item["value"]["value"] for item in body["configs"] if item["value"]["name"] == field)
    return echo


def problem_of(placeholder: str, echo: str) -> Problem | None:
    """Return the problem of a placeholder for which a worker echoes this."""
    if echo == placeholder:
        return Problem.UNRESOLVED
    if not echo:
        return Problem.EMPTY
    return Problem.BREAKS_JAAS if _BREAKS_JAAS & set(echo) else None


def _errors(value: Mapping[str, Any], sent: Mapping[str, str], secret: Mapping[str, str]) -> Iterator[FieldError]:
    if not value["errors"]:
        return
    if PLACEHOLDER in sent.get(value["name"], "") or is_secret(value["name"]):
        yield FieldError(value["name"], _HIDDEN)
        return
    longest_first = sorted(secret, key=len, reverse=True)  # one may be part of another
    for text in value["errors"]:
        yield FieldError(
            value["name"], reduce(lambda told, echo: told.replace(echo, secret[echo]), longest_first, text)
        )
