"""Letting a mirror's connectors run, pausing them, and stopping them."""

from __future__ import annotations

from dataclasses import replace

from replicator.backends.connect.cluster import ConnectCluster, Connector, ConnectorState
from replicator.backends.connect.marker import Marker, Rewind
from replicator.backends.connect.mirror.connectors import BACKEND, WORKER_CLUSTER
from replicator.backends.connect.mirror.ends import AGAIN
from replicator.backends.connect.mirror.replays import refuse_gaps, refuse_half_made
from replicator.backends.connect.mirror.source_view import SourceView
from replicator.backends.connect.mirror.status import Held, as_stored
from replicator.backends.connect.mirror.streams import Streams
from replicator.backends.connect.mirror.topics import Naming, names
from replicator.backends.connect.positions import Offsets, read
from replicator.errors import ReplayNotRetained, ReplicatorError
from replicator.model import DesiredState, Stream

SEEN_WITHIN = 60.0
"""Seconds in which a connector must have done what Connect was asked for."""


class Running:
    """What runs of the mirrors of one Connect cluster. The caller has the turn to change the stream."""

    def __init__(self, cluster: ConnectCluster, streams: Streams) -> None:
        self._cluster = cluster
        self._streams = streams

    async def set_state(self, stream: Stream) -> None:
        """Pause or let run what is not so yet."""
        now = await self._streams.found(stream.name)
        if stream.desired_state is DesiredState.PAUSED:
            await self.pause(now)
        else:
            await self.resume(now)

    async def pause(self, held: Held) -> None:
        """Pause every connector that is not stopped already."""
        for connector in held.all:
            if connector.failed:  # a failed task is never paused
                await self._cluster.stop(connector.name, SEEN_WITHIN)
            elif connector.state is not ConnectorState.STOPPED and not connector.paused:
                await self._cluster.pause(connector.name, SEEN_WITHIN)

    async def pause_first(self, held: Held, stream: Stream) -> None:
        """Pause what is to be paused before its configuration changes.

        A connector that runs is restarted by that, and with a source that is down it starts for minutes, in which it
        does not pause. (Seen on MirrorMaker 2 4.3.)
        """
        if stream.desired_state is DesiredState.PAUSED:
            await self.pause(held)

    async def resume(self, held: Held) -> None:
        """Go on. A replay that was cut off is applied first: a mirror that has run since then is no more where it was.

        MirrorMaker 2 would jump over what is no longer retained, and say nothing.
        """
        held = await self.assigned(held)
        if held.connector.state is ConnectorState.STOPPED and (rewind := held.marker.cut_off()) is not None:
            held = await self.set_back(held, rewind)
        if held.connector.state in ("PAUSED", "STOPPED"):
            await self.refuse_gap(held)
        await self.start_all(held)

    async def refuse_gap(self, held: Held) -> None:
        """Raise where it would begin behind a gap or at the wrong place, or where that cannot be seen.

        Where `worker.cluster` is declared, the ends cannot be seen from here, and nobody can tell.
        """
        refuse_half_made(held.marker)
        if told := await self._streams.rebuilt(held.marker):
            raise ReplayNotRetained(told, stream=held.name, fix=AGAIN)
        await self._refuse_gap(held.marker, await self._streams.positions(held.marker.stream))

    async def _refuse_gap(self, marker: Marker, stored: Offsets) -> None:
        try:
            source = await self._streams.source(marker, stored)
        except ReplicatorError as error:
            if WORKER_CLUSTER in marker.stream.options:
                return
            raise type(error)(
                f"whether it can go on without a gap cannot be seen: {error.message}",
                stream=marker.stream.name,
                property=error.property,
                fix=error.fix,
            ) from error
        refuse_gaps(marker, stored, source)

    async def before_change(self, held: Held, stream: Stream) -> None:
        """Stop what failed and is to pause; raise what `refuse_change` raises."""
        if held.connector.failed and stream.desired_state is DesiredState.PAUSED:
            await self.stop(held)
        await self.refuse_change(held, stream)

    async def refuse_change(self, held: Held, stream: Stream) -> None:
        """Raise where another declaration lets the mirror begin behind a gap.

        What failed starts again. A running mirror takes up topics that it took before, where it was with them then. A
        replay that was cut off is applied before a paused one goes on, and changes where that is.
        """
        if stream.desired_state is DesiredState.PAUSED:
            return
        if held.connector.state in ("PAUSED", "STOPPED") and held.marker.cut_off() is None:
            await self.refuse_gap(replace(held, marker=held.marker.model_copy(update={"stream": stream})))
        if held.connector.failed:
            await self.refuse_gap(held)
        elif held.connector.state is ConnectorState.RUNNING:
            stored = await self._streams.positions(stream)
            before = names(held.marker.stream)
            again = {at: offset for at, offset in stored.items() if not before.has(at.topic)}
            if again:
                await self._refuse_gap(held.marker.model_copy(update={"stream": stream}), again)

    async def stop(self, held: Held) -> None:
        """Stop every connector, after which positions may be changed."""
        for connector in held.all:
            await self._cluster.stop(connector.name, SEEN_WITHIN)

    async def start_all(self, held: Held) -> None:
        """Let every connector run that does not."""
        for connector in held.all:
            if connector.running:
                continue
            may_idle = await self._may_idle(held, connector)
            if connector.idle:
                await self._cluster.wait_running(connector.name, SEEN_WITHIN, may_idle=may_idle)
            else:
                await self._cluster.resume(connector.name, SEEN_WITHIN, may_idle=may_idle)

    async def _may_idle(self, held: Held, connector: Connector) -> bool:
        """Whether there may be nothing to do for a connector: no group to follow, or no topic to copy."""
        if connector.name != held.name:
            return True
        (source,) = await self._streams.sources([held], [{}])
        return isinstance(source, SourceView) and not source.topics

    async def assigned(self, held: Held) -> Held:
        """The stream when it is known again whether its connector is stopped, as it is not just after a change."""
        if held.connector.state != "UNASSIGNED":
            return held
        await self._cluster.wait_assigned(held.name, SEEN_WITHIN)
        return await self._streams.found(held.name)

    async def put_marker(self, held: Held, marker: Marker) -> Held:
        """Write another record. A running connector would be restarted by that."""
        config = {**held.connector.config, **marker.keys(BACKEND)}
        await self._cluster.put_config(held.name, config, SEEN_WITHIN)
        return replace(held, connector=replace(held.connector, config=config), marker=marker)

    async def set_back(self, held: Held, rewind: Rewind) -> Held:
        """Apply a replay that is recorded."""
        if not held.connector.stopped:
            await self._cluster.stop(held.name, SEEN_WITHIN)
        if rewind.start:
            stored = as_stored(read(rewind.start), Naming.of(held.marker.stream))
            await self._cluster.alter_offsets(held.name, stored)
        return await self.put_marker(held, held.marker.with_rewind(rewind.model_copy(update={"applied": True})))
