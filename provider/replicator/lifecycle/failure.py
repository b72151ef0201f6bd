"""Errors in inputs, in words for their author."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from replicator.errors import InvalidStream
from replicator.model import BOOKMARK_NAME, NAME_LIMIT, REGION, STREAM_NAME

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Failure:
    """One invalid input: its path (`source.uri`), the reason, the stable code, and the fix if it is not obvious."""

    path: str
    reason: str
    code: str
    fix: str | None = None

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        fix = f"\n  → {self.fix}" if self.fix else ""
        return f"{path}{self.reason} [{self.code}]{fix}"


def _enum(context: dict[str, Any]) -> str:
    return f"must be one of {context['expected']}"


_PATTERNS = {
    STREAM_NAME: f"must begin with a to z, and hold a to z, 0 to 9 and - alone, {NAME_LIMIT} characters at most",
    BOOKMARK_NAME: "must begin with a to z, and hold a to z, 0 to 9 and - alone, 24 characters at most",
    REGION: "must be a word such as us-east: a to z, 0 to 9 and - alone, 32 characters at most",
}
"""What the patterns of inputs mean, in words."""

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
    "string_pattern_mismatch": lambda context: _PATTERNS.get(context["pattern"], f"must match {context['pattern']}"),
    "datetime_from_date_parsing": lambda _: 'must be a time such as "2026-01-31T12:00:00Z"',
    "datetime_parsing": lambda _: 'must be a time such as "2026-01-31T12:00:00Z"',
    "value_error": lambda context: str(context["error"]),
}


def failures_of(error: ValidationError, model: type[BaseModel], code: str) -> list[Failure]:
    """Return pydantic's errors as failures, one for each path, without the value: it may be a secret."""
    found: dict[str, Failure] = {}
    items = error.errors(include_url=False, include_input=False)
    for item in sorted(items, key=lambda item: item["type"] == "literal_error"):
        path = _path(item["loc"])
        if item["type"] == "literal_error" and any(f"{known}.".startswith(f"{path}.") for known in found):
            continue  # the input is an object, and the errors inside it are already reported
        if item["type"] == "extra_forbidden":
            path = ".".join(filter(None, (_path(item["loc"][:-1]), str(item["loc"][-1]))))
            reason = "is not known here" + _suggestion(item["loc"], model)
        elif item["type"] == "model_type" and _is_member(item["loc"]):
            continue
        else:
            known = _REASONS.get(item["type"])
            reason = known(item.get("ctx", {})) if known else item["msg"]
            if item["type"] == "literal_error" and _is_member(item["loc"]):
                reason += ", or an object"
        inner, separator, rest = reason.partition(": ")
        if item["type"] == "value_error" and separator and inner.isidentifier():
            path, reason = (f"{path}.{inner}" if path else inner), rest
        found.setdefault(path, Failure(path, reason, code))
    return list(found.values())


def read_inputs(model: type[M], values: Mapping[str, Any], *, stream: str | None = None) -> M:
    """Return checked inputs as a model. Raise `InvalidStream`: another release's state may hold invalid inputs."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        listed = "; ".join(str(failure) for failure in failures_of(error, model, InvalidStream.code))
        raise InvalidStream(f"its inputs cannot be read: {listed}", stream=stream) from None


def _path(location: tuple[int | str, ...]) -> str:
    """Return `("startFrom", "literal[…]")` as `startFrom`: pydantic adds names of union members, which are no input."""
    parts: list[str] = []
    for step in location:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif not _is_member((step,)):
            parts.append(f".{step}" if parts else step)
    return "".join(parts)


def _is_member(location: tuple[int | str, ...]) -> bool:
    """Tell whether the last step is pydantic's name for a member of a union, which is no input."""
    last = str(location[-1]) if location else ""
    return any(char in last for char in "[(") or last[:1].isupper()


def _suggestion(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Suggest the probably intended property, from the object that holds the unknown one."""
    *above, last = (str(step) for step in location)
    for step in above:
        inner = _models(next((info.annotation for info in model.model_fields.values() if info.alias == step), None))
        model = inner[0] if inner else model
    names = {info.alias or name for name, info in model.model_fields.items()} - {"owner"}
    meant = closest(last, names)
    return f"; did you mean {meant}?" if meant else ""


def closest(word: str, names: Iterable[str]) -> str | None:
    """Return the probably intended name."""
    wanted = {name.lower(): name for name in names}
    close = get_close_matches(word.replace("_", "").lower(), wanted, n=1)
    return wanted[close[0]] if close else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in an annotation such as `Literal[…] | Checkpoint | None`."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in get_args(annotation) for found in _models(part)]
