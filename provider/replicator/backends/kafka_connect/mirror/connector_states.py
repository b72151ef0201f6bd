"""Letting a mirror's connectors run, pausing them, and stopping them."""

from __future__ import annotations

from dataclasses import replace

from replicator.backends.kafka.positions import Offsets, read
from replicator.backends.kafka_connect.cluster import ConnectCluster, Connector, ConnectorState
from replicator.backends.kafka_connect.mirror.cluster_identity import AGAIN
from replicator.backends.kafka_connect.mirror.connectors import BACKEND, WORKER_CLUSTER
from replicator.backends.kafka_connect.mirror.replay_planner import refuse_gaps, refuse_unfinished
from replicator.backends.kafka_connect.mirror.source_view import SourceView
from replicator.backends.kafka_connect.mirror.status import DeployedStream, as_stored
from replicator.backends.kafka_connect.mirror.stream_reader import StreamReader
from replicator.backends.kafka_connect.mirror.topics import Naming, names
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord
from replicator.errors import ReplayNotRetained, ReplicatorError
from replicator.model import DesiredState, Stream

SEEN_WITHIN = 60.0
"""Seconds in which a connector must have done what Connect was asked for."""


class ConnectorStates:
    """What runs of the mirrors of one Connect cluster. The caller has the turn to change the stream."""

    def __init__(self, cluster: ConnectCluster, streams: StreamReader) -> None:
        self._cluster = cluster
        self._streams = streams

    async def set_state(self, stream: Stream) -> None:
        """Pause or let run what is not so yet."""
        now = await self._streams.found(stream.name)
        if stream.desired_state is DesiredState.PAUSED:
            await self.pause(now)
        else:
            await self.resume(now)

    async def pause(self, deployed: DeployedStream) -> None:
        """Pause every connector that is not stopped already."""
        for connector in deployed.all:
            if connector.failed:  # a failed task is never paused
                await self._cluster.stop(connector.name, SEEN_WITHIN)
            elif connector.state is not ConnectorState.STOPPED and not connector.paused:
                await self._cluster.pause(connector.name, SEEN_WITHIN)

    async def pause_first(self, deployed: DeployedStream, stream: Stream) -> None:
        """Pause what is to be paused before its configuration changes.

        A connector that runs is restarted by that, and with a source that is down it starts for minutes, in which it
        does not pause. (Seen on MirrorMaker 2 4.3.)
        """
        if stream.desired_state is DesiredState.PAUSED:
            await self.pause(deployed)

    async def resume(self, deployed: DeployedStream) -> None:
        """Go on. A replay that was cut off is applied first: a mirror that has run since then is no more where it was.

        MirrorMaker 2 would jump over what is no longer retained, and say nothing.
        """
        deployed = await self.assigned(deployed)
        if (
            deployed.connector.state is ConnectorState.STOPPED
            and (replay_record := deployed.record.cut_off()) is not None
        ):
            deployed = await self.set_back(deployed, replay_record)
        if deployed.connector.state in ("PAUSED", "STOPPED"):
            await self.refuse_gap(deployed)
        await self.start_all(deployed)

    async def refuse_gap(self, deployed: DeployedStream) -> None:
        """Raise where it would begin behind a gap or at the wrong place, or where that cannot be seen.

        Where `worker.cluster` is declared, the ends cannot be seen from here, and nobody can tell.
        """
        refuse_unfinished(deployed.record)
        if told := await self._streams.rebuilt(deployed.record):
            raise ReplayNotRetained(told, stream=deployed.name, fix=AGAIN)
        await self._refuse_gap(deployed.record, await self._streams.positions(deployed.record.stream))

    async def _refuse_gap(self, record: StreamRecord, stored: Offsets) -> None:
        try:
            source = await self._streams.source(record, stored)
        except ReplicatorError as error:
            if WORKER_CLUSTER in record.stream.options:
                return
            raise type(error)(
                f"whether it can go on without a gap cannot be seen: {error.message}",
                stream=record.stream.name,
                property=error.property,
                fix=error.fix,
            ) from error
        refuse_gaps(record, stored, source)

    async def before_change(self, deployed: DeployedStream, stream: Stream) -> None:
        """Stop what failed and is to pause; raise what `refuse_change` raises."""
        if deployed.connector.failed and stream.desired_state is DesiredState.PAUSED:
            await self.stop(deployed)
        await self.refuse_change(deployed, stream)

    async def refuse_change(self, deployed: DeployedStream, stream: Stream) -> None:
        """Raise where another declaration lets the mirror begin behind a gap.

        What failed starts again. A running mirror takes up topics that it took before, where it was with them then. A
        replay that was cut off is applied before a paused one goes on, and changes where that is.
        """
        if stream.desired_state is DesiredState.PAUSED:
            return
        if deployed.connector.state in ("PAUSED", "STOPPED") and deployed.record.cut_off() is None:
            await self.refuse_gap(replace(deployed, record=deployed.record.model_copy(update={"stream": stream})))
        if deployed.connector.failed:
            await self.refuse_gap(deployed)
        elif deployed.connector.state is ConnectorState.RUNNING:
            stored = await self._streams.positions(stream)
            before = names(deployed.record.stream)
            again = {at: offset for at, offset in stored.items() if not before.has(at.topic)}
            if again:
                await self._refuse_gap(deployed.record.model_copy(update={"stream": stream}), again)

    async def stop(self, deployed: DeployedStream) -> None:
        """Stop every connector, after which positions may be changed."""
        for connector in deployed.all:
            await self._cluster.stop(connector.name, SEEN_WITHIN)

    async def start_all(self, deployed: DeployedStream) -> None:
        """Let every connector run that does not."""
        for connector in deployed.all:
            if connector.running:
                continue
            may_idle = await self._may_idle(deployed, connector)
            if connector.idle:
                await self._cluster.wait_running(connector.name, SEEN_WITHIN, may_idle=may_idle)
            else:
                await self._cluster.resume(connector.name, SEEN_WITHIN, may_idle=may_idle)

    async def _may_idle(self, deployed: DeployedStream, connector: Connector) -> bool:
        """Whether there may be nothing to do for a connector: no group to follow, or no topic to copy."""
        if connector.name != deployed.name:
            return True
        (source,) = await self._streams.sources([deployed], [{}])
        return isinstance(source, SourceView) and not source.topics

    async def assigned(self, deployed: DeployedStream) -> DeployedStream:
        """The stream when it is known again whether its connector is stopped, as it is not just after a change."""
        if deployed.connector.state != "UNASSIGNED":
            return deployed
        await self._cluster.wait_assigned(deployed.name, SEEN_WITHIN)
        return await self._streams.found(deployed.name)

    async def put_record(self, deployed: DeployedStream, record: StreamRecord) -> DeployedStream:
        """Write another record. A running connector would be restarted by that."""
        config = {**deployed.connector.config, **record.keys(BACKEND)}
        await self._cluster.put_config(deployed.name, config, SEEN_WITHIN)
        return replace(deployed, connector=replace(deployed.connector, config=config), record=record)

    async def set_back(self, deployed: DeployedStream, replay_record: ReplayRecord) -> DeployedStream:
        """Apply a replay that is recorded."""
        if not deployed.connector.stopped:
            await self._cluster.stop(deployed.name, SEEN_WITHIN)
        if replay_record.start:
            stored = as_stored(read(replay_record.start), Naming.of(deployed.record.stream))
            await self._cluster.alter_offsets(deployed.name, stored)
        return await self.put_record(
            deployed, deployed.record.with_replay(replay_record.model_copy(update={"applied": True}))
        )
