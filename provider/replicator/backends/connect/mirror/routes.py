"""Where records go along several mirrors: no topic has two writers, and nothing comes back to where it was.

MirrorMaker 2 sees a circle only in names that begin with the alias of the destination. With names that are kept, or
aliases that mirrors do not agree on, it copies for ever (seen on 4.3). What can be seen here are the mirrors of the
Connect clusters that the configuration names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from replicator.backends.connect.marker import Marker
from replicator.backends.connect.mirror.globs import Names, common
from replicator.backends.connect.mirror.topics import Naming, names
from replicator.backends.connect.place import place
from replicator.errors import DestinationInUse, InvalidStream
from replicator.model import Owner

_Asked = tuple[tuple[str, Names], ...]
"""What `common` is asked: a topic at the source, with what is put before its name, is one of these names each time."""


class Spot(NamedTuple):
    """A cluster as far as it is known.

    :param id: `None` where it could not be seen.
    """

    id: str | None
    bootstrap: str

    def is_at(self, other: Spot) -> bool:
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
    source: Spot
    destination: Spot
    naming: Naming
    names: Names
    owner: Owner | None = None
    settled: bool = True
    declared: bool = True

    @classmethod
    def of(cls, marker: Marker) -> Route:
        """Return the route of a stream."""
        stream = marker.stream
        return cls(
            stream.name,
            Spot(marker.source_cluster, place(stream.source, "source").bootstrap),
            Spot(marker.destination_cluster, place(stream.destination, "destination").bootstrap),
            Naming.of(stream),
            names(stream),
            stream.owner,
            settled=not marker.making,
        )

    @property
    def rank(self) -> tuple[str, str]:
        """Of two claims that are not settled, the smaller one wins."""
        return self.name, self.owner.urn if self.owner else ""

    @property
    def prefix(self) -> str:
        """What is put before the name of each topic."""
        return self.naming.at_destination("")

    @property
    def told(self) -> str:
        """What an error calls it."""
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
    found = _way_back(mine, others, mine.destination, (("", mine.names),), mine.prefix)
    if found is None:
        return
    way, asked = found
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
    """What both write, as a question for the topics that this one takes; `None` where there is nothing."""
    if mine.prefix.startswith(other.prefix):
        asked: _Asked = (("", mine.names), (mine.prefix.removeprefix(other.prefix), other.names))
    elif other.prefix.startswith(mine.prefix):
        asked = ((other.prefix.removeprefix(mine.prefix), mine.names), ("", other.names))
    else:
        return None
    return asked if common(asked) is not None else None


def _way_back(
    mine: Route, others: Sequence[Route], here: Spot, asked: _Asked, prefix: str
) -> tuple[list[Route], _Asked] | None:
    """The mirrors that bring a topic back to where this one takes it, and the question that such a topic answers.

    :param asked: what a topic of the source has to be so that it comes `here`.
    :param prefix: what is before its name here.
    """
    if here.is_at(mine.source) and common(back := (*asked, (prefix, mine.names))) is not None:
        return [], back
    for index, other in enumerate(others):
        if not other.source.is_at(here) or common(on := (*asked, (prefix, other.names))) is None:
            continue
        left = [*others[:index], *others[index + 1 :]]
        if (found := _way_back(mine, left, other.destination, on, other.prefix + prefix)) is not None:
            way, back = found
            return [other, *way], back
    return None


def _example(asked: _Asked, topics: Iterable[str] | None) -> str:
    """A topic for which the answer is yes: one that is there, if any is. As the first of `asked` calls it."""
    first = asked[0][0]
    for topic in sorted(topics or ()):
        if topic.startswith(first) and all(known.has(before + topic.removeprefix(first)) for before, known in asked):
            return topic
    return first + (common(asked) or "")


def _or_delete(way: Iterable[Route]) -> str:
    """What else ends it: a connector may be deleted, and a creation that was cut off be ended."""
    for other in way:
        if not other.declared:
            return f", or delete the connector {other.name!r}"
        if not other.settled:
            return f", or end the creation of {other.name!r}: run pulumi up or pulumi destroy where it is declared"
    return ""
