"""Offsets of many partitions as the text of one checkpoint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replicator.backends.kafka.positions import Partition, read, write
from replicator.errors import InvalidStream

TOPICS = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True)
POSITIONS = st.dictionaries(
    st.builds(Partition, TOPICS, st.integers(0, 12)), st.integers(0, 2**63 - 1), min_size=1, max_size=20
)


@given(POSITIONS)
def test_what_is_written_is_read_back(offsets: dict[Partition, int]) -> None:
    text = write(offsets)
    assert text is not None
    assert read(text) == offsets
    assert write(read(text)) == text


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("orders=42,8", {("orders", 0): 42, ("orders", 1): 8}),
        ("orders=42,8;users=-,3", {("orders", 0): 42, ("orders", 1): 8, ("users", 1): 3}),
        ("a.b-c_D=0", {("a.b-c_D", 0): 0}),
        (" orders=1 ; users=2 ", {("orders", 0): 1, ("users", 0): 2}),
        ("orders=-", {}),
    ],
)
def test_a_text_is_read(text: str, offsets: dict[tuple[str, int], int]) -> None:
    assert read(text) == offsets


def test_nothing_known_is_no_text() -> None:
    assert write({}) is None


def test_the_order_of_topics_is_theirs_and_not_that_of_the_engine() -> None:
    one = {Partition("users", 1): 3, Partition("orders", 0): 42}
    assert write(one) == write(dict(reversed(one.items()))) == "orders=42;users=-,3"


@pytest.mark.parametrize(
    "text",
    ["", "orders", "orders=", "=1", "orders=-1", "orders=1,,2", "orders=1;", "orders=1.5", "or ders=1", "orders=٣",
     "orders=1;orders=2", "0/16B3748", "a" * 250 + "=1"],
)  # fmt: skip
def test_another_text_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(InvalidStream) as refused:
        read(text)
    assert refused.value.property == "lsn"
    assert "orders=42,8" in str(refused.value.fix)
