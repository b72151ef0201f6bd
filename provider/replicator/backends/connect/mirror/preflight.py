"""A look at a mirror's worker and its two clusters before a change. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from replicator.backends.connect.brokers import Cluster
from replicator.backends.connect.cluster import ConnectCluster
from replicator.backends.connect.marker import Marker
from replicator.backends.connect.mirror.connectors import SOURCE_CLASS, Side, build
from replicator.backends.connect.mirror.ends import Ends, View, look, side_of
from replicator.backends.connect.mirror.topics import Naming, taken
from replicator.backends.connect.place import End, place
from replicator.backends.connect.placeholders import placeholders
from replicator.errors import DestinationInUse, InvalidStream, ReplicatorError, SecretNotFound
from replicator.model import Stream
from replicator.replicator import Finding, Severity

_FACTOR = "replication.factor"
_DEFAULT_FACTOR = 2  # of MirrorMaker 2


async def check(
    cluster: ConnectCluster,
    worker: str,
    ends: Ends,
    stream: Stream,
    others: Iterable[Stream],
    aliases: Mapping[str, str],
) -> tuple[Side, View]:
    """Everything that would make the mirror do harm or not start; raise the first of it.

    :param worker: id of the Kafka cluster that the workers keep their topics on.
    :param others: the streams that the Connect cluster has.
    """
    view = await look(ends, stream)
    side = side_of(stream, view, worker)
    await _refuse_unresolved(cluster, stream, aliases)
    await _refuse_invalid(cluster, build(Marker(stream=stream), side, aliases).source, stream)
    _refuse_factor(stream, view)
    names = await _topics(ends, stream, "source", view)
    refuse_overlap(stream, others, names)
    _refuse_loop(stream, names)
    return side, view


async def warnings(ends: Ends, stream: Stream, view: View, *, new: bool) -> list[Finding]:
    """What a person wants to know, and what stops nobody."""
    found = []
    for end, seen in (("source", view.source), ("destination", view.destination)):
        if isinstance(seen, ReplicatorError):
            found.append(
                Finding(
                    severity=Severity.WARNING,
                    code=seen.code,
                    message=f"the {end} cannot be seen from here, so options are taken at their word: {seen.message}",
                    property=seen.property,
                )
            )
    names = await _topics(ends, stream, "source", view)
    if names is not None and not taken(stream, names):
        text = "no topic of the source matches now; one that is made later is mirrored"
        found.append(Finding(severity=Severity.WARNING, code=InvalidStream.code, message=text, property="include"))
    if new and names is not None and (there := await _topics(ends, stream, "destination", view)) is not None:
        naming = Naming.of(stream)
        if used := sorted(set(map(naming.at_destination, taken(stream, names))) & set(there)):
            more = f" and {len(used) - 1} more" if len(used) > 1 else ""
            text = f"the topic {used[0]}{more} is there already; the mirror appends to what it holds"
            found.append(
                Finding(severity=Severity.WARNING, code=DestinationInUse.code, message=text, property="destination.uri")
            )
    return found


async def _topics(ends: Ends, stream: Stream, end: End, view: View) -> dict[str, int] | None:
    return await (await ends.brokers(stream, end)).topics() if view.id(end) else None


async def _refuse_unresolved(cluster: ConnectCluster, stream: Stream, aliases: Mapping[str, str]) -> None:
    """A placeholder that the worker cannot resolve would become the password."""
    for at in (place(stream.source, "source"), place(stream.destination, "destination")):
        wanted = placeholders(at.ref, aliases, f"{at.end}.authRef")
        problems = await cluster.resolves(list(wanted.values()), SOURCE_CLASS) if wanted else {}
        for text, problem in problems.items():
            if problem is not None:
                raise SecretNotFound(
                    f"the worker puts no usable value in the place of {text}: {problem}",
                    stream=stream.name,
                    property=f"{at.end}.authRef",
                    fix="let the worker's config.providers read it: docs/kafka-mirror.md has the lines",
                )


async def _refuse_invalid(cluster: ConnectCluster, config: Mapping[str, str], stream: Stream) -> None:
    found = await cluster.validate(SOURCE_CLASS, {**config, "name": stream.name})
    if not found.errors:
        return
    overrides = [error for error in found.errors if error.field.startswith("producer.override.")]
    if overrides:
        raise InvalidStream(
            f"the worker, on the source's cluster, does not let a connector set {overrides[0].field}",
            stream=stream.name,
            property="destination.uri",
            fix="set connector.client.config.override.policy=All on the workers, or use a Connect cluster of the "
            "destination",
        )
    first = found.errors[0]
    own = first.field in stream.options
    raise InvalidStream(
        first.message if own else f"{first.field}: {first.message}",
        stream=stream.name,
        property=f"options.{first.field}" if own else "options",
    )


def _refuse_factor(stream: Stream, view: View) -> None:
    factor, there = stream.options.get(_FACTOR, _DEFAULT_FACTOR), view.destination
    if isinstance(there, Cluster) and isinstance(factor, (int, float)) and factor > there.brokers:
        raise InvalidStream(
            f"is {int(factor)}, and the destination has {there.brokers} broker{'s' if there.brokers > 1 else ''}, so "
            "no topic could be made there",
            stream=stream.name,
            property=f"options.{_FACTOR}",
            fix=f'set it: options: {{"{_FACTOR}": {there.brokers}}}',
        )


def refuse_overlap(stream: Stream, others: Iterable[Stream], topics: Iterable[str] | None) -> None:
    """One writer for a topic: raise `DestinationInUse` where another stream copies to one of the same.

    :param topics: those of the source; `None` where they cannot be seen, and the patterns are compared.
    """
    mine = _written(stream, topics)
    there = place(stream.destination, "destination").bootstrap
    for other in others:
        if other.name == stream.name or place(other.destination, "destination").bootstrap != there:
            continue
        if both := mine & _written(other, topics):
            raise DestinationInUse(
                f"stream {other.name!r} writes to {min(both)} too",
                stream=stream.name,
                property="include",
                fix="exclude it in one of them; two mirrors on one topic write every record twice",
            )


def _written(stream: Stream, topics: Iterable[str] | None) -> set[str]:
    naming = Naming.of(stream)
    names = taken(stream, topics) if topics is not None else stream.include or ("*",)
    return {naming.at_destination(name) for name in names}


def _refuse_loop(stream: Stream, topics: Iterable[str] | None) -> None:
    naming = Naming.of(stream)
    if copies := [topic for topic in taken(stream, topics or ()) if naming.came_from(topic, naming.source)]:
        raise InvalidStream(
            f"{copies[0]} looks like a copy that a mirror with the alias {naming.source!r} made; mirrored on, it would "
            "come back under a longer name each time",
            stream=stream.name,
            property="include",
            fix=f"exclude {naming.source}.*, or give the ends regions, so that each cluster has its own alias",
        )
