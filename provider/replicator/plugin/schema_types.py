"""Conversion of pydantic models to the types and properties of a Pulumi schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from replicator.backends.settings import BackendConfig
from replicator.model import Model, StreamStatus
from replicator.replicator import ReplayPlan

# Counts are `number`: Pulumi's `integer` has 32 bits in some languages, too few for bytes.
_PLAIN = {str: "string", datetime: "string", timedelta: "string", bool: "boolean", int: "number", float: "number"}

_PARAM = re.compile(r"^:param (\w+):(.*?)(?=^:|^$|\Z)", re.MULTILINE | re.DOTALL)

_TEXTS: dict[type, dict[str, str]] = {
    StreamStatus: {"name": "its name at the engine."},
    ReplayPlan: {"stream": "the stream's name."},
    BackendConfig: {
        "address": "where it is reached, such as `unix:///run/replicator/agent.sock` or `ssh://user@host`.",
        "regions": "addresses by the region of a stream's source; other streams are managed at `address`.",
    },
}
"""Descriptions of fields that need none in the model's code."""


@dataclass(frozen=True, slots=True)
class Docs:
    """A class's docstring: its own text, and the texts of its fields by Python name."""

    text: str
    fields: dict[str, str]


def docs_of(cls: type) -> Docs:
    """Return the docstring, with the fields that base classes describe, or the values of an enum."""
    fields: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, (Model, StrEnum)):
            fields |= {name: _sentence(text) for name, text in _PARAM.findall(inspect.cleandoc(base.__doc__ or ""))}
            fields |= {name: _sentence(text) for name, text in _TEXTS.get(base, {}).items()}
    return Docs(_sentence(inspect.cleandoc(cls.__doc__ or "").partition(":param ")[0]), fields)


def _sentence(text: str) -> str:
    """Return one line that begins with a capital letter; Python's `None` becomes null."""
    line = " ".join(text.split()).replace("`None`", "null")
    return line[:1].upper() + line[1:]


class Types:
    """The named types in use.

    :param package: the package's name, for tokens.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._found: dict[str, dict[str, Any]] = {}

    def found(self) -> dict[str, dict[str, Any]]:
        """Return the definitions by token."""
        return dict(sorted(self._found.items()))

    def of(self, annotation: Any) -> dict[str, Any]:
        """Return the schema type of a Python annotation; raise `TypeError` if it has none."""
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self.of(arguments[0])
        if origin in (Union, UnionType):
            members = [self.of(member) for member in arguments if member is not NoneType]
            return members[0] if len(members) == 1 else {"oneOf": members}
        if origin is Literal:
            return {"type": "string"}
        if origin is tuple:
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if annotation is Any:
            return {"$ref": "pulumi.json#/Any"}
        if annotation in _PLAIN:
            return {"type": _PLAIN[annotation]}
        if isinstance(annotation, type) and issubclass(annotation, (StrEnum, Model)):
            return self._named(annotation)
        raise TypeError(f"no Pulumi type stands for {annotation!r}")

    def _named(self, cls: type[StrEnum | Model]) -> dict[str, Any]:
        token = f"{self._package}:index:{cls.__name__}"
        if token not in self._found:
            self._found[token] = {}  # a model may refer to itself
            self._found[token] = self._enum(cls) if issubclass(cls, StrEnum) else self._object(cls)
        return {"$ref": f"#/types/{token}"}

    def _enum(self, cls: type[StrEnum]) -> dict[str, Any]:
        docs = docs_of(cls)
        values = [
            {"name": _pascal(member.name), "value": member.value, "description": docs.fields.get(member.value, "")}
            for member in cls
        ]
        return {"description": docs.text, "type": "string", "enum": values}

    def known_words(self, name: str, text: str, words: Mapping[str, str]) -> dict[str, Any]:
        """Return the type of a string with known and possibly other values; SDKs have constants for the known ones.

        :param name: the name of the enum that lists them.
        :param words: the values, with their descriptions.
        """
        token = f"{self._package}:index:{name}"
        values = [
            {"name": _pascal(word.replace("-", "_")), "value": word, "description": about}
            for word, about in words.items()
        ]
        self._found[token] = {"description": text, "type": "string", "enum": values}
        return {"oneOf": [{"type": "string"}, {"type": "string", "$ref": f"#/types/{token}"}]}

    def _object(self, cls: type[Model]) -> dict[str, Any]:
        return {
            "description": docs_of(cls).text,
            "type": "object",
            "properties": self.properties(cls),
            "required": sorted(self.needed(cls)),
        }

    def properties(
        self, model: type[Model], *, hidden: frozenset[str] = frozenset(), defaults: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Return the properties of a model, by their names on the wire.

        :param hidden: Python names of fields to leave out.
        :param defaults: descriptions name the defaults. SDKs do not get them: inputs stay as written.
        """
        docs = docs_of(model).fields
        found = {}
        for name, field in model.model_fields.items():
            if name not in hidden:
                text = [docs.get(name) or _text_of_enum(field), *_words(field), *(_default(field) if defaults else ())]
                found[_wire_name(name, field)] = {
                    **self.of(field.annotation),
                    "description": " ".join(filter(None, text)),
                }
        return found

    def needed(self, model: type[Model]) -> Iterator[str]:
        """Yield the properties that a program has to set."""
        return (_wire_name(name, field) for name, field in model.model_fields.items() if field.is_required())

    def always(self, model: type[Model]) -> Iterator[str]:
        """Yield the properties that every answer has: they can be neither null nor omitted."""
        for name, field in model.model_fields.items():
            if NoneType not in get_args(field.annotation) and field.exclude_if is None:
                yield _wire_name(name, field)


def _wire_name(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _text_of_enum(field: FieldInfo) -> str:
    """Return the description of a field's enum, for a field without its own."""
    annotation = field.annotation
    return docs_of(annotation).text if isinstance(annotation, type) and issubclass(annotation, Enum) else ""


def _words(field: FieldInfo) -> Iterator[str]:
    """Yield the words that a union accepts besides an object; the schema can only call them a string."""
    for member in get_args(field.annotation):
        if get_origin(member) is Literal:
            yield f"As a string: {' or '.join(f'`{word}`' for word in get_args(member))}."


def _default(field: FieldInfo) -> Iterator[str]:
    if isinstance(field.default, Enum):
        yield f"Default: `{field.default.value}`."
    elif isinstance(field.default, bool):
        yield f"Default: `{str(field.default).lower()}`."


def _pascal(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
