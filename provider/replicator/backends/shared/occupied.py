"""An index of the places of streams by location, so that the cost of a lookup does not grow with their number.

A place on this host's disk is what its path leads to now. So the names on its path are checked again before each
answer, and the place is recomputed if they have changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from replicator.backends.shared.identity import Identity, Look, Node, Sight, sight_of


class Occupant(Protocol):
    """An object that has places."""

    @property
    def places(self) -> Iterable[Identity]:
        """Return all of them."""
        ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Occupant)
_Path = tuple[str, tuple[str, ...]]
_Computed = tuple[V, dict[str, Sight | None]]


@dataclass(eq=False)
class _Visit(Generic[K, V]):
    """A caller that waits for the next survey, with its key."""

    key: K
    computed: _Computed[V] | None = None


@dataclass(eq=False)
class _Seen(Generic[K]):
    """The state of one name on the paths of places, and the keys of those places."""

    sight: Sight | None
    keys: set[K] = field(default_factory=set)


class Occupied(Generic[K, V]):
    """Occupants by their places. Belongs to one event loop.

    :param compute: returns the occupant of a key; reads the disk.
    """

    def __init__(self, compute: Callable[[K, Look], V]) -> None:
        self._compute = compute
        self._turn = asyncio.Lock()
        self._waiting: list[_Visit[K, V]] = []
        self._count: Counter[K] = Counter()
        self._due: set[K] = set()
        self._found: dict[K, V] = {}
        self._ways: dict[K, Iterable[str]] = {}
        self._seen: dict[str, _Seen[K]] = {}
        self._at: defaultdict[_Path, set[K]] = defaultdict(set)
        self._under: defaultdict[_Path, set[K]] = defaultdict(set)
        self._names: defaultdict[Node, Counter[tuple[str, ...]]] = defaultdict(Counter)

    def add(self, key: K, computed: _Computed[V] | None = None) -> None:
        """Add a key with its places, until it is dropped as often as it was added.

        :param computed: the result of a survey that ended a moment ago.
        """
        self._count[key] += 1
        if self._count[key] > 1:
            return
        if computed is None:
            self._due.add(key)
        else:
            self._install(key, computed)

    def drop(self, key: K) -> None:
        """Remove a key and its places."""
        self._count[key] -= 1
        if not self._count[key]:
            del self._count[key]
            self._due.discard(key)
            self._remove(key)

    async def visit(self, key: K) -> _Computed[V]:
        """Check every place as it is now, and compute the occupant of a key, added or not. Visits share their survey.

        What the caller does next without waiting happens before any other visit.
        """
        visit = _Visit[K, V](key)
        self._waiting.append(visit)
        async with self._turn:
            if visit.computed is None:
                await self._survey()
        assert visit.computed is not None
        return visit.computed

    def visit_now(self, key: K) -> _Computed[V]:
        """Do the same synchronously, in the event loop."""
        self._due |= self._users_of(_changed(self._sights()))
        self.see_due()
        return _computed(self._compute, key)

    def see_due(self) -> None:
        """Compute the places of the keys that were added since the last visit, in the event loop."""
        self._put({key: _computed(self._compute, key) for key in self._due})

    async def _survey(self) -> None:
        visits, self._waiting = self._waiting, []
        try:
            self._due |= self._users_of(await asyncio.to_thread(_changed, self._sights()))
            keys = {*self._due, *(visit.key for visit in visits)}
            computed = await asyncio.to_thread(lambda: {key: _computed(self._compute, key) for key in keys})
        except BaseException:
            self._waiting += visits
            raise
        self._put(computed)
        for visit in visits:
            visit.computed = computed[visit.key]

    def near(self, mine: V) -> list[V]:
        """Return the occupants with a place that may equal, contain, or be inside one of these."""
        keys = {
            key for place in mine.places for path in self._paths(place) for key in self._touching(place.store, path)
        }
        return [self._found[key] for key in keys]

    # --- the index -------------------------------------------------------------------------------------------------

    def _sights(self) -> list[tuple[str, Sight | None]]:
        return [(path, seen.sight) for path, seen in self._seen.items()]

    def _users_of(self, paths: Iterable[str]) -> set[K]:
        return {key for path in paths if path in self._seen for key in self._seen[path].keys}

    def _put(self, computed: dict[K, _Computed[V]]) -> None:
        for key in self._due & computed.keys():
            self._remove(key)
            self._install(key, computed[key])
        self._due -= computed.keys()

    def _install(self, key: K, computed: _Computed[V]) -> None:
        occupant, sights = computed
        self._found[key] = occupant
        self._ways[key] = sights
        for path, sight in sights.items():
            seen = self._seen.setdefault(path, _Seen(sight))
            if seen.sight != sight:  # it has changed since the earlier survey
                self._due |= seen.keys
                seen.sight = sight
            seen.keys.add(key)
        for place in occupant.places:
            self._at[place.store, place.path].add(key)
            for length in range(len(place.path) + 1):
                self._under[place.store, place.path[:length]].add(key)
            for depth, node in enumerate(place.nodes, 1):
                self._names[node][place.path[:depth]] += 1

    def _remove(self, key: K) -> None:
        occupant = self._found.pop(key, None)
        if occupant is None:
            return
        for path in self._ways.pop(key):
            self._seen[path].keys.discard(key)
            if not self._seen[path].keys:
                del self._seen[path]
        for place in occupant.places:
            _discard(self._at, (place.store, place.path), key)
            for length in range(len(place.path) + 1):
                _discard(self._under, (place.store, place.path[:length]), key)
            for depth, node in enumerate(place.nodes, 1):
                self._names[node][place.path[:depth]] -= 1
                self._names[node] += Counter()  # without the entry at 0
                if not self._names[node]:
                    del self._names[node]

    def _paths(self, place: Identity) -> Iterator[tuple[str, ...]]:
        """Yield the place's path, and others to it: a folder may be mounted twice, and a file may have two links."""
        yield place.path
        for depth, node in enumerate(place.nodes, 1):
            for other in self._names.get(node, ()):
                if other != place.path[:depth]:
                    yield (*other, *place.path[depth:])

    def _touching(self, store: str, path: tuple[str, ...]) -> Iterator[K]:
        yield from self._under.get((store, path), ())
        for length in range(len(path)):
            yield from self._at.get((store, path[:length]), ())


def _discard(index: defaultdict[_Path, set[K]], path: _Path, key: K) -> None:
    index[path].discard(key)
    if not index[path]:
        del index[path]


def _changed(sights: list[tuple[str, Sight | None]]) -> list[str]:
    return [path for path, sight in sights if sight_of(path) != sight]


def _computed(compute: Callable[[K, Look], V], key: K) -> _Computed[V]:
    look = Look()
    return compute(key, look), look.sights
