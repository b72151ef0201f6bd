"""Pulumi property values <-> Python values.

On the wire properties are a protobuf Struct in which maps with a signature key stand for secrets, outputs, resource
references, assets and archives, and one fixed string stands for a value that is not known yet. In Python they are plain
dicts, lists, strings, numbers, booleans and None, plus `Secret` and `UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

from replicator.property_values import (
    UNKNOWN,
    Path,
    PropertyError,
    Secret,
    contains_unknown,
    drop_unknown,
    path_text,
    secret_paths,
    strip,
    wrap_secrets,
)

__all__ = [
    "UNKNOWN",
    "Path",
    "PropertyError",
    "Secret",
    "contains_unknown",
    "decode",
    "drop_unknown",
    "encode",
    "path_text",
    "secret_paths",
    "strip",
    "wrap_secrets",
]

SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105  (a signature, not a secret)
OUTPUT: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
RESOURCE: Final = "5cf8f73096256a8f31e491e813e4eb8e"
ASSET: Final = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE: Final = "0def7320c3a5731c473e5ecbe6d01bc7"
UNKNOWN_TEXT: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def decode(struct: Struct) -> dict[str, Any]:
    """Return a Struct's Python values, with integral numbers as int. Raise PropertyError for assets and archives."""
    fields = struct.fields
    result = {}
    for key in fields:
        try:
            result[key] = _value(fields[key])
        except PropertyError as error:
            raise error.under(key) from None
    return result


def _value(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        text = value.string_value
        return UNKNOWN if text == UNKNOWN_TEXT else text
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        struct = value.struct_value
        return _special(struct) if SIGNATURE in struct.fields else decode(struct)
    if kind == "list_value":
        return _items(value.list_value.values)
    return None


def _items(values: Iterable[Value]) -> list[Any]:
    items: list[Any] = []
    for item in values:
        try:
            items.append(_value(item))
        except PropertyError as error:
            raise error.under(len(items)) from None
    return items


def _special(struct: Struct) -> Any:
    fields = struct.fields
    signature = fields[SIGNATURE].string_value
    if signature == SECRET:
        if "value" not in fields:
            raise PropertyError("a secret without a value")
        return _secret(_value(fields["value"]))
    if signature == OUTPUT:
        inner = _value(fields["value"]) if "value" in fields else UNKNOWN
        return _secret(inner) if "secret" in fields and fields["secret"].bool_value else inner
    if signature == RESOURCE:
        if "id" not in fields:  # a component resource has no id
            return _value(fields["urn"]) if "urn" in fields else UNKNOWN
        found = _value(fields["id"])
        return UNKNOWN if found in ("", None) else found
    if signature in (ASSET, ARCHIVE):
        kind = "an asset" if signature == ASSET else "an archive"
        raise PropertyError(f"{kind} is not accepted here; give the text itself")
    raise PropertyError("a kind of value that this version of the provider does not know; update the provider")


def _secret(value: Any) -> Secret:
    return value if isinstance(value, Secret) else Secret(value)


def encode(values: Mapping[str, Any]) -> Struct:
    """Return the Struct of Python values. Raise PropertyError for values that JSON or a double cannot hold exactly."""
    struct = Struct()
    _put_fields(struct, values)
    return struct


def _put_fields(struct: Struct, values: Mapping[str, Any]) -> None:
    fields = struct.fields
    for key, value in values.items():
        if not isinstance(key, str):
            raise PropertyError(f"a key of type {type(key).__name__}; keys are strings")
        try:
            _put(fields[key], value)
        except PropertyError as error:
            raise error.under(key) from None


def _put(target: Value, value: Any) -> None:
    if isinstance(value, str):
        try:
            target.string_value = value
        except UnicodeEncodeError:
            raise PropertyError("a string that is not valid Unicode text") from None
    elif value is None:
        target.null_value = NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = _number(value)
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        _put_fields(target.struct_value, value)
    elif isinstance(value, list | tuple):
        values = target.list_value.values
        target.list_value.SetInParent()
        for position, item in enumerate(value):
            try:
                _put(values.add(), item)
            except PropertyError as error:
                raise error.under(position) from None
    elif isinstance(value, Secret):
        fields = target.struct_value.fields
        fields[SIGNATURE].string_value = SECRET
        inner = value.value
        while isinstance(inner, Secret):
            inner = inner.value
        _put(fields["value"], inner)
    elif value is UNKNOWN:
        target.string_value = UNKNOWN_TEXT
    else:
        raise PropertyError(f"a value of type {type(value).__name__} has no form in Pulumi's state")


def _number(value: int | float) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise PropertyError("a number that is too large; use a string") from None
    if number - number != 0:  # NaN and the infinities
        raise PropertyError("a number that is not finite; use null for what is not known")
    if number != value:
        raise PropertyError("an integer that Pulumi's numbers would round; use a string")
    return number
