"""The mirrors that a Connect cluster holds: found by their records, and measured."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from replicator.backends.kafka.endpoint import End, kafka_endpoint
from replicator.backends.kafka.positions import Offsets, Partition
from replicator.backends.kafka_connect.cluster import ConnectCluster, Connector
from replicator.backends.kafka_connect.mirror.cluster_identity import Clients, ClusterClients, Heard, look, rebuilt
from replicator.backends.kafka_connect.mirror.connectors import BACKEND, Side, build, option_of, part_names
from replicator.backends.kafka_connect.mirror.copies import Copies, look_at_copies
from replicator.backends.kafka_connect.mirror.failures import Failures
from replicator.backends.kafka_connect.mirror.group_sync import group_findings
from replicator.backends.kafka_connect.mirror.source_view import SourceView, reached, view
from replicator.backends.kafka_connect.mirror.status import (
    DeployedStream,
    Seen,
    by_part,
    next_offsets,
    outline_of,
    status_of,
)
from replicator.backends.kafka_connect.mirror.topics import Naming, exclude_patterns_of_0_1, some
from replicator.backends.kafka_connect.record import PART_OF, RECORD_KEYS, StreamRecord, recorded_backend
from replicator.errors import (
    EngineRefused,
    EngineUnavailable,
    NotOurs,
    RecordUnreadable,
    ReplicatorError,
    SourceMissing,
    StreamNotFound,
)
from replicator.model import Stream, StreamState, StreamStatus, format_time
from replicator.replicator import Description, Finding, Severity


class StreamReader:
    """Looks at the mirrors of one Connect cluster, and changes nothing.

    :param aliases: names of the worker's ConfigProviders, by scheme of reference.
    """

    def __init__(self, cluster: ConnectCluster, ends: ClusterClients, aliases: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._ends = ends
        self._heard = Heard(ends)
        self._aliases = aliases
        self._failures = Failures()
        self._busy: dict[str, str] = {}

    @contextmanager
    def busy(self, name: str, what: str) -> Iterator[None]:
        """Let a status in this block say what is done to the stream, rather than that it is paused."""
        self._busy[name] = what
        try:
            yield
        finally:
            self._busy.pop(name, None)

    # --- finding -----------------------------------------------------------------------------------------------------

    async def listing(self) -> Listed:
        """Return all streams, in one call."""
        return sort((await self._cluster.listing()).values())

    async def get(self, name: str) -> DeployedStream | None:
        """Return the stream; raise `NotOurs` where a connector of the name has no record, or `RecordUnreadable`."""
        connector = await self._cluster.look(name)
        if connector is None:
            return None
        record = read_record(connector)
        names = build(record, Side.DESTINATION, self._aliases).others
        return DeployedStream(connector, record, await self._beside(name, names))

    async def found(self, name: str) -> DeployedStream:
        """The same, where there is one; else raise `StreamNotFound`."""
        deployed = await self.get(name)
        if deployed is None:
            raise not_found(name)
        return deployed

    async def parts(self, stream: str) -> tuple[Connector, ...]:
        """What there is of all that a stream can have beside the connector with the record."""
        return await self._beside(stream, part_names(stream))

    async def _beside(self, stream: str, names: Iterable[str]) -> tuple[Connector, ...]:
        found = await asyncio.gather(*map(self._cluster.look, names))
        return tuple(part for part in found if part is not None and part.config.get(PART_OF) == stream)

    # --- measuring ---------------------------------------------------------------------------------------------------

    async def overview(self) -> list[Description]:
        """What one listing tells of all."""
        listed = await self.listing()
        return [self._outline(deployed) for deployed in listed.streams.values()] + listed.failures()

    def _outline(self, deployed: DeployedStream, error: ReplicatorError | None = None) -> Description:
        why = f"its positions cannot be read: {error.message}" if error else None
        refused = isinstance(error, EngineRefused)
        status = outline_of(deployed, refused=why if refused else None, unanswered=None if refused else why)
        return Description(stream=self.as_found(deployed), status=status, engine_objects=_objects(deployed, None))

    async def describe(self, streams: Sequence[DeployedStream]) -> list[Description]:
        """What is known of streams, less those that are removed meanwhile."""
        now = datetime.now(UTC)
        asked, others, _ = await asyncio.gather(  # at once, since a cluster that is down takes long to say nothing
            asyncio.gather(*(self._positions_or_error(deployed.record.stream) for deployed in streams)),
            asyncio.gather(*(self._rebuilt(self._heard, deployed.record) for deployed in streams)),
            self._look_ahead(streams),
        )
        answered = list(zip(streams, asked, others, strict=True))
        there = [(deployed, stored, other) for deployed, stored, other in answered if isinstance(stored, Mapping)]
        held_there, stored_there = [deployed for deployed, *_ in there], [stored for _, stored, _ in there]
        sources = await self.sources(held_there, stored_there, self._heard)
        copies, findings = await asyncio.gather(
            self._copies(held_there, stored_there, sources), group_findings(self._heard, held_there)
        )
        return [
            Description(
                stream=self.as_found(deployed),
                status=self._status(deployed, stored, _seen(source, copy, other), now),
                engine_objects=_objects(deployed, source),
                source_end=by_part(source.latest) if isinstance(source, SourceView) else {},
                reached=by_part(reached(stored, source)) if isinstance(source, SourceView) else {},
                findings=(*_of_gone(source), *found),
            )
            for (deployed, stored, other), source, copy, found in zip(there, sources, copies, findings, strict=True)
        ] + [self._outline(deployed, error) for deployed, error, _ in answered if isinstance(error, ReplicatorError)]

    def _status(self, deployed: DeployedStream, stored: Offsets, seen: Seen, now: datetime) -> StreamStatus:
        status = status_of(deployed, stored, seen, now, self._failures.count(deployed))
        if status.state is StreamState.PAUSED and (what := self._busy.get(deployed.name)):
            return status.model_copy(update={"state": StreamState.CATCHING_UP, "last_error": what})
        return status

    async def positions(self, stream: Stream) -> dict[Partition, int]:
        """The next offset to copy, by partition; raise `StreamNotFound` where it is gone."""
        stored = await self._cluster.offsets(stream.name)
        try:
            return next_offsets(stored, Naming.of(stream).source)
        except (LookupError, TypeError, ValueError, OverflowError):
            raise EngineRefused(
                "Kafka Connect has positions of it that MirrorMaker 2 does not write",
                stream=stream.name,
                fix=f"look at GET /connectors/{stream.name}/offsets of the worker",
            ) from None

    async def _positions_or_error(self, stream: Stream) -> Offsets | EngineRefused | EngineUnavailable | None:
        """`None` where it is gone. What Connect does not tell of one connector says nothing about the others."""
        try:
            return await self.positions(stream)
        except StreamNotFound:
            return None
        except (EngineRefused, EngineUnavailable) as error:
            return error

    async def sources(
        self, streams: Sequence[DeployedStream], stored: Sequence[Offsets], clients: Clients | None = None
    ) -> list[SourceView | Unseen]:
        """What the sources' brokers say, asked once a source; or why one cannot be seen from here.

        :param clients: of the sources, where not all of them are asked.
        """
        found: dict[int, SourceView | Unseen] = {}
        ends = clients or self._ends

        async def one(indices: Sequence[int]) -> None:
            views: Sequence[SourceView | Unseen]
            try:
                brokers = await ends.brokers(streams[indices[0]].record.stream, "source")
                views = await view(brokers, [(streams[index].record, stored[index]) for index in indices])
            except ReplicatorError as error:
                views = [await self._unseen(streams[index], "source", error) for index in indices]
            found.update(zip(indices, views, strict=True))

        await asyncio.gather(*(one(indices) for indices in _by_end(streams, "source")))
        return [found[index] for index in range(len(streams))]

    async def _copies(
        self, streams: Sequence[DeployedStream], stored: Sequence[Offsets], sources: Sequence[SourceView | Unseen]
    ) -> list[Copies | Unseen | None]:
        """The same of the destinations; `None` for streams whose source is not seen."""
        found: dict[int, Copies | Unseen] = {}

        async def one(indices: Sequence[int]) -> None:
            asked = [(index, source) for index in indices if isinstance(source := sources[index], SourceView)]
            copies: Sequence[Copies | Unseen]
            try:
                brokers = await self._heard.brokers(streams[indices[0]].record.stream, "destination")
                items = [(streams[index].record, stored[index], source) for index, source in asked]
                of = [await self._ends.brokers(streams[index].record.stream, "source") for index, _ in asked]
                copies = await look_at_copies(brokers, items, of)
            except ReplicatorError as error:
                copies = [await self._unseen(streams[index], "destination", error) for index, _ in asked]
            found.update(zip((index for index, _ in asked), copies, strict=True))

        await asyncio.gather(*(one(indices) for indices in _by_end(streams, "destination")))
        return [found.get(index) for index in range(len(streams))]

    async def _unseen(self, deployed: DeployedStream, end: End, error: ReplicatorError) -> Unseen:
        since = None
        with suppress(ReplicatorError):  # the credentials may be what cannot be read
            since = (await self._ends.brokers(deployed.record.stream, end)).silent_since
        what = "its lag is not known" if end == "source" else "what the destination holds is not known"
        return Unseen(f"{what}: {error.message}" + (f" (since {format_time(since)})" if since else ""))

    async def source(self, record: StreamRecord, stored: Offsets, *, also: Collection[str] = ()) -> SourceView:
        """The same of one stream; raise what keeps it from being seen.

        :param also: topics that the stream does not take.
        """
        brokers = await self._ends.brokers(record.stream, "source")
        return (await view(brokers, [(record, stored)], also))[0]

    async def rebuilt(self, record: StreamRecord) -> str | None:
        """Return what is wrong where another cluster answers at an end's address; `None` where none is seen."""
        return await self._rebuilt(self._ends, record)

    async def _rebuilt(self, ends: Clients, record: StreamRecord) -> str | None:
        return rebuilt(record, await look(ends, record.stream))

    async def _look_ahead(self, streams: Sequence[DeployedStream]) -> None:
        """Ask for the topics of the sources while positions are read, so that they are known when these are."""

        async def one(deployed: DeployedStream) -> None:
            with suppress(ReplicatorError):  # it comes again
                await (await self._heard.brokers(deployed.record.stream, "source")).topics()

        await asyncio.gather(*(one(streams[index]) for index, *_ in _by_end(streams, "source")))

    def as_found(self, deployed: DeployedStream) -> Stream:
        """The declaration; what somebody else changed in the configuration shows as `options`, so that it is drift."""
        stream = deployed.record.stream
        side = deployed.side
        parts, there = build(deployed.record, side, self._aliases), {other.name: other for other in deployed.others}
        found: dict[str, str] = {}
        for name, config in {deployed.name: parts.source, **parts.others}.items():
            connector = deployed.connector if name == deployed.name else there.get(name)
            if connector is None:
                found[option_of(name)] = "false"
                continue
            strange = differing(connector, config) - RECORD_KEYS - {PART_OF}
            if connector.config.get("topics.exclude") == ",".join(exclude_patterns_of_0_1(stream.exclude)):
                strange.discard("topics.exclude")  # the next change rewrites it
            found |= {key: _shown(key, connector.config.get(key, "")) for key in sorted(strange)}
        return stream.model_copy(update={"options": {**stream.options, **found}}) if found else stream


@dataclass(frozen=True, slots=True)
class Unseen:
    """An end that cannot be seen from here.

    :param why: in words.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Listed:
    """The mirrors of a Connect cluster, by name.

    :param unreadable: why a record cannot be read.
    """

    streams: dict[str, DeployedStream]
    unreadable: dict[str, RecordUnreadable]

    def failures(self, names: Container[str] | None = None) -> list[Description]:
        """Return the descriptions of those whose record cannot be read."""
        return [
            Description.unreadable(name, error)
            for name, error in self.unreadable.items()
            if names is None or name in names
        ]


def sort(connectors: Iterable[Connector]) -> Listed:
    """Return the mirrors among the connectors of a cluster. Streams of other backends are left out."""
    ordered = sorted(connectors, key=lambda connector: connector.name)
    parts: dict[str, list[Connector]] = {}
    for connector in ordered:
        if (of := connector.config.get(PART_OF)) is not None:
            parts.setdefault(of, []).append(connector)
    found = Listed({}, {})
    for connector in ordered:
        try:
            record = StreamRecord.read(connector.config, BACKEND)
        except RecordUnreadable as error:
            if recorded_backend(connector.config) in (BACKEND, None):
                found.unreadable[connector.name] = error
            continue
        if record is not None:
            found.streams[connector.name] = DeployedStream(connector, record, tuple(parts.get(connector.name, ())))
    return found


def not_found(name: str) -> StreamNotFound:
    """What is said where there is no such stream."""
    return StreamNotFound("the Connect cluster has no such stream", stream=name)


def read_record(connector: Connector) -> StreamRecord:
    """The record that a stream's connector carries; raise `NotOurs` where there is none, `RecordUnreadable` as read."""
    try:
        record = StreamRecord.read(connector.config, BACKEND)
    except RecordUnreadable as error:
        error.stream = connector.name
        raise
    if record is None:
        raise NotOurs(
            f"the Connect cluster has a connector of this name, of {connector.config.get('connector.class')}, and "
            "no stream made it",
            stream=connector.name,
            fix="choose another name, or delete that connector",
        )
    return record


def differing(connector: Connector, config: Mapping[str, str]) -> set[str]:
    """The keys of which a connector has another value than it should."""
    there = {key: value for key, value in connector.config.items() if key != "name"}
    return {key for key in there.keys() | config.keys() if there.get(key) != config.get(key)}


def _of_gone(source: SourceView | Unseen) -> list[Finding]:
    if not isinstance(source, SourceView) or not source.gone:
        return []
    text = f"{some(sorted(source.gone))} does not exist at the source any more; its copy stays as it is"
    return [Finding(severity=Severity.WARNING, code=SourceMissing.code, message=text, property="include")]


def _seen(source: SourceView | Unseen, copies: Copies | Unseen | None, other: str | None) -> Seen:
    return Seen(
        source=source if isinstance(source, SourceView) else None,
        copies=copies if isinstance(copies, Copies) else None,
        unseen=tuple(item.why for item in (source, copies) if isinstance(item, Unseen)),
        rebuilt=other,
    )


def _objects(deployed: DeployedStream, source: SourceView | Unseen | None) -> dict[str, Any]:
    objects: dict[str, Any] = {"connectors": [connector.name for connector in deployed.all]}
    if deployed.record.source_cluster:
        objects["sourceCluster"] = deployed.record.source_cluster
    if deployed.record.destination_cluster:
        objects["destinationCluster"] = deployed.record.destination_cluster
    if isinstance(source, SourceView):
        naming = Naming.of(deployed.record.stream)
        objects["topics"] = sorted(naming.at_destination(topic) for topic in source.topics)
    return objects


def _by_end(streams: Sequence[DeployedStream], end: End) -> list[list[int]]:
    """The indices of streams one of whose ends is the same."""
    groups: dict[Any, list[int]] = {}
    for index, deployed in enumerate(streams):
        stream = deployed.record.stream
        at = kafka_endpoint(stream.source if end == "source" else stream.destination, end, admin=True)
        groups.setdefault(at, []).append(index)
    return [*groups.values()]


def _shown(key: str, value: str) -> str:
    return "[redacted]" if re.search(r"(?i)jaas|passw|secret|token|key$", key) else value
