"""The types of an engine's own settings. Text is converted to the value that it spells."""

from __future__ import annotations

import re
from enum import StrEnum

from replicator.model import format_duration, parse_duration

OptionValue = str | int | bool

_FLAGS = {"true": True, "false": False}
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")


class OptionType(StrEnum):
    """The type of a value in `options`. YAML, `pulumi config` and environment variables often supply text for it."""

    TEXT = "text"
    FLAG = "true or false"
    NUMBER = "whole number"
    COUNT = "whole number from 1"
    DURATION = "duration"

    def read(self, value: object) -> OptionValue:
        """Return a value in canonical form, in which it is recorded and sent to the engine.

        Raise ValueError, which says what to write, if the value is not of this type.
        """
        match self:
            case OptionType.FLAG:
                return _flag(value)
            case OptionType.NUMBER:
                return _number(value)
            case OptionType.COUNT:
                if (count := _number(value)) < 1:
                    raise ValueError("must be at least 1")
                return count
            case OptionType.DURATION:
                return _duration(value)
            case OptionType.TEXT:
                return _text(value)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _FLAGS:
        return _FLAGS[value]
    meant = value.strip().lower() if isinstance(value, str) else None
    raise ValueError(f"must be true or false; write {meant}" if meant in _FLAGS else "must be true or false")


def _number(value: object) -> int:
    if isinstance(value, float) and value.is_integer():  # all of Pulumi's numbers are floats
        return _in_64_bits(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return _in_64_bits(value)
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return _in_64_bits(int(value))
        meant = re.fullmatch(r"\s*\+?(-?)0*([0-9]{1,18})(?:\.0+)?\s*", value)
        if meant:
            raise ValueError(f"must be a whole number; write {int(meant[1] + meant[2])}")
    raise ValueError("must be a whole number, such as 4")


def _in_64_bits(value: int) -> int:
    if abs(value) >= 2**63:
        raise ValueError("is too large; write a number below 2^63")
    return value


def _duration(value: object) -> str:
    found = parse_duration(value if isinstance(value, str) else "")
    if found.days < 0:
        raise ValueError("must not be negative")
    return format_duration(found)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(int(value)) if float(value).is_integer() else str(value)
    raise ValueError("must be a string; write several values as one, with commas between them")
