"""Start positions of new mirrors, and the treatment of offsets that Connect retained for a name.

Connect retains the offsets of a deleted connector, and a new connector of the name resumes there: behind records that
the source no longer retains, or after records that the destination has lost meanwhile.
"""

from __future__ import annotations

from replicator.backends.kafka.positions import Offsets, Partition, write
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.connector_states import SEEN_WITHIN
from replicator.backends.kafka_connect.mirror.cluster_identity import MirrorClients
from replicator.backends.kafka_connect.mirror.connector_configs import WORKER_CLUSTER
from replicator.backends.kafka_connect.mirror.declarations import begins_at_the_beginning
from replicator.backends.kafka_connect.mirror.replay_planner import resolve
from replicator.backends.kafka_connect.mirror.status import as_stored, describe_gaps, gaps
from replicator.backends.kafka_connect.mirror.stream_reader import StreamReader
from replicator.backends.kafka_connect.mirror.topics import Naming, matching_topics
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.errors import ReplayNotRetained, ReplicatorError
from replicator.model import Checkpoint, Stream
from replicator.replicator import ReplayMethod

_STARTS_LIMIT = 16_384
"""Maximum length, in characters."""


class StartPositions:
    """Sets the start positions of new mirrors. The caller holds the stream's slot."""

    def __init__(self, cluster: ConnectCluster, ends: MirrorClients, streams: StreamReader) -> None:
        self._cluster = cluster
        self._ends = ends
        self._streams = streams

    async def find(self, stream: Stream) -> dict[Partition, int] | None:
        """Return a new stream's start position; `None` for the beginning, MirrorMaker 2's own default."""
        if begins_at_the_beginning(stream):
            return None
        asked = stream.start_from or "latest"
        record = StreamRecord(stream=stream)
        source = await self._streams.source(record, {})
        if asked == "latest":
            return dict(source.latest)
        assert isinstance(asked, Checkpoint)
        end = dict(source.latest)
        brokers = await self._ends.brokers(stream, "source")
        try:
            found = await resolve(brokers, record, source, end, asked, method=ReplayMethod.AUTO, target=None)
        except ReplicatorError as error:
            error.stream, error.property = stream.name, "startFrom"
            raise
        return {**end, **found.offsets}

    async def earliest(self, stream: Stream) -> Offsets | None:
        """Return the oldest retained offsets of a mirror's topics; `None` if the source is unreachable."""
        try:
            brokers = await self._ends.brokers(stream, "source")
            counts = await brokers.topics()
            return await brokers.earliest(
                Partition(name, number) for name in matching_topics(stream, counts) for number in range(counts[name])
            )
        except ReplicatorError:
            return None

    async def set(self, record: StreamRecord, start: Offsets | None, kept: Offsets) -> Offsets:
        """Store the start position of a stopped mirror, and return it, without partitions that start at the beginning.

        Without a declared start, the offsets that Connect retained apply: copied records are not copied again. Offsets
        of partitions that the destination lacks are reset if the mirror starts at the beginning. Raise
        `ReplayNotRetained` if the source no longer retains the records after the others.

        :param kept: the offsets that Connect has stored for the name.
        """
        stream = record.stream
        if kept and stream.start_from is not None:
            await self._cluster.stop(stream.name, SEEN_WITHIN)
            await self._cluster.reset_offsets(stream.name)
            kept = {}
        first = dict.fromkeys(await self._lost_copies(stream, kept), 0) if start is None else {}
        kept = {at: offset for at, offset in kept.items() if at not in first}
        await self._refuse_gap(record, kept)
        first |= {at: min(kept.get(at, offset), offset) for at, offset in (start or {}).items()}
        if first:
            await self._cluster.stop(stream.name, SEEN_WITHIN)
            await self._cluster.alter_offsets(stream.name, as_stored(first, Naming.of(stream)))
        return {**kept, **first}

    async def _lost_copies(self, stream: Stream, kept: Offsets) -> list[Partition]:
        """Return the partitions whose copies are empty or missing at the destination, although records were copied."""
        topics = set(matching_topics(stream, {at.topic for at in kept}))
        if not topics:
            return []
        naming = Naming.of(stream)
        copies = {at: Partition(naming.at_destination(at.topic), at.number) for at in kept if at.topic in topics}
        try:
            brokers = await self._ends.brokers(stream, "destination")
            there = await brokers.topics()
            ends = await brokers.latest(copy for copy in copies.values() if copy.topic in there)
        except ReplicatorError:
            if WORKER_CLUSTER in stream.options:
                return []
            raise
        return [at for at, copy in copies.items() if not ends.get(copy)]

    async def _refuse_gap(self, record: StreamRecord, kept: Offsets) -> None:
        if not kept:
            return
        stream = record.stream
        try:
            source = await self._streams.source(record, kept)
        except ReplicatorError:
            if WORKER_CLUSTER in stream.options:
                return
            raise
        if lost := gaps(record, kept, source):
            retained = {at: source.earliest.get(at, 0) if at in lost else kept.get(at, 0) for at in source.latest}
            raise ReplayNotRetained(
                f"a connector of this name was deleted, and it cannot continue where that was: {describe_gaps(lost)}",
                stream=stream.name,
                property="startFrom",
                fix=f'to continue without these records, declare startFrom: {{lsn: "{write(retained)}"}}; to copy all '
                "that the source retains, declare startFrom: earliest",
            )


def recorded_starts(earliest: Offsets | None, first: Offsets) -> str | None:
    """Return a mirror's start position in the form of its record; `None` if it is unknown, or too long to record.

    :param earliest: the start of the partitions that are not in `first`.
    """
    if earliest is None:
        return None
    text = write({at: offset for at, offset in {**earliest, **first}.items() if offset > 0}) or ""
    return text if len(text) <= _STARTS_LIMIT else None
