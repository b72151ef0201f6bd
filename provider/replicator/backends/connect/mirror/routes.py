"""Where records go along several mirrors: no topic has two writers, and nothing comes back to where it was.

MirrorMaker 2 sees a circle only in names that begin with the alias of the destination. With names that are kept, or
aliases that mirrors do not agree on, it copies for ever (seen on 4.3). What can be seen here are the mirrors of the
Connect clusters that the configuration names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from replicator.backends.connect.marker import Marker
from replicator.backends.connect.mirror.topics import Naming, taken
from replicator.backends.connect.place import End, place
from replicator.errors import DestinationInUse, InvalidStream
from replicator.model import Stream


class Spot(NamedTuple):
    """A cluster as far as it is known.

    :param id: `None` where it could not be seen.
    """

    id: str | None
    bootstrap: str

    def is_at(self, other: Spot) -> bool:
        """Whether both are the same cluster; by address where one was not seen."""
        return self.id == other.id if self.id and other.id else self.bootstrap == other.bootstrap


def refuse_overlap(mine: Marker, others: Iterable[Marker], topics: Iterable[str] | None) -> None:
    """One writer for a topic: raise `DestinationInUse` where another mirror copies to one of the same.

    :param others: without this stream itself.
    :param topics: those of the source; `None` where they cannot be seen.
    """
    others = [other for other in others if _spot(other, "destination").is_at(_spot(mine, "destination"))]
    naming = Naming.of(mine.stream)
    for topic in _possible(mine, others, topics):
        name = naming.at_destination(topic)
        for other in others:
            if _writes(other.stream, name):
                raise DestinationInUse(
                    f"stream {other.stream.name!r} writes to {name} too",
                    stream=mine.stream.name,
                    property="include",
                    fix="exclude it in one of them; two mirrors on one topic write every record twice",
                )


def refuse_circle(mine: Marker, others: Sequence[Marker], topics: Iterable[str] | None) -> None:
    """Raise `InvalidStream` where other mirrors would bring back what this one copies."""
    naming, here = Naming.of(mine.stream), _spot(mine, "destination")
    for topic in _possible(mine, others, topics):
        if way := _way_back(mine, others, here, naming.at_destination(topic)):
            names = ", ".join(repr(other.stream.name) for other in way)
            raise InvalidStream(
                f"what it copies of {topic} would come back by the stream{'s' if len(way) > 1 else ''} {names}, and be "
                "copied again without end",
                stream=mine.stream.name,
                property="include",
                fix="exclude it in one of them, or let both prefix names, with a region of its own for each cluster",
            )


def refuse_own_copies(mine: Marker, topics: Iterable[str] | None) -> None:
    """Raise `InvalidStream` where the mirror takes topics that look like its own copies."""
    naming = Naming.of(mine.stream)
    if copies := [topic for topic in _possible(mine, (), topics) if naming.came_from(topic, naming.source)]:
        raise InvalidStream(
            f"{copies[0]} looks like a copy that a mirror with the alias {naming.source!r} made; mirrored on, it would "
            "come back under a longer name each time",
            stream=mine.stream.name,
            property="include",
            fix=f"exclude {naming.source}.*, or give the ends regions, so that each cluster has its own alias",
        )


def _way_back(mine: Marker, others: Sequence[Marker], here: Spot, name: str) -> list[Marker]:
    """The mirrors that bring a topic of a cluster to where this one takes it; empty where none do."""
    if here.is_at(_spot(mine, "source")) and taken(mine.stream, [name]):
        return [mine]
    for index, other in enumerate(others):
        if _spot(other, "source").is_at(here) and taken(other.stream, [name]):
            left = [*others[:index], *others[index + 1 :]]
            copy = Naming.of(other.stream).at_destination(name)
            if way := _way_back(mine, left, _spot(other, "destination"), copy):
                return [other, *(step for step in way if step is not mine)]
    return []


def _possible(mine: Marker, others: Iterable[Marker], topics: Iterable[str] | None) -> list[str]:
    """Topics that the mirror takes, and names that later ones could have."""
    globs = {glob for marker in (mine, *others) for glob in marker.stream.include or ("*",)}
    names = {glob.replace("*", "x").replace("?", "x") for glob in globs}
    return taken(mine.stream, names.union(topics or ()))


def _writes(stream: Stream, name: str) -> bool:
    naming = Naming.of(stream)
    if not naming.prefixed:
        return bool(taken(stream, [name]))
    return naming.came_from(name, naming.source) and bool(taken(stream, [name.removeprefix(naming.at_destination(""))]))


def _spot(marker: Marker, end: End) -> Spot:
    if end == "source":
        return Spot(marker.source_cluster, place(marker.stream.source, end).bootstrap)
    return Spot(marker.destination_cluster, place(marker.stream.destination, end).bootstrap)
