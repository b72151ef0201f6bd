"""kafka-mirror: the Replicator of MirrorMaker 2."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from replicator.authref import Redactor
from replicator.backends.connect.brokers import RECENT
from replicator.backends.connect.cluster import ConnectCluster, Connector, ConnectorState, Initial, Offset
from replicator.backends.connect.marker import KEPT_REPLAYS, KEY, PART_OF, Marker, Rewind
from replicator.backends.connect.mirror import preflight
from replicator.backends.connect.mirror.claims import Claims
from replicator.backends.connect.mirror.connectors import Parts, Side, build, option_of, part_names
from replicator.backends.connect.mirror.ends import Ends, View
from replicator.backends.connect.mirror.neighbours import PATIENCE, Neighbours
from replicator.backends.connect.mirror.replays import Start, refuse_gaps, resolve
from replicator.backends.connect.mirror.status import (
    Held,
    SourceView,
    by_part,
    is_done,
    next_offsets,
    outline_of,
    reached,
    status_of,
    view,
)
from replicator.backends.connect.mirror.topics import Naming, taken
from replicator.backends.connect.place import place
from replicator.backends.connect.placeholders import DEFAULT_ALIASES
from replicator.backends.connect.positions import Offsets, Partition, read, write
from replicator.backends.connect.recent import Recent
from replicator.backends.connect.rest import ConnectRest
from replicator.backends.connect.workers import access
from replicator.backends.ownership import check_owner, settle_owner
from replicator.backends.settings import ConnectConfig
from replicator.errors import (
    EngineRefused,
    NotOurs,
    ReplayKeyReused,
    ReplayNotFound,
    ReplayRefused,
    ReplicatorError,
    StreamNotFound,
)
from replicator.model import Checkpoint, DesiredState, Mode, Owner, Stream, StreamStatus
from replicator.replicator import (
    Adoption,
    Description,
    Finding,
    ReplayMethod,
    ReplayPlan,
    ReplayProgress,
    ReplayState,
    Severity,
)


def open_mirror(address: str, settings: ConnectConfig) -> KafkaMirror:
    """The mirrors of the Connect cluster at an address; raise `SecretNotFound` where the login cannot be read."""
    redactor = Redactor()
    aliases = {**DEFAULT_ALIASES, **settings.secret_providers}

    def rest(at: str) -> ConnectRest:
        return ConnectRest(access(at, settings, redactor, os.environ), redact=redactor)

    elsewhere = sorted({settings.address or address, *settings.regions.values()} - {address})
    neighbours = Neighbours([ConnectCluster(rest(at), patience=PATIENCE) for at in elsewhere])
    return KafkaMirror(ConnectCluster(rest(address)), aliases=aliases, redactor=redactor, neighbours=neighbours)


SEEN_WITHIN = 60.0
"""Seconds in which a connector must have done what Connect was asked for."""


_RESUMED = "the connector was resumed by somebody else before the offsets were set back"


class KafkaMirror:
    """Streams from Kafka to Kafka, as connectors of one Connect cluster.

    :param aliases: names of the worker's ConfigProviders, by scheme of reference.
    :param neighbours: other Connect clusters whose mirrors matter to those here.
    """

    kind = "kafka-mirror"

    def __init__(
        self,
        cluster: ConnectCluster,
        *,
        aliases: Mapping[str, str],
        redactor: Redactor,
        neighbours: Neighbours | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._cluster = cluster
        self._neighbours = neighbours or Neighbours()
        self._aliases = aliases
        self._ends = Ends(environ, redactor)
        self._recent = Recent(self._listing, RECENT)
        self._identity = Recent(cluster.identity, RECENT)
        self._claims = Claims(RECENT)
        self._finished: dict[tuple[str, str], datetime] = {}

    # --- making and changing -----------------------------------------------------------------------------------------

    async def upsert_stream(self, stream: Stream) -> None:
        async with self._cluster.slot(stream.name):
            held = None if await self._seems_new(stream) else await self._held(stream.name)
            while not await self._make_it_so(stream, held):
                held = await self._held(stream.name)

    async def _seems_new(self, stream: Stream) -> bool:
        """Whether a listing of the last second has no such stream. Connect itself refuses a name that is taken."""
        updated = stream.owner is not None and stream.owner.claim
        return not updated and stream.name not in await self._recent.get()

    async def _make_it_so(self, stream: Stream, held: Held | None) -> bool:
        """Make or change a stream; False, and nothing was done, where there is one that `held` does not know."""
        owner = settle_owner(held.marker.stream if held else None, stream)
        wanted = stream.model_copy(update={"owner": owner, "backend": self.kind})
        if held is not None and not held.marker.making and _declares_the_same(held.marker.stream, wanted):
            await self._reconcile(held, held.marker.model_copy(update={"stream": wanted}))
            return True
        with self._claims.claim(Marker(stream=wanted)) as claimed:
            return await self._change(wanted, held, claimed)

    async def _change(self, wanted: Stream, held: Held | None, claimed: Sequence[Marker]) -> bool:
        """Make a stream, or give it another declaration; False as `_make` says it.

        :param claimed: other streams that are changed meanwhile.
        """
        side, seen = await (self._checked if held else self._looked)(wanted, claimed)
        marker = await self._marker(wanted, side, seen, held)
        if held is None or held.marker.making:
            return await self._make(marker, side, held)
        if _moves(held.marker, marker):
            ended = _given_up_all(self._settled(held, await self._stored(held)), "the stream was moved meanwhile")
            fresh = await self._marker(wanted, side, seen, None)
            marker = fresh.model_copy(update={"rewinds": ended.rewinds})
            await self._stop(held)
            await self._cluster.reset_offsets(wanted.name)
        await self._apply(held, build(marker, side, self._aliases))
        await self._set_state(wanted)
        return True

    async def _checked(self, stream: Stream, claimed: Sequence[Marker] = ()) -> tuple[Side, View]:
        """What is refused before anything is changed."""
        side, seen = await self._looked(stream, claimed)
        await preflight.refuse_invalid(self._cluster, build(Marker(stream=stream), side, self._aliases).source, stream)
        return side, seen

    async def _looked(self, stream: Stream, claimed: Sequence[Marker] = ()) -> tuple[Side, View]:
        """The same but for the engine's own checks, which the creation of a connector begins with."""
        here = [held.marker for name, held in (await self._recent.get()).items() if name != stream.name]
        elsewhere, _ = await self._neighbours.look()
        others = [*here, *elsewhere, *claimed]
        worker = (await self._identity.get()).kafka_cluster_id
        return await preflight.check(self._cluster, worker, self._ends, stream, others, self._aliases)

    async def _marker(self, stream: Stream, side: Side, seen: View, held: Held | None) -> Marker:
        """The record to write.

        :param held: what there is and goes on.
        """
        topics: dict[str, str] = {}
        if seen.id("source"):
            brokers = await self._ends.brokers(stream, "source")
            found = await brokers.describe(taken(stream, await brokers.topics()))
            topics = {name: topic.id for name, topic in found.items()}
        known = held.marker if held else Marker(stream=stream)
        same_source = known.stream.source.uri == stream.source.uri
        same_destination = known.stream.destination.uri == stream.destination.uri
        return Marker(
            stream=stream,
            source_cluster=seen.id("source") or (known.source_cluster if same_source else None),
            destination_cluster=seen.id("destination") or (known.destination_cluster if same_destination else None),
            side=side.value,
            topics={**topics, **known.topics},  # positions are of the topics that were there when they were made
            rewinds=known.rewinds,
        )

    async def _make(self, marker: Marker, side: Side, held: Held | None) -> bool:
        """Make the connectors. One that starts by itself is one call; everything else is put together while stopped.

        :param held: what a call before made of it.
        :returns: False where it is `None`, and there is a connector of the name.
        """
        stream = marker.stream
        start = await self._start(stream)
        parts = build(marker, side, self._aliases)
        if held is None and stream.start_from is None and start is None and not parts.others:
            paused = stream.desired_state is DesiredState.PAUSED
            if not await self._create_first(stream, parts, Initial.PAUSED if paused else Initial.RUNNING):
                return False
            if not paused:
                may_idle = marker.source_cluster is not None and not marker.topics
                await self._cluster.wait_running(stream.name, SEEN_WITHIN, may_idle=may_idle)
            return True
        if held is None:
            making = build(marker.model_copy(update={"making": True}), side, self._aliases)
            if not await self._create_first(stream, making, Initial.STOPPED):
                return False
        await self._cluster.stop(stream.name, SEEN_WITHIN)
        await self._make_parts(stream.name, parts)
        await self._set_start(stream, start or {})
        await self._cluster.put_config(stream.name, parts.source, SEEN_WITHIN)
        await self._set_state(stream)
        return True

    async def _create_first(self, stream: Stream, parts: Parts, state: Initial) -> bool:
        """Create the connector that holds the record; False where there may be one, whose record decides then."""
        try:
            return await self._cluster.create(stream.name, parts.source, state, is_ours=lambda found: True)
        except EngineRefused:
            await preflight.refuse_invalid(self._cluster, parts.source, stream)  # names the property
            raise

    async def _make_parts(self, stream: str, parts: Parts) -> None:
        """Make what stands beside the connector with the record; a call before may have made it otherwise."""
        for part in await self._parts(stream):
            if part.name not in parts.others:
                await self._cluster.delete(part.name, SEEN_WITHIN)
        for name, config in parts.others.items():
            if not await self._create(name, config, Initial.STOPPED):
                await self._cluster.put_config(name, config, SEEN_WITHIN)

    async def _set_start(self, stream: Stream, start: Mapping[Partition, int]) -> None:
        """Store where a new stream begins.

        Connect keeps the offsets of a connector that was deleted by hand. A stream that is made again goes on there, so
        that nothing is left out, unless it says where to start.
        """
        stored = next_offsets(await self._cluster.offsets(stream.name))
        if stored and stream.start_from is not None:
            await self._cluster.reset_offsets(stream.name)
            stored = {}
        first = {at: min(stored.get(at, offset), offset) for at, offset in start.items()}
        if first:
            await self._cluster.alter_offsets(stream.name, _as_stored(first, Naming.of(stream)))

    async def _create(self, name: str, config: Mapping[str, str], state: Initial) -> bool:
        """Create a connector beside it; False where it is there."""
        part_of = config.get(PART_OF)
        return await self._cluster.create(name, config, state, is_ours=lambda found: found.get(PART_OF) == part_of)

    async def _start(self, stream: Stream) -> dict[Partition, int] | None:
        """Where a new stream begins; `None` where that is the beginning, as MirrorMaker 2 does it itself."""
        asked = stream.start_from or ("latest" if stream.mode is Mode.CDC else "earliest")
        if asked == "earliest":
            return None
        brokers = await self._ends.brokers(stream, "source")
        marker = Marker(stream=stream)
        source = (await view(brokers, [(marker, {})]))[0]
        if asked == "latest":
            return dict(source.latest)
        assert isinstance(asked, Checkpoint)
        end = dict(source.latest)
        found = await resolve(brokers, marker, source, end, asked, method=ReplayMethod.AUTO, target=None)
        return {**end, **found.offsets}

    async def _reconcile(self, held: Held, marker: Marker) -> None:
        """The declaration is the same: put right what the engine's side says otherwise, and nothing else."""
        side = _side(held)
        await self._apply(held, build(marker, side, self._aliases))
        for connector in held.all:
            if connector.failed:
                await self._cluster.restart_failed(connector.name)
        await self._set_state(marker.stream)

    async def _apply(self, held: Held, parts: Parts) -> None:
        """Write the configurations that differ."""
        there = {connector.name: connector for connector in held.all}
        for name in there.keys() - parts.others.keys() - {held.name}:
            await self._cluster.delete(name, SEEN_WITHIN)
        for name, config in {held.name: parts.source, **parts.others}.items():
            if name not in there:
                await self._create(name, config, Initial.STOPPED)
            elif _differing(there[name], config):
                await self._cluster.put_config(name, config, SEEN_WITHIN)

    async def _put_marker(self, held: Held, marker: Marker) -> Held:
        config = {**held.connector.config, KEY: marker.text()}
        await self._cluster.put_config(held.name, config, SEEN_WITHIN)
        return replace(held, connector=replace(held.connector, config=config), marker=marker)

    async def _set_state(self, stream: Stream) -> None:
        """Pause or let run what is not so yet."""
        now = await self._found(stream.name)
        if stream.desired_state is DesiredState.PAUSED:
            await self._pause(now)
        else:
            await self._resume(now)

    async def adopt_stream(self, stream: Stream, *, dry_run: bool = False) -> Adoption:
        known = await self._held(stream.name) is not None
        if not known and not dry_run:
            await self.upsert_stream(stream.model_copy(update={"owner": None}))
        elif not known:
            await self._checked(stream)
        return Adoption(known=known)

    # --- removing ----------------------------------------------------------------------------------------------------

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> None:
        async with self._cluster.slot(name):
            connector, parts = await asyncio.gather(self._cluster.look(name), self._parts(name))
            self._claims.drop(name)
            if connector is not None:
                check_owner(_record(connector).stream, owner)
            for part in parts:  # also those that somebody left who deleted the one with the record
                await self._cluster.delete(part.name, SEEN_WITHIN)
            if connector is not None:
                await self._cluster.delete(name, SEEN_WITHIN)

    # --- pausing -----------------------------------------------------------------------------------------------------

    async def pause(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._pause(await self._found(name))

    async def _pause(self, held: Held) -> None:
        for connector in held.all:
            if connector.failed:  # a failed task is never paused
                await self._cluster.stop(connector.name, SEEN_WITHIN)
            elif connector.state is not ConnectorState.STOPPED and not connector.paused:
                await self._cluster.pause(connector.name, SEEN_WITHIN)

    async def resume(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._resume(await self._found(name))

    async def _resume(self, held: Held) -> None:
        """Go on. A replay that was cut off is applied first: a mirror that has run since then is no more where it was.

        MirrorMaker 2 would jump over what is no longer retained, and say nothing.
        """
        held = await self._assigned(held)
        if held.connector.state is ConnectorState.STOPPED and (rewind := held.marker.cut_off()) is not None:
            held = await self._set_back(held, rewind)
        if held.connector.state in ("PAUSED", "STOPPED"):
            stored = await self._stored(held)
            (source,) = await self._sources([held], [stored])
            if source is not None:
                refuse_gaps(held.marker, stored, source)
        await self._start_all(held)

    async def _assigned(self, held: Held) -> Held:
        """The stream when it is known again whether its connector is stopped, as it is not just after a change."""
        if held.connector.state != "UNASSIGNED":
            return held
        await self._cluster.wait_assigned(held.name, SEEN_WITHIN)
        return await self._found(held.name)

    async def _start_all(self, held: Held) -> None:
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
        (source,) = await self._sources([held], [{}])
        return source is not None and not source.topics

    async def _stop(self, held: Held) -> None:
        for connector in held.all:
            await self._cluster.stop(connector.name, SEEN_WITHIN)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def list_streams(self) -> list[Stream]:
        return [self._as_found(held) for held in (await self._listing()).values()]

    async def get_status(self, name: str) -> StreamStatus:
        found = await self._describe([await self._found(name)])
        if not found:
            raise StreamNotFound("it was removed meanwhile", stream=name)
        return found[0].status

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        if names is not None and len(names) == 1:
            held = await self._held(names[0])
            return await self._describe([held] if held else [])
        listing = await self._listing()
        return await self._describe([held for name, held in listing.items() if names is None or name in names])

    async def overview(self) -> list[Description]:
        return [
            Description(stream=self._as_found(held), status=outline_of(held), engine_objects=self._objects(held, None))
            for held in (await self._listing()).values()
        ]

    async def _describe(self, streams: Sequence[Held]) -> list[Description]:
        """What is known of streams, less those that are removed meanwhile."""
        now = datetime.now(UTC)
        asked = await asyncio.gather(*(self._stored_or_gone(held) for held in streams))
        there = [(held, offsets) for held, offsets in zip(streams, asked, strict=True) if offsets is not None]
        streams, stored = [held for held, _ in there], [offsets for _, offsets in there]
        sources = await self._sources(streams, stored)
        return [
            Description(
                stream=self._as_found(held),
                status=status_of(held, offsets, source, now),
                engine_objects=self._objects(held, source),
                source_end=by_part(source.latest) if source else {},
                reached=by_part(reached(offsets, source)) if source else {},
            )
            for held, offsets, source in zip(streams, stored, sources, strict=True)
        ]

    async def _stored_or_gone(self, held: Held) -> dict[Partition, int] | None:
        try:
            return await self._stored(held)
        except StreamNotFound:
            return None

    async def _stored(self, held: Held) -> dict[Partition, int]:
        return next_offsets(await self._cluster.offsets(held.connector.name))

    async def _sources(self, streams: Sequence[Held], stored: Sequence[Offsets]) -> list[SourceView | None]:
        """What the sources' brokers say, asked once a source; `None` for one that cannot be seen from here."""
        groups: dict[Any, list[int]] = {}
        for index, held in enumerate(streams):
            groups.setdefault(place(held.marker.stream.source, "source", admin=True), []).append(index)
        found: list[SourceView | None] = [None] * len(streams)

        async def one(indices: Sequence[int]) -> None:
            try:
                brokers = await self._ends.brokers(streams[indices[0]].marker.stream, "source")
                views = await view(brokers, [(streams[index].marker, stored[index]) for index in indices])
            except ReplicatorError:
                return
            for index, item in zip(indices, views, strict=True):
                found[index] = item

        await asyncio.gather(*(one(indices) for indices in groups.values()))
        return found

    def _as_found(self, held: Held) -> Stream:
        """The declaration; what somebody else changed in the configuration shows as `options`, so that it is drift."""
        stream = held.marker.stream
        side = _side(held)
        parts, there = build(held.marker, side, self._aliases), {other.name: other for other in held.others}
        found: dict[str, str] = {}
        for name, config in {held.name: parts.source, **parts.others}.items():
            connector = held.connector if name == held.name else there.get(name)
            if connector is None:
                found[option_of(name)] = "false"
                continue
            strange = _differing(connector, config) - {KEY, PART_OF}
            found |= {key: _shown(key, connector.config.get(key, "")) for key in sorted(strange)}
        return stream.model_copy(update={"options": {**stream.options, **found}}) if found else stream

    def _objects(self, held: Held, source: SourceView | None) -> dict[str, Any]:
        objects: dict[str, Any] = {"connectors": [connector.name for connector in held.all]}
        if held.marker.source_cluster:
            objects["sourceCluster"] = held.marker.source_cluster
        if held.marker.destination_cluster:
            objects["destinationCluster"] = held.marker.destination_cluster
        if source is not None:
            naming = Naming.of(held.marker.stream)
            objects["topics"] = sorted(naming.at_destination(topic) for topic in source.topics)
        return objects

    async def preflight(self, stream: Stream) -> list[Finding]:
        await self._cluster.identity()  # a worker that is away is no finding about the stream
        held = None
        try:
            held = await self._held(stream.name)
            settle_owner(held.marker.stream if held else None, stream)
            _, seen = await self._checked(stream, self._claims.of_others(stream.name))
        except ReplicatorError as error:
            return [Finding.of(error, Severity.ERROR)]
        _, unseen = await self._neighbours.look()
        return await preflight.warnings(self._ends, stream, seen, unseen, new=held is None)

    # --- replaying ---------------------------------------------------------------------------------------------------

    async def replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        key: str,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayProgress:
        async with self._cluster.slot(name):
            held = await self._found(name)
            known = held.marker.rewind(key)
            if known is None:
                held = await self._begin(held, start, key, method, target)
            elif (known.progress.start, known.progress.target) != (start, target):
                raise ReplayKeyReused(
                    f"key {key!r} was used for a replay from {known.progress.start.wire()}",
                    stream=name,
                    fix="use another idempotencyKey for another replay",
                )
            return await self._progress(await self._go_on(held, key), key)

    async def _begin(self, held: Held, start: Checkpoint, key: str, method: ReplayMethod, target: str | None) -> Held:
        """Record a replay that is not applied yet, with the connectors stopped."""
        if held.marker.cut_off() is not None:
            raise ReplayRefused(
                "another replay of this stream was cut off half-way",
                stream=held.name,
                fix="run that one again with its own key, which finishes it",
            )
        await self._resolve(held, start, method, target)
        await self._stop(held)
        resolved, stored = await self._resolve(held, start, method, target)  # again, since now nothing moves
        progress = ReplayProgress(
            key=key,
            stream=held.name,
            state=ReplayState.RUNNING,
            method=resolved.plan.method,
            start=start,
            resolved=resolved.plan.resolved,
            target=target,
            events=resolved.plan.events,
            started_at=_now(),
        )
        rewind = Rewind(progress=progress, start=write(resolved.offsets) or "", until=write(resolved.until) or "")
        marker = self._settled(held, stored)
        kept = (*marker.rewinds, rewind)[-KEPT_REPLAYS:]
        topics = {**marker.topics, **resolved.topics}
        return await self._put_marker(held, marker.model_copy(update={"rewinds": kept, "topics": topics}))

    async def _go_on(self, held: Held, key: str) -> Held:
        """Apply a replay that is recorded, and let the mirror run. What is done already is left."""
        rewind = held.marker.rewind(key)
        assert rewind is not None
        if rewind.progress.finished_at is not None:
            return held
        held = await self._assigned(await self._found(held.name))
        stopped = held.connector.state is ConnectorState.STOPPED
        if not rewind.applied:
            if not stopped:
                return await self._put_marker(held, held.marker.with_rewind(_given_up(rewind, _RESUMED)))
            held = await self._set_back(held, rewind)
        if stopped and held.marker.stream.desired_state is DesiredState.RUNNING:
            await self._start_all(await self._assigned(await self._found(held.name)))
        return held

    async def _set_back(self, held: Held, rewind: Rewind) -> Held:
        """Apply a replay that is recorded."""
        if not held.connector.stopped:
            await self._cluster.stop(held.name, SEEN_WITHIN)
        if rewind.start:
            stored = _as_stored(read(rewind.start), Naming.of(held.marker.stream))
            await self._cluster.alter_offsets(held.name, stored)
        return await self._put_marker(held, held.marker.with_rewind(rewind.model_copy(update={"applied": True})))

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        return await self._progress(await self._found(name), key)

    async def _progress(self, held: Held, key: str) -> ReplayProgress:
        if held.marker.rewind(key) is None:
            raise ReplayNotFound(f"no replay has the key {key!r}", stream=held.name)
        marker = self._settled(held, await self._stored(held))
        rewind = marker.rewind(key)
        assert rewind is not None
        return rewind.progress

    def _settled(self, held: Held, stored: Offsets) -> Marker:
        """The record with the replays that are done by now. No read writes it: that would restart the connector."""
        marker = held.marker
        for rewind in marker.rewinds:
            if rewind.progress.finished_at is None and is_done(rewind, stored):
                at = self._finished.setdefault((held.name, rewind.progress.key), _now())
                done = rewind.progress.model_copy(update={"state": ReplayState.DONE, "finished_at": at})
                marker = marker.with_rewind(rewind.model_copy(update={"progress": done}))
        return marker

    async def plan_replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayPlan:
        return (await self._resolve(await self._found(name), start, method, target))[0].plan

    async def _resolve(
        self, held: Held, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[Start, dict[Partition, int]]:
        stored = await self._stored(held)
        brokers = await self._ends.brokers(held.marker.stream, "source")
        source = (await view(brokers, [(held.marker, stored)]))[0]
        return await resolve(brokers, held.marker, source, stored, start, method=method, target=target), stored

    # --- what Connect holds ------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        await self._cluster.aclose()
        await self._neighbours.aclose()

    async def _found(self, name: str) -> Held:
        held = await self._held(name)
        if held is None:
            raise StreamNotFound("the Connect cluster has no such stream", stream=name)
        return held

    async def _held(self, name: str) -> Held | None:
        """The stream; raise `NotOurs` where a connector of the name carries no record."""
        connector = await self._cluster.look(name)
        if connector is None:
            return None
        marker = _record(connector)
        names = build(marker, Side.DESTINATION, self._aliases).others
        return Held(connector, marker, await self._parts(name, names))

    async def _parts(self, stream: str, names: Iterable[str] | None = None) -> tuple[Connector, ...]:
        """What there is beside the connector with the record.

        :param names: what to look for; left out, all that a stream can have.
        """
        found = await asyncio.gather(
            *(self._cluster.look(name) for name in (part_names(stream) if names is None else names))
        )
        return tuple(part for part in found if part is not None and part.config.get(PART_OF) == stream)

    async def _listing(self) -> dict[str, Held]:
        connectors = await self._cluster.listing()
        parts: dict[str, list[Connector]] = {}
        for connector in connectors.values():
            if (of := connector.config.get(PART_OF)) is not None:
                parts.setdefault(of, []).append(connector)
        return {
            name: Held(connector, marker, tuple(parts.get(name, ())))
            for name, connector in sorted(connectors.items())
            if (marker := Marker.read(connector.config)) is not None
        }


def _record(connector: Connector) -> Marker:
    """The record that a stream's connector carries; raise `NotOurs` where there is none."""
    marker = Marker.read(connector.config)
    if marker is None:
        raise NotOurs(
            f"the Connect cluster has a connector of this name, of {connector.config.get('connector.class')}, and "
            "no stream made it",
            stream=connector.name,
            fix="choose another name, or delete that connector",
        )
    return marker


def _now() -> datetime:
    """With milliseconds, as the record has it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _given_up(rewind: Rewind, why: str) -> Rewind:
    failed = {"state": ReplayState.FAILED, "finished_at": _now(), "error": why}
    return rewind.model_copy(update={"progress": rewind.progress.model_copy(update=failed)})


def _given_up_all(marker: Marker, why: str) -> Marker:
    """The record, in which no replay is under way."""
    rewinds = [item if item.progress.finished_at is not None else _given_up(item, why) for item in marker.rewinds]
    return marker.model_copy(update={"rewinds": tuple(rewinds)})


def _as_stored(offsets: Offsets, naming: Naming) -> list[Offset]:
    """Next offsets as MirrorMaker 2 stores them. It has no way to say 0 but to store nothing."""
    return [
        Offset(
            {"cluster": naming.source, "topic": at.topic, "partition": at.number},
            {"offset": offset - 1} if offset > 0 else None,
        )
        for at, offset in sorted(offsets.items())
    ]


def _moves(old: Marker, new: Marker) -> bool:
    """Whether positions of before mean nothing any more: another source, or topics that are empty at first."""
    if Naming.of(old.stream) != Naming.of(new.stream):
        return True
    ends = (
        (old.stream.source, old.source_cluster, new.stream.source, new.source_cluster),
        (old.stream.destination, old.destination_cluster, new.stream.destination, new.destination_cluster),
    )
    return any(was.uri != now.uri and (before is None or before != after) for was, before, now, after in ends)


def _declares_the_same(one: Stream, other: Stream) -> bool:
    return one.model_copy(update={"owner": None}) == other.model_copy(update={"owner": None})


def _side(held: Held) -> Side:
    """Where the worker stands. Somebody may have taken out the override, without which a mirror loops."""
    return Side(held.marker.side)


def _differing(connector: Connector, config: Mapping[str, str]) -> set[str]:
    there = {key: value for key, value in connector.config.items() if key != "name"}
    return {key for key in there.keys() | config.keys() if there.get(key) != config.get(key)}


def _shown(key: str, value: str) -> str:
    return "[redacted]" if re.search(r"(?i)jaas|passw|secret|token|key$", key) else value
