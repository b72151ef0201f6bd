"""Whether names exist that several mirrors take, against every short name there is."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replicator.backends.kafka_connect.mirror.globs import ANYTHING, Names, common, literal, parse
from replicator.backends.kafka_connect.mirror.topics import include_patterns

LETTERS = "ab."
LONGEST = 5
WORDS = ["".join(word) for size in range(1, LONGEST + 1) for word in itertools.product(LETTERS, repeat=size)]

globs = st.text("ab.*?", min_size=1, max_size=4)
lists = st.lists(globs, max_size=3)
prefixes = st.sampled_from(["", "a", "a.", "b.a"])


def of(include: list[str], exclude: list[str]) -> tuple[Names, re.Pattern[str], re.Pattern[str]]:
    """Names, and the two regular expressions that Java would have."""
    patterns = [[parsed for regex in include_patterns(part) if (parsed := parse(regex))] for part in (include, exclude)]
    words = ["|".join(include_patterns(part)) for part in (include, exclude)]
    names = Names(tuple(patterns[0]), tuple(patterns[1]) if exclude else ())
    return names, re.compile(words[0]), re.compile(words[1] if exclude else r"(?!)")


@settings(max_examples=400)
@given(st.lists(st.tuples(prefixes, lists, lists), min_size=1, max_size=3))
def test_the_shortest_common_name_is_that_of_a_search_through_all(
    asked: list[tuple[str, list[str], list[str]]],
) -> None:
    built = [(prefix, *of(include, exclude)) for prefix, include, exclude in asked]

    def is_common(word: str) -> bool:
        return all(
            include.fullmatch(prefix + word) and not exclude.fullmatch(prefix + word)
            for prefix, _, include, exclude in built
        )

    found = common(tuple((prefix, names) for prefix, names, *_ in built))
    shortest = next((word for word in WORDS if is_common(word)), None)
    if found is None:
        assert shortest is None
        return
    assert is_common(found)
    assert shortest is None or len(found) <= len(shortest)


@settings(max_examples=200)
@given(lists, lists, st.text("abc.-_", min_size=1, max_size=6))
def test_a_name_is_one_of_them_as_the_regular_expressions_say(
    include: list[str], exclude: list[str], word: str
) -> None:
    names, included, excluded = of(include, exclude)
    assert names.has(word) == bool(included.fullmatch(word) and not excluded.fullmatch(word))


@pytest.mark.parametrize(
    ("regex", "names", "others"),
    [
        (r"orders", ["orders"], ["order", "orders1"]),
        (r"mm2.*\.internal", ["mm2.internal", "mm2-a.b.internal"], ["mm2-internal", "xmm2.internal"]),
        (r".*[\-\.]internal", ["a.internal", "-internal"], ["internal", "a_internal"]),
        (r"[^.]+", ["a", "a-b"], ["", "a.b"]),
        (r"__.*", ["__", "__x.y"], ["_x"]),
        (r"[ab]c*", ["a", "bccc"], ["cc", "ab"]),
    ],
)
def test_an_expression_is_read_as_java_reads_it(regex: str, names: list[str], others: list[str]) -> None:
    parsed = parse(regex)
    assert parsed is not None
    found = Names((parsed,))
    assert [name for name in [*names, *others] if found.has(name)] == names


@pytest.mark.parametrize(
    "regex", ["a|b", "(a)", "a?", "a{2}", "a**", "[a-c]", r"\d", "a*+", "^a", "$", "a,b", "[", "*"]
)
def test_what_is_not_understood_is_no_pattern(regex: str) -> None:
    assert parse(regex) is None


def test_a_name_that_only_an_exclusion_takes_out_is_not_common() -> None:
    every = Names((ANYTHING,), (literal("a"),))
    assert common((("", every), ("", Names((literal("a"),))))) is None
    assert common((("", every), ("", Names((literal("a"), literal("b")))))) == "b"
    assert common((("a.", Names((literal("a.b"),))), ("", every))) == "b"
