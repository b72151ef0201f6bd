"""Routes of records along several mirrors: no topic has two writers, and no record returns to its source.

MirrorMaker 2 detects a loop only in names that begin with the destination's alias. With unchanged names, or aliases
that differ between mirrors, it copies for ever (seen on 4.3). Only mirrors of the configured Connect clusters are known
here.
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
"""A query for `common`: a topic at the source, prefixed with each text, is in that text's names."""

_LONGEST = 249
"""Maximum length of a topic's name in Kafka."""


class ClusterIdentity(NamedTuple):
    """The known identity of a cluster.

    :param id: `None` if it is unknown.
    """

    id: str | None
    bootstrap: str

    def is_at(self, other: ClusterIdentity) -> bool:
        """Tell whether both are the same cluster, by id, or by a common address if an id is unknown."""
        if self.id and other.id:
            return self.id == other.id
        return not set(self.bootstrap.split(",")).isdisjoint(other.bootstrap.split(","))


@dataclass(frozen=True)
class Route:
    """The topics that one mirror copies, with source and destination.

    :param names: the topics' names at the source.
    :param owner: the stream's owner; `None` if none is recorded.
    :param settled: it may run; otherwise it is a claim that another one may still win against.
    :param declared: it belongs to a stream, and was not created by hand.
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
        """Return the rank of a claim: of two unsettled ones, the smaller rank wins."""
        return self.name, self.owner.urn if self.owner else ""

    @property
    def prefix(self) -> str:
        """Return the text that is put before each topic's name."""
        return self.naming.at_destination("")

    @property
    def told(self) -> str:
        """Return its name for errors."""
        if not self.declared:
            return f"connector {self.name!r}, without a record that can be read,"
        return f"stream {self.name!r}" if self.settled else f"stream {self.name!r}, whose creation has not ended,"


def refuse_overlap(mine: Route, others: Iterable[Route], topics: Iterable[str] | None) -> None:
    """Raise `DestinationInUse` if another mirror can write a topic that this one writes.

    :param others: without this stream itself.
    :param topics: the source's topics, to name an existing one; `None` if they are unknown.
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
    """Raise `InvalidStream` if other mirrors would copy this one's records back to its source."""
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
    """Raise `InvalidStream` if the mirror takes topics that look like its own copies.

    :param globs: its `include`, which may name topics that do not exist yet.
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
    """Return the query for this mirror's topics whose copies both write; `None` if there are none."""
    if mine.prefix.startswith(other.prefix):
        asked: _Asked = (("", mine.names), (mine.prefix.removeprefix(other.prefix), other.names))
    elif other.prefix.startswith(mine.prefix):
        asked = ((other.prefix.removeprefix(mine.prefix), mine.names), ("", other.names))
    else:
        return None
    return asked if common(asked) is not None else None


class _Copies(NamedTuple):
    """Copies of topics at one cluster.

    :param asked: the query for the source's topics that reach this cluster.
    :param prefix: the text before their names here.
    :param way: the mirrors that copied them, after the first one.
    """

    here: ClusterIdentity
    asked: _Asked
    prefix: str
    way: tuple[Route, ...] = ()


class _Search:
    """Follows the copies of one mirror through others, until some are back at the source and are copied again.

    It searches states, not paths: of two paths to the same copies, it follows one. Topics that are listed by name are
    followed one by one. Copies that no mirror into the source can take are not followed, which ends the search in most
    meshes with prefixes.
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
        """Return copies that return to the source, by a shortest path; `None` if none do."""
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
        """Yield the copies that other mirrors make of these."""
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
        """Keep the copies that may return to the source and were not seen before, even with fewer conditions."""
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
            if not prefixes:  # names are unchanged
                if common((*one.asked, (one.prefix, matching_topics), (one.prefix, mine))) is not None:
                    return True
            elif can_follow(matching_topics, "", prefixes, one.prefix) and can_follow(mine, last, prefixes, one.prefix):
                return True
        return False


def _split(asked: _Asked) -> list[_Asked]:
    """Return one query per topic if the topics can be listed, else the query; nothing if no topic satisfies it."""
    words = listed(asked)
    if words is None:
        asked = tuple(dict.fromkeys(asked))
        return [asked] if common(asked) is not None else []
    return [(("", Names((literal(word),))),) for word in words]


def _example(asked: _Asked, topics: Iterable[str] | None) -> str:
    """Return a topic that satisfies the query, an existing one if possible, with its name in the first of `asked`."""
    first = asked[0][0]
    for topic in sorted(topics or ()):
        if topic.startswith(first) and all(known.has(before + topic.removeprefix(first)) for before, known in asked):
            return topic
    return first + (common(asked) or "")


def _or_delete(way: Iterable[Route]) -> str:
    """Return another fix: delete a connector, or finish an interrupted creation."""
    for other in way:
        if not other.declared:
            return f", or delete the connector {other.name!r}"
        if not other.settled:
            return f", or end the creation of {other.name!r}: run pulumi up or pulumi destroy where it is declared"
    return ""
