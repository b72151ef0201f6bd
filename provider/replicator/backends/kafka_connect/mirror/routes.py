"""Where records go along several mirrors: no topic has two writers, and nothing comes back to where it was.

MirrorMaker 2 sees a circle only in names that begin with the alias of the destination. With names that are kept, or
aliases that mirrors do not agree on, it copies for ever (seen on 4.3). What can be seen here are the mirrors of the
Connect clusters that the configuration names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from replicator.backends.kafka.endpoint import kafka_endpoint
from replicator.backends.kafka_connect.mirror.globs import Names, can_follow, common, listed, literal
from replicator.backends.kafka_connect.mirror.topics import Naming, names
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.errors import DestinationInUse, InvalidStream
from replicator.model import Owner

_Asked = tuple[tuple[str, Names], ...]
"""What `common` is asked: a topic at the source, with what is put before its name, is one of these names each time."""

_LONGEST = 249
"""Characters of a topic's name at most; Kafka makes none with a longer name."""


class ClusterIdentity(NamedTuple):
    """A cluster as far as it is known.

    :param id: `None` where it could not be seen.
    """

    id: str | None
    bootstrap: str

    def is_at(self, other: ClusterIdentity) -> bool:
        """Tell whether both are the same cluster; by an address that both have where one was not seen."""
        if self.id and other.id:
            return self.id == other.id
        return not set(self.bootstrap.split(",")).isdisjoint(other.bootstrap.split(","))


@dataclass(frozen=True)
class Route:
    """What one mirror copies, and where from and to.

    :param names: those of the topics at the source.
    :param owner: of the stream; `None` where none is recorded.
    :param settled: it may run; else it is a claim that others may still win against.
    :param declared: a stream made it, and no person.
    """

    name: str
    source: ClusterIdentity
    destination: ClusterIdentity
    naming: Naming
    names: Names
    owner: Owner | None = None
    settled: bool = True
    declared: bool = True

    @classmethod
    def of(cls, record: StreamRecord) -> Route:
        """Return the route of a stream."""
        stream = record.stream
        return cls(
            stream.name,
            ClusterIdentity(record.source_cluster, kafka_endpoint(stream.source, "source").bootstrap),
            ClusterIdentity(record.destination_cluster, kafka_endpoint(stream.destination, "destination").bootstrap),
            Naming.of(stream),
            names(stream),
            stream.owner,
            settled=not record.creating,
        )

    @property
    def rank(self) -> tuple[str, str]:
        """Of two claims that are not settled, the smaller one wins."""
        return self.name, self.owner.urn if self.owner else ""

    @property
    def prefix(self) -> str:
        """Return what is put before the name of each topic."""
        return self.naming.at_destination("")

    @property
    def told(self) -> str:
        """Return what an error calls it."""
        if not self.declared:
            return f"connector {self.name!r}, without a record that can be read,"
        return f"stream {self.name!r}" if self.settled else f"stream {self.name!r}, whose creation has not ended,"


def refuse_overlap(mine: Route, others: Iterable[Route], topics: Iterable[str] | None) -> None:
    """Raise `DestinationInUse` where another mirror can write a topic that this one writes.

    :param others: without this stream itself.
    :param topics: those of the source, to name one that is there; `None` where they cannot be seen.
    """
    for other in others:
        if other.destination.is_at(mine.destination) and (shared := _shared(mine, other)) is not None:
            topic = _example(shared, topics)
            raise DestinationInUse(
                f"{other.told} writes to {mine.prefix}{topic} too",
                stream=mine.name,
                property="include",
                fix=f"exclude it in one of them{_or_delete([other])}; two mirrors on one topic write every record "
                "twice",
            )


def refuse_circle(mine: Route, others: Sequence[Route], topics: Iterable[str] | None) -> None:
    """Raise `InvalidStream` where other mirrors would bring back what this one copies."""
    found = _Search(mine, others).way_back()
    if found is None:
        return
    way, asked = found.way, found.asked
    by = ", ".join(repr(other.name) for other in way or [mine])
    raise InvalidStream(
        f"what it copies of {_example(asked, topics)} would come back by the mirror{'s' if len(way) > 1 else ''} {by}, "
        "and be copied again without end",
        stream=mine.name,
        property="include",
        fix=f"exclude it in one of them{_or_delete(way)}, or let both prefix names, with a region of its own for each "
        "cluster",
    )


def refuse_own_copies(mine: Route, globs: Iterable[str], topics: Iterable[str] | None) -> None:
    """Raise `InvalidStream` where the mirror takes topics that look like its own copies.

    :param globs: its `include`, which may name some that are not there yet.
    """
    named = {glob.replace("*", "x").replace("?", "x") for glob in globs}
    looks = (topic for topic in sorted(named.union(topics or ())) if mine.naming.came_from(topic, mine.naming.source))
    if (copy := next(filter(mine.names.has, looks), None)) is not None:
        alias = mine.naming.source
        raise InvalidStream(
            f"{copy} looks like a copy that a mirror with the alias {alias!r} made; mirrored on, it would come back "
            "under a longer name each time",
            stream=mine.name,
            property="include",
            fix=f"exclude {alias}.*, or give the ends regions, so that each cluster has its own alias",
        )


def _shared(mine: Route, other: Route) -> _Asked | None:
    """Return what both write, as a question for the topics that this one takes; `None` where there is nothing."""
    if mine.prefix.startswith(other.prefix):
        asked: _Asked = (("", mine.names), (mine.prefix.removeprefix(other.prefix), other.names))
    elif other.prefix.startswith(mine.prefix):
        asked = ((other.prefix.removeprefix(mine.prefix), mine.names), ("", other.names))
    else:
        return None
    return asked if common(asked) is not None else None


class _Copies(NamedTuple):
    """Copies of topics at one cluster.

    :param asked: what a topic of the source has to be so that it comes here.
    :param prefix: what is before its name here.
    :param way: the mirrors that brought it, after the first one.
    """

    here: ClusterIdentity
    asked: _Asked
    prefix: str
    way: tuple[Route, ...] = ()


class _Search:
    """Follows the copies of one mirror along others, until some are where they came from and are copied again.

    It walks through what is where, and not through ways: where two of them lead to the same, one is followed. Topics
    that are listed by name are followed one by one. What no mirror into the source can take any more is not followed at
    all, which is how most meshes with prefixes end.
    """

    def __init__(self, mine: Route, others: Sequence[Route]) -> None:
        self._mine = mine
        self._by_source: dict[ClusterIdentity, list[Route]] = {}
        for other in others:
            self._by_source.setdefault(other.source, []).append(other)
        self._from: dict[ClusterIdentity, list[Route]] = {}
        self._prefixes = tuple(sorted({other.prefix for other in others} - {""}))
        self._into_source = {(one.names, one.prefix) for one in others if one.destination.is_at(mine.source)}
        self._seen: dict[tuple[ClusterIdentity, str], list[frozenset[tuple[str, Names]]]] = {}

    def way_back(self) -> _Copies | None:
        """Return copies that are back at the source, by a way that is among the shortest; `None` where none come."""
        mine = self._mine
        copies = self._new(_Copies(mine.destination, asked, mine.prefix) for asked in _split((("", mine.names),)))
        while copies:
            for one in copies:
                back = (*one.asked, (one.prefix, mine.names))
                if one.here.is_at(mine.source) and common(back) is not None:
                    return one._replace(asked=back)
            copies = self._new(further for one in copies for further in self._copied(one))
        return None

    def _copied(self, one: _Copies) -> Iterator[_Copies]:
        """Yield what the other mirrors make of copies."""
        for other in self._leaving(one.here):
            prefix = other.prefix + one.prefix
            if len(prefix) < _LONGEST:
                for asked in _split((*one.asked, (one.prefix, other.names))):
                    yield _Copies(other.destination, asked, prefix, (*one.way, other))

    def _leaving(self, here: ClusterIdentity) -> list[Route]:
        if here not in self._from:
            self._from[here] = [
                route for source, routes in self._by_source.items() if source.is_at(here) for route in routes
            ]
        return self._from[here]

    def _new(self, copies: Iterable[_Copies]) -> list[_Copies]:
        """Those that were not there yet, nor others with fewer conditions, and that may come back."""
        found = []
        for one in copies:
            seen, asked = self._seen.setdefault((one.here, one.prefix), []), frozenset(one.asked)
            if not any(before <= asked for before in seen) and self._may_return(one):
                seen.append(asked)
                found.append(one)
        return found

    def _may_return(self, one: _Copies) -> bool:
        mine, prefixes = self._mine.names, self._prefixes
        if one.here.is_at(self._mine.source):
            return True
        for matching_topics, last in self._into_source:
            if not prefixes:  # so the names stay as they are
                if common((*one.asked, (one.prefix, matching_topics), (one.prefix, mine))) is not None:
                    return True
            elif can_follow(matching_topics, "", prefixes, one.prefix) and can_follow(mine, last, prefixes, one.prefix):
                return True
        return False


def _split(asked: _Asked) -> list[_Asked]:
    """Return the same question for each topic, where the topics are listed; nothing where there is none."""
    words = listed(asked)
    if words is None:
        asked = tuple(dict.fromkeys(asked))
        return [asked] if common(asked) is not None else []
    return [(("", Names((literal(word),))),) for word in words]


def _example(asked: _Asked, topics: Iterable[str] | None) -> str:
    """Return a topic for which the answer is yes: one that is there, if any is. As the first of `asked` calls it."""
    first = asked[0][0]
    for topic in sorted(topics or ()):
        if topic.startswith(first) and all(known.has(before + topic.removeprefix(first)) for before, known in asked):
            return topic
    return first + (common(asked) or "")


def _or_delete(way: Iterable[Route]) -> str:
    """Return what else ends it: a connector may be deleted, and a creation that was cut off be ended."""
    for other in way:
        if not other.declared:
            return f", or delete the connector {other.name!r}"
        if not other.settled:
            return f", or end the creation of {other.name!r}: run pulumi up or pulumi destroy where it is declared"
    return ""
