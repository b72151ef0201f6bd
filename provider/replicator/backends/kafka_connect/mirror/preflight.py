"""Read-only checks of a mirror's worker and its two clusters before a change."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta

from replicator.backends.kafka.admin import Cluster
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.mirror.cluster_identity import ClusterPair, MirrorClients, look, side_of
from replicator.backends.kafka_connect.mirror.connector_configs import (
    DEFAULT_REPLICATION_FACTOR,
    GROUPS,
    HEARTBEATS,
    REPLICATION_FACTOR,
    SOURCE_CLASS,
    Side,
    is_on,
)
from replicator.backends.kafka_connect.mirror.copies import refuse_uncreatable, wanted_copies
from replicator.backends.kafka_connect.mirror.declarations import misread_globs
from replicator.backends.kafka_connect.mirror.routes import Route, refuse_circle, refuse_overlap, refuse_own_copies
from replicator.backends.kafka_connect.mirror.topics import Naming, matching_topics, named, some
from replicator.backends.kafka_connect.placeholder_check import refuse_unresolved
from replicator.errors import (
    DestinationInUse,
    InvalidStream,
    ReplayNotRetained,
    ReplicatorError,
    SourceDenied,
)
from replicator.model import DesiredState, End, Stream, WaitFor, format_duration
from replicator.replicator import Finding, Severity

_FACTORS = (  # MirrorMaker 2's defaults, and what needs the topics
    (REPLICATION_FACTOR, DEFAULT_REPLICATION_FACTOR, None),
    ("offset-syncs.topic.replication.factor", 3, GROUPS),
    ("checkpoints.topic.replication.factor", 3, GROUPS),
    ("heartbeats.topic.replication.factor", 3, HEARTBEATS),
)


async def check(
    cluster: ConnectCluster,
    worker: str,
    ends: MirrorClients,
    stream: Stream,
    others: Sequence[Route],
    logins: Mapping[End, Mapping[str, str]],
    recorded: Mapping[End, str],
) -> tuple[Side, ClusterPair]:
    """Return the worker's side and both clusters; raise the first problem that would do harm or prevent a start.

    The checks do not include the worker's own validation.

    :param worker: id of the Kafka cluster that holds the workers' topics.
    :param others: the other known mirrors, of this Connect cluster and of others.
    :param logins: the placeholders of each end that the worker has to resolve.
    :param recorded: ids of unreachable ends.
    """
    view = await look(ends, stream, recorded)
    side = side_of(stream, view, worker)
    _refuse_blind_wait(stream, view)
    await _refuse_unresolved(cluster, stream, logins)
    _refuse_factor(stream, view)
    names = await _topics(ends, stream, "source", view)
    if names is not None:
        await _refuse_unreadable(ends, stream, names)
        mirrored = matching_topics(stream, names)
        await ends.refuse_connect_topics(stream, mirrored)
        if isinstance(view.destination, Cluster) and not recorded:
            copies = wanted_copies(stream, {name: names[name] for name in mirrored})
            await refuse_uncreatable(await ends.brokers(stream, "destination"), view.destination, stream, copies)
    mine = Route.of(view.claim(stream))
    await asyncio.to_thread(_refuse_ways, mine, others, stream.include, names)
    return side, view


def _refuse_ways(mine: Route, others: Sequence[Route], globs: Iterable[str], topics: Iterable[str] | None) -> None:
    """Run the checks that need no network and are slow with many mirrors."""
    refuse_overlap(mine, others, topics)
    refuse_own_copies(mine, globs, topics)
    refuse_circle(mine, others, topics)


async def warnings(ends: MirrorClients, stream: Stream, view: ClusterPair, *, new: bool) -> list[Finding]:
    """Return warnings about the two ends that do not prevent the change."""
    found = []
    for end, error in view.unseen.items():
        instead = "its recorded id holds" if end in view.recorded else "options are taken at their word"
        text = f"the {end} cannot be read from here, so {instead}: {error.message}"
        found.append(Finding(severity=Severity.WARNING, code=error.code, message=text, property=error.property))
    names = await _topics(ends, stream, "source", view)
    if names is not None and not matching_topics(stream, names):
        text = "no topic of the source matches now; one that is made later is mirrored"
        found.append(Finding(severity=Severity.WARNING, code=InvalidStream.code, message=text, property="include"))
    found += _doubtful_globs(stream, names or ())
    found += await _cost_of_pause(ends, stream, matching_topics(stream, names or ()))
    if new and names is not None and (there := await _topics(ends, stream, "destination", view)) is not None:
        naming = Naming.of(stream)
        if used := sorted(set(map(naming.at_destination, matching_topics(stream, names))) & set(there)):
            text = f"the topic {some(used)} is there already; the mirror appends to what it holds"
            found.append(
                Finding(severity=Severity.WARNING, code=DestinationInUse.code, message=text, property="destination.uri")
            )
    return found


def _doubtful_globs(stream: Stream, names: Collection[str]) -> list[Finding]:
    """Return a warning for each glob that was probably meant as a regular expression."""
    found = []
    for property, globs in (("include", stream.include), ("exclude", stream.exclude)):
        for glob, meant in misread_globs(globs, names):
            text = (
                f"{glob!r} is a glob, and matches no topic of the source now. As a regular expression it would match "
                f"{some(meant)}; if that is meant, write {glob.replace('.*', '*')!r}"
            )
            found.append(Finding(severity=Severity.WARNING, code=InvalidStream.code, message=text, property=property))
    return found


async def _topics(ends: MirrorClients, stream: Stream, end: End, view: ClusterPair) -> dict[str, int] | None:
    return await (await ends.brokers(stream, end)).topics() if view.id(end) else None


async def _refuse_unresolved(cluster: ConnectCluster, stream: Stream, logins: Mapping[End, Mapping[str, str]]) -> None:
    for end, login in logins.items():
        await refuse_unresolved(
            cluster,
            login.values(),
            SOURCE_CLASS,
            "source.cluster.alias",
            stream=stream.name,
            property=f"{end}.authRef",
        )


async def _refuse_unreadable(ends: MirrorClients, stream: Stream, names: Iterable[str]) -> None:
    """Raise if a topic is unreadable: MirrorMaker 2 4.3 then copies nothing, and reports it only in the worker's log.

    A topic that may not be described is not listed. If `include` names it, Kafka reports that.
    """
    if stream.source.admin_auth_ref is not None:
        return  # the permissions of another role are unknown
    found = await (await ends.brokers(stream, "source")).look_up({*matching_topics(stream, names), *named(stream)})
    unreadable = {name for name, topic in found.topics.items() if not topic.readable}
    if hidden := sorted(unreadable | found.hidden):
        raise SourceDenied(
            f"the credentials may not read {some(hidden)}{' (or it does not exist)' if found.hidden else ''}",
            stream=stream.name,
            property="source.authRef" if stream.source.auth_ref else "source.uri",
            fix="grant READ, as docs/kafka-mirror.md lists, or exclude what is not to be copied",
        )


async def refuse_invalid(cluster: ConnectCluster, config: Mapping[str, str], stream: Stream) -> None:
    """Raise `InvalidStream` if the worker's own validation of a stream's connector finds a problem."""
    found = await cluster.validate(SOURCE_CLASS, {**config, "name": stream.name})
    if not found.errors:
        return
    for error in found.errors:
        if error.field in stream.options:
            raise InvalidStream(error.message, stream=stream.name, property=f"options.{error.field}")
        if error.field.startswith("producer.override."):
            raise InvalidStream(
                f"the worker, on the source's cluster, does not let a connector set {error.field}",
                stream=stream.name,
                property="destination.uri",
                fix="set connector.client.config.override.policy=All on the workers, or use a Connect cluster of the "
                "destination",
            )
    raise InvalidStream(str(found.errors[0]), stream=stream.name, property="options")


def _refuse_blind_wait(stream: Stream, view: ClusterPair) -> None:
    waits = stream.wait_for is WaitFor.CAUGHT_UP and stream.desired_state is DesiredState.RUNNING
    if waits and isinstance(view.source, ReplicatorError):
        raise InvalidStream(
            f"whether it has caught up is unknown: {view.source.message}",
            stream=stream.name,
            property="waitFor",
            fix=f"{view.source.fix or 'let this host reach the brokers'}; or write waitFor: running",
        )


def _refuse_factor(stream: Stream, view: ClusterPair) -> None:
    there = view.destination
    if not isinstance(there, Cluster):
        return
    for option, default, needed_by in _FACTORS:
        factor = stream.options.get(option, default)
        if needed_by is not None and not is_on(stream, needed_by):
            continue
        if isinstance(factor, (int, float)) and factor > there.brokers:
            raise InvalidStream(
                f"is {int(factor)}, and the destination has {there.brokers} broker{'s' if there.brokers > 1 else ''}, "
                "so no topic could be made there",
                stream=stream.name,
                property=f"options.{option}",
                fix=f'set it: options: {{"{option}": {there.brokers}}}',
            )


async def _cost_of_pause(ends: MirrorClients, stream: Stream, topics: Collection[str]) -> list[Finding]:
    """Return how long a pause may last before records are lost, as far as the source tells."""
    if stream.desired_state is not DesiredState.PAUSED:
        return []
    try:
        found = await (await ends.brokers(stream, "source")).retention(topics)
    except ReplicatorError:
        return []
    limits = {name: kept for name, kept in found.items() if kept is not None}
    if not limits:
        return []
    first = min(limits, key=lambda name: (limits[name], name))
    kept = format_duration(timedelta(milliseconds=limits[first]))
    text = f"while it is paused, the source still deletes records: {first} keeps a record for {kept} at most"
    return [Finding(severity=Severity.WARNING, code=ReplayNotRetained.code, message=text, property="desiredState")]
