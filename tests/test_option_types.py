"""The types of options: text that spells a value means that value, and the rest is refused with what to write."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replicator.capabilities import KAFKA_MIRROR, TABLE
from replicator.option_types import OptionType

TEXT, FLAG, NUMBER, COUNT, DURATION = OptionType


@pytest.mark.parametrize(
    ("type", "value", "form"),
    [
        (FLAG, True, True),
        (FLAG, "true", True),
        (FLAG, "false", False),
        (NUMBER, 4, 4),
        (NUMBER, 4.0, 4),
        (NUMBER, "4", 4),
        (NUMBER, "-1", -1),
        (NUMBER, "0", 0),
        (COUNT, "1", 1),
        (DURATION, "60s", "1m"),
        (DURATION, "1.5s", "1s500ms"),
        (DURATION, "0s", "0s"),
        (DURATION, "1d", "24h"),
        (TEXT, "shop", "shop"),
        (TEXT, "", ""),
        (TEXT, 5.0, "5"),
        (TEXT, 1.5, "1.5"),
    ],
)
def test_a_value_has_one_form(type: OptionType, value: object, form: object) -> None:
    assert repr(type.read(value)) == repr(form)  # True is not 1
    assert repr(type.read(type.read(value))) == repr(form)


@pytest.mark.parametrize(
    ("type", "value", "says"),
    [
        (FLAG, " True", "must be true or false; write true"),
        (FLAG, "FALSE", "must be true or false; write false"),
        (FLAG, "yes", "must be true or false"),
        (FLAG, 1, "must be true or false"),
        (NUMBER, " 4", "must be a whole number; write 4"),
        (NUMBER, "04", "must be a whole number; write 4"),
        (NUMBER, "+4", "must be a whole number; write 4"),
        (NUMBER, "4.0", "must be a whole number; write 4"),
        (NUMBER, "-0", "must be a whole number; write 0"),
        (NUMBER, "1e3", "must be a whole number, such as 4"),
        (NUMBER, "four", "must be a whole number, such as 4"),
        (NUMBER, "٤", "must be a whole number, such as 4"),
        (NUMBER, 4.5, "must be a whole number, such as 4"),
        (NUMBER, float("nan"), "must be a whole number, such as 4"),
        (NUMBER, True, "must be a whole number, such as 4"),
        (NUMBER, [4], "must be a whole number, such as 4"),
        (NUMBER, 1e20, "is too large; write a number below 2^63"),
        (NUMBER, "9223372036854775808", "is too large; write a number below 2^63"),
        (COUNT, 0, "must be at least 1"),
        (COUNT, "-1", "must be at least 1"),
        (COUNT, "two", "must be a whole number, such as 4"),
        (DURATION, 10, 'is not a duration; write one such as "10s" or "1m30s"'),
        (DURATION, "10", 'is not a duration; write one such as "10s" or "1m30s"'),
        (DURATION, "10s - 5s", 'is not a duration; write one such as "10s" or "1m30s"'),
        (DURATION, "-5s", "must not be negative"),
        (TEXT, ["a", "b"], "must be a string; write several values as one, with commas between them"),
        (TEXT, True, "must be a string; write several values as one, with commas between them"),
    ],
)
def test_another_value_is_refused_with_what_to_write(type: OptionType, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        type.read(value)


@given(st.sampled_from(OptionType), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary())
def test_nothing_is_too_odd(type: OptionType, value: object) -> None:
    try:
        form = type.read(value)
    except ValueError:
        return
    assert type.read(form) == form


def test_what_cannot_be_read_stays_and_null_is_left_out() -> None:
    given = {"tasks.max": "4", "sync.group.offsets.enabled": " True", "groups": None, "of.a.later.release": "4"}
    kept = {"tasks.max": 4, "sync.group.offsets.enabled": " True", "of.a.later.release": "4"}
    assert KAFKA_MIRROR.canonical_options(given) == kept


@pytest.mark.parametrize("backend", TABLE)
def test_every_option_has_a_type(backend: str) -> None:
    options = TABLE[backend].options
    assert options
    assert all(type is FLAG for option, type in options.items() if option.endswith((".enabled", ".enable")))
