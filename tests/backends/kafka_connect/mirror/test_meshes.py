"""Circles in meshes of many mirrors: found as by a walk along every way, and in a time that does not grow with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replicator.backends.kafka_connect.deployed import Listed
from replicator.backends.kafka_connect.mirror import surroundings
from replicator.backends.kafka_connect.mirror.foreign_mirrors import ForeignMirrors
from replicator.backends.kafka_connect.mirror.globs import common
from replicator.backends.kafka_connect.mirror.peer_clusters import Look
from replicator.backends.kafka_connect.mirror.routes import ClusterIdentity, Route, _Search, refuse_circle
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.errors import InvalidStream

from tests.backends.kafka_connect.mirror.builders import IDENTITY, declare
from tests.backends.kafka_connect.mirror.mirror_env import longest_pause

CLUSTERS = 20
WITHIN = 1.0
"""Seconds for one stream, among those of a full mesh."""


def route(source: str, destination: str, *, regions: bool = True, name: str | None = None, **changes: Any) -> Route:
    ends = {
        end: {"uri": f"kafka://{word}:9092", **({"region": word} if regions else {})}
        for end, word in (("source", source), ("destination", destination))
    }
    stream = declare(**{"name": name or f"{source}-to-{destination}", **ends, **changes})
    return Route.of(StreamRecord(stream=stream, source_cluster=source, destination_cluster=destination))


def mesh(count: int, **changes: Any) -> list[Route]:
    """A mirror from each cluster to each other one; a changed property may depend on both."""
    names = [f"c{number}" for number in range(count)]
    return [
        route(one, other, **{key: value(one, other) if callable(value) else value for key, value in changes.items()})
        for one, other in permutations(names, 2)
    ]


def every_way(mine: Route, others: Sequence[Route]) -> bool:
    """Whether a topic comes back, by a walk along each way that takes no mirror twice: slow, and plain."""

    def walk(here: ClusterIdentity, asked: tuple[Any, ...], prefix: str, left: Sequence[Route]) -> bool:
        if here.is_at(mine.source) and common((*asked, (prefix, mine.names))) is not None:
            return True
        for at, other in enumerate(left):
            if not other.source.is_at(here) or common(on := (*asked, (prefix, other.names))) is None:
                continue
            if walk(other.destination, on, other.prefix + prefix, [*left[:at], *left[at + 1 :]]):
                return True
        return False

    return walk(mine.destination, (("", mine.names),), mine.prefix, others)


def comes_back(mine: Route, others: Sequence[Route]) -> bool:
    try:
        refuse_circle(mine, others, None)
    except InvalidStream:
        return True
    return False


TOPICS = [f"topic-{number}" for number in range(20)]
MESHES: dict[str, dict[str, Any]] = {
    "all topics, with prefixes": {"include": []},
    "twenty topics, with prefixes": {"include": TOPICS},
    "globs, with prefixes": {"include": ["shop-*", "*.shop-*", "*.*.shop-*"]},
    "each its own topics, with names kept": {
        "include": lambda one, other: [f"{one}-*", f"{one}.*"],
        "options": IDENTITY,
    },
    "some of twenty topics, with names kept": {
        "include": lambda one, other: [
            topic for at, topic in enumerate(TOPICS) if int(one[1:]) < int(other[1:]) or at % 20 == int(one[1:])
        ],
        "options": lambda one, other: IDENTITY if other != "c0" else {},
    },
    "all topics but those of one cluster, which keeps names": {
        "include": lambda one, other: ["secret.*"] if other == "c0" else [],
        "options": lambda one, other: IDENTITY if other == "c0" else {},
    },
    "globs of many kinds, with names kept but into one": {
        "include": lambda one, other: [f"*{'abcdefghij'[(int(one[1:]) * 7 + int(other[1:])) % 10]}*"],
        "options": lambda one, other: IDENTITY if other != "c0" else {},
    },
    "globs of many kinds, with names kept": {
        "include": lambda one, other: (
            ["zzz"] if other == "c0" else [f"*{'abcdefghij'[(int(one[1:]) * 7 + int(other[1:])) % 10]}"]
        ),
        "options": IDENTITY,
    },
}


@pytest.mark.parametrize("count", [8, CLUSTERS])
@pytest.mark.parametrize("kind", MESHES)
def test_a_full_mesh_takes_a_moment(kind: str, count: int) -> None:
    mine, *others = mesh(count, **MESHES[kind])
    started = time.process_time()
    comes_back(mine, others)
    assert time.process_time() - started < WITHIN


@pytest.mark.parametrize("kind", ["all topics, with prefixes", "twenty topics, with prefixes", "globs, with prefixes"])
def test_a_mesh_with_prefixes_is_no_circle(kind: str) -> None:
    mine, *others = mesh(CLUSTERS, **MESHES[kind])
    assert not comes_back(mine, others)


def test_a_circle_through_all_clusters_is_found() -> None:
    names = [f"c{number}" for number in range(CLUSTERS)]
    mine, *others = [
        route(one, other, options=IDENTITY, include=["orders"])
        for one, other in zip(names, [*names[1:], names[0]], strict=True)
    ]
    with pytest.raises(InvalidStream, match="would come back by the mirrors") as refused:
        refuse_circle(mine, [*others, *mesh(CLUSTERS, include=["bills"])], None)
    assert all(repr(other.name) in refused.value.message for other in others)
    assert not comes_back(mine, others[:-1])


words = st.sampled_from(["c0", "c1", "c2", "c3"])
globs = st.lists(
    st.sampled_from(["orders", "bills", "o*", "*s", "*.orders", "c0.*", "c?.o*", "source.orders", "*.*.*", "*"]),
    max_size=3,
    unique=True,
)
routes = st.builds(
    lambda ends, regions, keeps, include, exclude: route(
        *ends, regions=regions, include=include, exclude=exclude, options=IDENTITY if keeps else {}
    ),
    st.tuples(words, words).filter(lambda ends: ends[0] != ends[1]),
    st.booleans(),
    st.booleans(),
    globs,
    globs,
)


@settings(max_examples=400, deadline=None)
@given(routes, st.lists(routes, max_size=6))
def test_what_comes_back_by_any_way_is_found_and_nothing_else(mine: Route, others: list[Route]) -> None:
    found = _Search(mine, others).way_back()
    if found is None:
        assert not every_way(mine, others)
        return
    topic = common(found.asked)
    assert topic is not None
    assert really_returns(mine, found.way, topic)
    if len(set(map(id, found.way))) == len(found.way):
        assert every_way(mine, others)


def really_returns(mine: Route, way: Iterable[Route], topic: str) -> bool:
    """Follow one topic along a way."""
    here, name = mine.source, topic
    for one in (mine, *way, mine):
        if not (one.source.is_at(here) and one.names.has(name)):
            return False
        here, name = one.destination, one.naming.at_destination(name)
    return True


class Seen:
    """One look at a Connect cluster, and no neighbours."""

    def __init__(self, look: Look) -> None:
        self._look = look

    async def next(self) -> Look:
        return self._look

    async def look_again(self) -> list[Look]:
        return []


async def test_a_long_check_does_not_hold_up_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "refuse_circle", lambda *_: time.sleep(0.4))
    mine = StreamRecord(stream=declare(), source_cluster="east", destination_cluster="west")
    names = frozenset({mine.stream.name, "other"})
    seen: Any = Seen(Look(names, Listed({}, {}), (), ForeignMirrors((), {})))
    winning = asyncio.create_task(surroundings.Surroundings(seen, seen, PendingChanges(1, 1)).win(mine))
    assert await longest_pause(winning) < 0.3
    assert await winning == names
