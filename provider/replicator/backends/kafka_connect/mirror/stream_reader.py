"""Reading of mirrors from Connect and both ends: offsets, status, objects, findings."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from replicator.backends.kafka.endpoint import kafka_endpoint
from replicator.backends.kafka.positions import Offsets, Partition
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.deployed import DeployedStream, foreign_settings
from replicator.backends.kafka_connect.mirror.cluster_identity import (
    Clients,
    MirrorClients,
    RespondingClients,
    look,
    rebuilt,
)
from replicator.backends.kafka_connect.mirror.connector_configs import build, option_of
from replicator.backends.kafka_connect.mirror.copies import Copies, look_at_copies
from replicator.backends.kafka_connect.mirror.group_sync import group_findings
from replicator.backends.kafka_connect.mirror.source_view import SourceView, reached, view
from replicator.backends.kafka_connect.mirror.status import (
    Seen,
    by_part,
    next_offsets,
    outline_of,
    status_of,
)
from replicator.backends.kafka_connect.mirror.topics import Naming, exclude_patterns_of_0_1, some
from replicator.backends.kafka_connect.recipe import answer_or_error
from replicator.backends.kafka_connect.record import PART_OF, RECORD_KEYS, StreamRecord
from replicator.errors import (
    EngineRefused,
    ReplicatorError,
    SourceMissing,
)
from replicator.model import End, Stream, format_time
from replicator.replicator import Description, Finding, Severity


class StreamReader:
    """Reads mirrors of one Connect cluster. Changes nothing.

    :param aliases: names of the worker's config providers, by `authRef` scheme.
    """

    def __init__(self, cluster: ConnectCluster, ends: MirrorClients, aliases: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._ends = ends
        self._responding = RespondingClients(ends)
        self._aliases = aliases

    def outline(self, deployed: DeployedStream, error: ReplicatorError | None = None) -> Description:
        """Return the description of a stream by a listing alone.

        :param error: why its offsets cannot be read.
        """
        why = f"its positions cannot be read: {error.message}" if error else None
        refused = isinstance(error, EngineRefused)
        status = outline_of(deployed, refused=why if refused else None, unanswered=None if refused else why)
        return Description(stream=self.as_found(deployed), status=status, engine_objects=_objects(deployed, None))

    async def describe(self, streams: Sequence[DeployedStream]) -> list[Description]:
        """Return the descriptions of streams, without those that are removed meanwhile."""
        now = datetime.now(UTC)
        asked, others, _ = await asyncio.gather(  # concurrently, since a cluster that is down takes long to time out
            asyncio.gather(*(answer_or_error(self.positions(deployed.record.stream)) for deployed in streams)),
            asyncio.gather(*(self._rebuilt(self._responding, deployed.record) for deployed in streams)),
            self._look_ahead(streams),
        )
        answered = list(zip(streams, asked, others, strict=True))
        there = [(deployed, stored, other) for deployed, stored, other in answered if isinstance(stored, Mapping)]
        held_there, stored_there = [deployed for deployed, *_ in there], [stored for _, stored, _ in there]
        sources = await self.sources(held_there, stored_there, self._responding)
        copies, findings = await asyncio.gather(
            self._copies(held_there, stored_there, sources), group_findings(self._responding, held_there)
        )
        return [
            Description(
                stream=self.as_found(deployed),
                status=status_of(deployed, stored, _seen(source, copy, other), now),
                engine_objects=_objects(deployed, source),
                source_end=by_part(source.latest) if isinstance(source, SourceView) else {},
                reached=by_part(reached(stored, source)) if isinstance(source, SourceView) else {},
                findings=(*_of_gone(source), *found),
            )
            for (deployed, stored, other), source, copy, found in zip(there, sources, copies, findings, strict=True)
        ] + [self.outline(deployed, error) for deployed, error, _ in answered if isinstance(error, ReplicatorError)]

    async def positions(self, stream: Stream) -> dict[Partition, int]:
        """Return the next offset to copy, by partition; raise `StreamNotFound` if the stream no longer exists."""
        stored = await self._cluster.offsets(stream.name)
        try:
            return next_offsets(stored, Naming.of(stream).source)
        except (LookupError, TypeError, ValueError, OverflowError):
            raise EngineRefused(
                "Kafka Connect has positions of it that MirrorMaker 2 does not write",
                stream=stream.name,
                fix=f"look at GET /connectors/{stream.name}/offsets of the worker",
            ) from None

    async def sources(
        self, streams: Sequence[DeployedStream], stored: Sequence[Offsets], clients: Clients | None = None
    ) -> list[SourceView | Unseen]:
        """Return the sources as their brokers report them, asked once per source; or why one is not reachable.

        :param clients: clients of the sources, if not all of them are asked.
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
        """Return the same for the destinations; `None` for streams whose source is unreachable."""
        found: dict[int, Copies | Unseen] = {}

        async def one(indices: Sequence[int]) -> None:
            asked = [(index, source) for index in indices if isinstance(source := sources[index], SourceView)]
            copies: Sequence[Copies | Unseen]
            try:
                brokers = await self._responding.brokers(streams[indices[0]].record.stream, "destination")
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
        with suppress(ReplicatorError):  # the credentials may be unreadable
            since = (await self._ends.brokers(deployed.record.stream, end)).silent_since
        what = "its lag is not known" if end == "source" else "what the destination holds is not known"
        return Unseen(f"{what}: {error.message}" + (f" (since {format_time(since)})" if since else ""))

    async def source(self, record: StreamRecord, stored: Offsets, *, also: Collection[str] = ()) -> SourceView:
        """Return the same for one stream; raise the error that prevents it.

        :param also: topics in addition to those of the stream.
        """
        brokers = await self._ends.brokers(record.stream, "source")
        return (await view(brokers, [(record, stored)], also))[0]

    async def rebuilt(self, record: StreamRecord) -> str | None:
        """Return the problem if another cluster answers at an end's address; `None` if none is found."""
        return await self._rebuilt(self._ends, record)

    async def _rebuilt(self, ends: Clients, record: StreamRecord) -> str | None:
        return rebuilt(record, await look(ends, record.stream))

    async def _look_ahead(self, streams: Sequence[DeployedStream]) -> None:
        """Request the sources' topics while offsets are read, so that both are known at the same time."""

        async def one(deployed: DeployedStream) -> None:
            with suppress(ReplicatorError):  # a later request reports it
                await (await self._responding.brokers(deployed.record.stream, "source")).topics()

        await asyncio.gather(*(one(streams[index]) for index, *_ in _by_end(streams, "source")))

    def as_found(self, deployed: DeployedStream) -> Stream:
        """Return the declaration, with foreign changes of the configuration as `options`, which shows as drift."""
        stream = deployed.record.stream
        parts, there = build(deployed.record, self._aliases), {other.name: other for other in deployed.others}
        found: dict[str, str] = {}
        for name, config in {deployed.name: parts.main, **parts.others}.items():
            connector = deployed.connector if name == deployed.name else there.get(name)
            if connector is None:
                found[option_of(name)] = "false"
                continue
            known = {*RECORD_KEYS, PART_OF, *(deployed.record.kept if name == deployed.name else ())}
            if connector.config.get("topics.exclude") == ",".join(exclude_patterns_of_0_1(stream.exclude)):
                known.add("topics.exclude")  # the next change rewrites it
            found |= foreign_settings(connector, config, known)
        return stream.model_copy(update={"options": {**stream.options, **found}}) if found else stream


@dataclass(frozen=True, slots=True)
class Unseen:
    """An end that is not reachable from here.

    :param why: the reason, in words.
    """

    why: str


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
    """Return the indices of streams, grouped by a common end."""
    groups: dict[Any, list[int]] = {}
    for index, deployed in enumerate(streams):
        stream = deployed.record.stream
        at = kafka_endpoint(stream.source if end == "source" else stream.destination, end, admin=True)
        groups.setdefault(at, []).append(index)
    return [*groups.values()]
