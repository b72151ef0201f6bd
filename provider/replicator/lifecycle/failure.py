"""What is wrong with an input, in words for the person who wrote it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError


@dataclass(frozen=True, slots=True)
class Failure:
    """One wrong input: its path (`source.uri`), why, and the stable code."""

    path: str
    reason: str
    code: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason} [{self.code}]" if self.path else f"{self.reason} [{self.code}]"


def _enum(context: dict[str, Any]) -> str:
    return f"must be one of {context['expected']}"


_REASONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "missing": lambda _: "is required",
    "enum": _enum,
    "literal_error": _enum,
    "string_type": lambda _: "must be a string",
    "bool_type": lambda _: "must be true or false",
    "bool_parsing": lambda _: "must be true or false",
    "int_type": lambda _: "must be a whole number",
    "dict_type": lambda _: "must be an object",
    "model_type": lambda _: "must be an object",
    "tuple_type": lambda _: "must be a list",
    "string_too_short": lambda _: "must not be empty",
    "string_too_long": lambda context: f"is longer than {context['max_length']} characters",
    "string_pattern_mismatch": lambda context: f"must match {context['pattern']}",
    "value_error": lambda context: str(context["error"]),
}


def failures_of(error: ValidationError, model: type[BaseModel], code: str) -> list[Failure]:
    """Pydantic's errors as failures, one for each path, with the value left out: it may be a secret."""
    found: dict[str, Failure] = {}
    for item in error.errors(include_url=False, include_input=False):
        path = _path(item["loc"])
        if item["type"] == "extra_forbidden":
            reason = "is not known here" + _suggestion(path, model)
        else:
            known = _REASONS.get(item["type"])
            reason = known(item.get("ctx", {})) if known else item["msg"]
        inner, separator, rest = reason.partition(": ")
        if item["type"] == "value_error" and separator and inner.isidentifier():
            path, reason = (f"{path}.{inner}" if path else inner), rest
        found.setdefault(path, Failure(path, reason, code))
    return list(found.values())


def _path(location: tuple[int | str, ...]) -> str:
    """`("startFrom", "literal[…]")` as `startFrom`: pydantic adds names of union members, which nobody wrote."""
    parts: list[str] = []
    for step in location:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif any(char in step for char in "[(") or step[:1].isupper():
            break
        else:
            parts.append(f".{step}" if parts else step)
    return "".join(parts)


def _suggestion(path: str, model: type[BaseModel]) -> str:
    names = {info.alias or name for name, info in model.model_fields.items()}
    close = get_close_matches(path.rpartition(".")[2], names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
