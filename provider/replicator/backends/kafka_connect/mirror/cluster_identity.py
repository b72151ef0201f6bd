"""The identities of a mirror's two clusters, and on which side of them the worker is.

A mirror in the wrong place loops or writes to the wrong cluster (seen on MirrorMaker 2 4.3). So an unknown placement is
refused unless the declaration states it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from replicator.authref import Redactor
from replicator.backends.kafka.admin import Cluster, KafkaAdmin
from replicator.backends.kafka.endpoint import KafkaEndpoint, kafka_endpoint
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.backends.kafka_connect.mirror.connect_topics import ConnectTopics
from replicator.backends.kafka_connect.mirror.connector_configs import WORKER_CLUSTER, Side
from replicator.backends.kafka_connect.mirror.declarations import canonical_uri
from replicator.backends.kafka_connect.mirror.topics import Naming, takes_no_more
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.errors import InvalidStream, ReplicatorError
from replicator.model import End, Endpoint, Stream


class MirrorClients(ClusterClients):
    """Clients of the clusters at the ends of mirrors."""

    def __init__(self, environ: Mapping[str, str], redactor: Redactor) -> None:
        super().__init__(environ, redactor)
        self._connect_topics: dict[KafkaEndpoint, ConnectTopics] = {}

    async def refuse_connect_topics(self, stream: Stream, names: Collection[str]) -> None:
        """Raise `InvalidStream` if some of the topics are internal topics of a Connect cluster.

        :param names: the topics that the mirror copies.
        """
        at = kafka_endpoint(stream.source, "source", admin=True)
        if at not in self._connect_topics:
            self._connect_topics[at] = ConnectTopics(await self.brokers(stream, "source"))
        await self._connect_topics[at].refuse(names, stream.include)


class Clients(Protocol):
    """A provider of cluster clients."""

    async def brokers(self, stream: Stream, end: End) -> KafkaAdmin:
        """Return the client; raise the error that prevents it."""


class RespondingClients:
    """Clients of clusters that answered recently, for periodic reads.

    A change of a stream asks every cluster, since a silent one may be back.
    """

    def __init__(self, ends: ClusterClients) -> None:
        self._ends = ends

    async def brokers(self, stream: Stream, end: End) -> KafkaAdmin:
        """Return the client; raise `EngineUnavailable` if its cluster did not answer a moment ago."""
        found = await self._ends.brokers(stream, end)
        found.refuse_silence()
        return found


@dataclass(frozen=True, slots=True)
class ClusterPair:
    """The two clusters, or why one is not reachable from here.

    :param recorded: ids from the stream's record, for unreachable ends.
    """

    source: Cluster | ReplicatorError
    destination: Cluster | ReplicatorError
    recorded: Mapping[End, str] = field(default_factory=dict)

    def id(self, end: End) -> str | None:
        """Return the id of an end's cluster if it is reachable."""
        found = self.source if end == "source" else self.destination
        return found.id if isinstance(found, Cluster) else None

    def known_id(self, end: End) -> str | None:
        """Return the id of an end's cluster, as it answers or else as recorded."""
        return self.id(end) or self.recorded.get(end)

    @property
    def unseen(self) -> dict[End, ReplicatorError]:
        """Return why an end is not reachable from here."""
        found: dict[End, ReplicatorError] = {}
        if isinstance(self.source, ReplicatorError):
            found["source"] = self.source
        if isinstance(self.destination, ReplicatorError):
            found["destination"] = self.destination
        return found

    def claim(self, stream: Stream) -> StreamRecord:
        """Return a stream's source and destination as a record."""
        source, destination = self.known_id("source"), self.known_id("destination")
        return StreamRecord(stream=stream, source_cluster=source, destination_cluster=destination)


def recorded_ids(record: StreamRecord | None, stream: Stream) -> dict[End, str]:
    """Return the recorded ids of both clusters, if a declaration changes neither end and adds no topic.

    Such a change cannot make a mirror loop, so an end that is down must not prevent a pause of the stream.
    """
    if record is None or record.creating:
        return {}
    before = record.stream
    ends: tuple[tuple[End, Endpoint, Endpoint, str | None], ...] = (
        ("source", before.source, stream.source, record.source_cluster),
        ("destination", before.destination, stream.destination, record.destination_cluster),
    )
    same_ends = all(canonical_uri(was, end) == canonical_uri(now, end) for end, was, now, _ in ends)
    if not same_ends or Naming.of(before) != Naming.of(stream) or not takes_no_more(before, stream):
        return {}
    return {end: known for end, _, _, known in ends if known is not None}


async def look(ends: Clients, stream: Stream, recorded: Mapping[End, str] | None = None) -> ClusterPair:
    """Ask both clusters for their ids.

    :param recorded: the result of `recorded_ids`.
    """

    async def one(end: End) -> Cluster | ReplicatorError:
        try:
            return await (await ends.brokers(stream, end)).cluster()
        except ReplicatorError as error:
            return error

    source, destination = await asyncio.gather(one("source"), one("destination"))
    return ClusterPair(source, destination, recorded or {})


def rebuilt(record: StreamRecord, view: ClusterPair) -> str | None:
    """Return the problem if another cluster answers at an end's address; `None` if none does, or it is unknown."""
    stream = record.stream
    ends: tuple[tuple[End, Endpoint, str | None], ...] = (
        ("source", stream.source, record.source_cluster),
        ("destination", stream.destination, record.destination_cluster),
    )
    for end, endpoint, before in ends:
        now = view.id(end)
        if before and now and before != now:
            return (
                f"the {end} at {kafka_endpoint(endpoint, end).bootstrap} is another cluster: its id is {now}, and was "
                f"{before}; "
                "what was copied and the stored positions are of that one"
            )
    return None


AGAIN = (
    "run pulumi up --refresh, which forgets the positions and copies all that the source retains; or give back the "
    "cluster"
)
"""The fix if another cluster answers."""


def side_of(stream: Stream, view: ClusterPair, worker: str) -> Side:
    """Return the side on which the worker is.

    Raise `InvalidStream` if the mirror would loop or write to the wrong cluster, or if that is unknown and
    `worker.cluster` in `options` does not state it.

    :param worker: id of the cluster that holds the worker's topics.
    """
    source, destination = view.known_id("source"), view.known_id("destination")
    if source and source == destination:
        raise InvalidStream(
            f"both ends are the cluster {source}, so the mirror would copy its own output",
            property="destination.uri",
            fix="give the brokers of another cluster",
        )
    said = _said(stream)
    there = view.known_id(said.value) if said else None
    seen = Side.DESTINATION if worker == destination else Side.SOURCE if worker == source else None
    if seen is None and source and destination:
        raise InvalidStream(
            f"the Connect cluster keeps its topics on the cluster {worker}, which is neither end "
            f"(source {source}, destination {destination})",
            fix="use a Connect cluster of the destination, which is the usual way, or one of the source",
        )
    if said is not None and (seen is not said if seen else there is not None):
        raise InvalidStream(
            f"says {said.value}, and the Connect cluster keeps its topics on {worker}, which is "
            + (f"the {seen.value}'s cluster" if seen else f"not the {said.value}'s cluster {there}"),
            property=f"options.{WORKER_CLUSTER}",
            fix="leave it out, or use a Connect cluster of that end",
        )
    for end, found in view.unseen.items():
        if said is None and view.known_id(end) is None:
            raise type(found)(
                f"whether this mirror would loop is unknown: {found.message}",
                property=found.property or f"{end}.uri",
                fix=f"{found.fix or 'let this host reach the brokers'}; or say on which cluster the Connect cluster "
                f"keeps its topics: options {WORKER_CLUSTER}: destination",
            )
    return seen or said or Side.DESTINATION


def _said(stream: Stream) -> Side | None:
    word = stream.options.get(WORKER_CLUSTER)
    if word is None:
        return None
    try:
        return Side(str(word))
    except ValueError:
        raise InvalidStream(
            f"{word!r} is no end", property=f"options.{WORKER_CLUSTER}", fix="write source or destination"
        ) from None
