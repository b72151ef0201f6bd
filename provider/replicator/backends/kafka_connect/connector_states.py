"""Starting, pausing and stopping the connectors of a stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from replicator.backends.kafka_connect.cluster import ConnectCluster, ConnectorState
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.recipe import Recipe
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord, refuse_unfinished
from replicator.backends.kafka_connect.stream_store import StreamStore
from replicator.model import DesiredState, Stream

SEEN_WITHIN = 60.0
"""Seconds in which a connector must reach the state that Connect was asked for."""


class ConnectorStates:
    """Changes which connectors run. The caller holds the stream's slot."""

    def __init__(self, cluster: ConnectCluster, streams: StreamStore, recipe: Recipe[Any, Any, Any]) -> None:
        self._cluster = cluster
        self._streams = streams
        self._recipe = recipe

    async def set_state(self, stream: Stream) -> None:
        """Bring the connectors into the state that the declaration asks for."""
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
        """Pause a connector that is to be paused before its configuration changes.

        The change restarts a running connector. While its source is down, it then starts for minutes and does not
        pause. (Seen on MirrorMaker 2 4.3.)
        """
        if stream.desired_state is DesiredState.PAUSED:
            await self.pause(deployed)

    async def resume(self, deployed: DeployedStream) -> None:
        """Start the stream. An interrupted replay is applied first, while the offsets are still the old ones.

        Raise what `Recipe.refuse_gap` raises: the engine would silently skip records that are no longer retained.
        """
        deployed = await self.assigned(deployed)
        replay = deployed.record.cut_off()
        if deployed.connector.state is ConnectorState.STOPPED and replay is not None:
            deployed = await self.set_back(deployed, replay)
        positioned = self._recipe.positioned(deployed)
        if any(connector.state in ("PAUSED", "STOPPED") or connector.failed for connector in positioned):
            await self._refuse_gap(deployed.record)
        await self.start_all(deployed)

    async def _refuse_gap(self, record: StreamRecord) -> None:
        refuse_unfinished(record)
        await self._recipe.refuse_gap(record)

    async def before_change(self, deployed: DeployedStream, stream: Stream) -> None:
        """Stop failed connectors that are to pause; raise what `refuse_change` raises."""
        if deployed.connector.failed and stream.desired_state is DesiredState.PAUSED:
            await self.stop(deployed)
        await self.refuse_change(deployed, stream)

    async def refuse_change(self, deployed: DeployedStream, stream: Stream) -> None:
        """Raise if another declaration makes the stream start behind a gap.

        Failed connectors restart. A running stream may return to topics that it left before. An interrupted replay is
        applied before a paused stream runs, and changes its start position.
        """
        if stream.desired_state is DesiredState.PAUSED:
            return
        positioned = self._recipe.positioned(deployed)
        held = any(connector.state in ("PAUSED", "STOPPED") for connector in positioned)
        if held and deployed.record.cut_off() is None:
            await self._refuse_gap(deployed.record.model_copy(update={"stream": stream}))
        if any(connector.failed for connector in positioned):
            await self._refuse_gap(deployed.record)
        elif deployed.connector.state is ConnectorState.RUNNING:
            await self._recipe.refuse_return(deployed.record, stream)

    async def stop(self, deployed: DeployedStream) -> None:
        """Stop every connector, so that its offsets may be changed."""
        for connector in deployed.all:
            await self._cluster.stop(connector.name, SEEN_WITHIN)

    async def start_all(self, deployed: DeployedStream) -> None:
        """Start every connector that does not run."""
        idle = not all(connector.running for connector in deployed.all)
        if idle and await self._recipe.ready(deployed.record):
            deployed = await self._streams.found(deployed.name)
        for connector in deployed.all:
            if connector.running:
                continue
            may_idle = await self._recipe.may_idle(deployed, connector.name)
            if connector.failed:
                await self._cluster.restart_failed(connector.name)
            if connector.idle:
                await self._cluster.wait_running(connector.name, SEEN_WITHIN, may_idle=may_idle)
            else:
                await self._cluster.resume(connector.name, SEEN_WITHIN, may_idle=may_idle)

    async def assigned(self, deployed: DeployedStream) -> DeployedStream:
        """Wait until the connector has left UNASSIGNED; its state is unknown right after a change."""
        if deployed.connector.state != "UNASSIGNED":
            return deployed
        await self._cluster.wait_assigned(deployed.name, SEEN_WITHIN)
        return await self._streams.found(deployed.name)

    async def put_record(self, deployed: DeployedStream, record: StreamRecord) -> DeployedStream:
        """Write another record. This restarts a running connector."""
        config = {**deployed.connector.config, **record.keys(self._streams.backend)}
        await self._cluster.put_config(deployed.name, config, SEEN_WITHIN)
        return replace(deployed, connector=replace(deployed.connector, config=config), record=record)

    async def set_back(self, deployed: DeployedStream, replay: ReplayRecord) -> DeployedStream:
        """Apply a recorded replay."""
        if not deployed.connector.stopped:
            await self._cluster.stop(deployed.name, SEEN_WITHIN)
        record, replay = await self._recipe.set_back(deployed.record, replay)
        applied = replay.model_copy(update={"applied": True})
        return await self.put_record(deployed, record.with_replay(applied))
