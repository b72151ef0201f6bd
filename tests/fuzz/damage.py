"""Documents and bytes that were right before they were damaged, and a way to run many of them.

The tests of this folder have a seeded thousand of them for the socket alone, and 120,000 others in `make proof`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

T = TypeVar("T")

_DEEP = "[" * 5_000
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31, 2**63, 10**400, 1e308, -0.0, 1.5]),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(["", "\0", "\ud800", "../..", "/", "a" * 3000, "${env:HOME}", "9" * 5000]),
    st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "2026-01-31"]),
    st.sampled_from([[], {}, [[]], [None], {"": None}, {"path": 7}]),
    st.recursive(st.none() | st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=6),
).map(copy.deepcopy)  # fmt: skip


def _places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each part."""
    found = [above]
    if isinstance(value, dict):
        for key, item in value.items():
            found += _places(item, (*above, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            found += _places(item, (*above, position))
    return found


@st.composite
def documents(draw: st.DrawFn, whole: Any) -> Any:
    """A document in which up to three parts are other values, are missing, or are there besides."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(_places(value)))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(JUNK)
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        how = draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "replace":
            holder[path[-1]] = draw(JUNK)
        elif how == "remove":
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=10))] = draw(JUNK)
        else:
            holder.append(draw(JUNK))
    return value


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some are others, missing, or there twice."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        end = draw(st.integers(at, min(len(content), at + 20)))
        how = draw(st.sampled_from(["replace", "remove", "repeat", "cut"]))
        if how == "cut":
            content = content[:at]
        else:
            between = {"replace": draw(st.binary(max_size=8)), "remove": b"", "repeat": 2 * content[at:end]}[how]
            content = content[:at] + between + content[end:]
    return content


@st.composite
def texts(draw: st.DrawFn, whole: Any) -> bytes:
    """The JSON of a damaged document, of which bytes may be damaged too."""
    content = json.dumps(draw(documents(whole))).encode()
    how = draw(st.integers(0, 9))
    if how == 0:
        return draw(damaged(content))
    return _DEEP.encode() if how == 1 and draw(st.integers(0, 9)) == 0 else content


def run(inputs: st.SearchStrategy[T], check: Callable[[T], None], count: int, *, seeded: bool = True) -> None:
    """Check so many inputs; the same ones each time, where `seeded`."""

    @settings(
        max_examples=count,
        derandomize=seeded,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        phases=[Phase.generate],  # to shrink a batch would take minutes
    )
    @given(inputs)
    def each(value: T) -> None:
        check(value)

    each()
