"""kafka-mirror: the Replicator of MirrorMaker 2."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from replicator.authref import Redactor
from replicator.backends.connect.brokers import RECENT
from replicator.backends.connect.cluster import ConnectCluster, Connector, Initial, Offset
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
            held = await self._held(stream.name)
            owner = settle_owner(held.marker.stream if held else None, stream)
            wanted = stream.model_copy(update={"owner": owner, "backend": self.kind})
            if held is not None and not held.marker.making and _declares_the_same(held.marker.stream, wanted):
                await self._reconcile(held, held.marker.model_copy(update={"stream": wanted}))
                return
            with self._claims.claim(Marker(stream=wanted)) as claimed:
                await self._change(wanted, held, claimed)

    async def _change(self, wanted: Stream, held: Held | None, claimed: Sequence[Marker]) -> None:
        """Make a stream, or give it another declaration.

        :param claimed: other streams that are changed meanwhile.
        """
        side, seen = await self._checked(wanted, claimed)
        marker = await self._marker(wanted, seen, held)
        if held is None or held.marker.making:
            await self._make(marker, side, held)
            return
        if _moves(held.marker, marker):
            ended = _given_up_all(self._settled(held, await self._stored(held)), "the stream was moved meanwhile")
            fresh = await self._marker(wanted, seen, None)
            marker = fresh.model_copy(update={"rewinds": ended.rewinds})
            await self._stop(held)
            await self._cluster.reset_offsets(wanted.name)
        await self._apply(held, build(marker, side, self._aliases))
        await self._set_state(wanted)

    async def _checked(self, stream: Stream, claimed: Sequence[Marker] = ()) -> tuple[Side, View]:
        here = [held.marker for name, held in (await self._recent.get()).items() if name != stream.name]
        elsewhere, _ = await self._neighbours.look()
        others = [*here, *elsewhere, *claimed]
        worker = (await self._identity.get()).kafka_cluster_id
        return await preflight.check(self._cluster, worker, self._ends, stream, others, self._aliases)

    async def _marker(self, stream: Stream, seen: View, held: Held | None) -> Marker:
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
            topics={**topics, **known.topics},  # positions are of the topics that were there when they were made
            rewinds=known.rewinds,
        )

    async def _make(self, marker: Marker, side: Side, held: Held | None) -> None:
        """Make the connectors. One that starts by itself is one call; everything else is put together while stopped.

        :param held: what a call before made of it.
        """
        stream = marker.stream
        start = await self._start(stream)
        parts = build(marker, side, self._aliases)
        if held is None and start is None and not parts.others:
            paused = stream.desired_state is DesiredState.PAUSED
            await self._create(stream.name, parts.source, Initial.PAUSED if paused else Initial.RUNNING)
            if not paused:
                may_idle = marker.source_cluster is not None and not marker.topics
                await self._cluster.wait_running(stream.name, SEEN_WITHIN, may_idle=may_idle)
            return
        if held is None:
            making = build(marker.model_copy(update={"making": True}), side, self._aliases)
            await self._create(stream.name, making.source, Initial.STOPPED)
        await self._cluster.stop(stream.name, SEEN_WITHIN)
        for name, config in parts.others.items():
            await self._create(name, config, Initial.STOPPED)
        if start:
            await self._cluster.alter_offsets(stream.name, _as_stored(start, Naming.of(stream)))
        await self._cluster.put_config(stream.name, parts.source, SEEN_WITHIN)
        await self._set_state(stream)

    async def _create(self, name: str, config: Mapping[str, str], state: Initial) -> None:
        mine = Marker.read(config)

        def is_ours(found: Mapping[str, str]) -> bool:
            if mine is None:
                return found.get(PART_OF) == config[PART_OF]
            other = Marker.read(found)
            return other is not None and other.stream.owner == mine.stream.owner

        await self._cluster.create(name, config, state, is_ours=is_ours)

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
        side = Side.SOURCE if _overrides(held.connector) else Side.DESTINATION
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
            held = await self._held(name)
            self._claims.drop(name)
            if held is None:
                await self._delete_orphans(name)
                return
            check_owner(held.marker.stream, owner)
            for connector in (*held.others, held.connector):
                await self._cluster.delete(connector.name, SEEN_WITHIN)

    async def _delete_orphans(self, name: str) -> None:
        """Remove what is left where somebody deleted the connector that holds the record."""
        for other in part_names(name):
            found = await self._cluster.get(other)
            if found is not None and _is_part(found, name):
                await self._cluster.delete(other, SEEN_WITHIN)

    # --- pausing -----------------------------------------------------------------------------------------------------

    async def pause(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._pause(await self._found(name))

    async def _pause(self, held: Held) -> None:
        for connector in held.all:
            if connector.state not in ("PAUSED", "STOPPED"):
                await self._cluster.pause(connector.name, SEEN_WITHIN)

    async def resume(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._resume(await self._found(name))

    async def _resume(self, held: Held) -> None:
        """Go on. MirrorMaker 2 would jump over what is no longer retained, and say nothing."""
        held = await self._assigned(held)
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
        return [held.marker.stream for held in (await self._listing()).values()]

    async def get_status(self, name: str) -> StreamStatus:
        return (await self._describe([await self._found(name)]))[0].status

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        if names is not None and len(names) == 1:
            held = await self._held(names[0])
            return await self._describe([held] if held else [])
        listing = await self._listing()
        return await self._describe([held for name, held in listing.items() if names is None or name in names])

    async def _describe(self, streams: Sequence[Held]) -> list[Description]:
        now = datetime.now(UTC)
        stored = await asyncio.gather(*(self._stored(held) for held in streams))
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
        side = Side.SOURCE if _overrides(held.connector) else Side.DESTINATION
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
        if held.marker.cut_off():
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
        stopped = (await self._assigned(await self._found(held.name))).connector.stopped
        if not rewind.applied:
            if not stopped:
                return await self._put_marker(held, held.marker.with_rewind(_given_up(rewind, _RESUMED)))
            naming = Naming.of(held.marker.stream)
            if rewind.start:
                await self._cluster.alter_offsets(held.name, _as_stored(read(rewind.start), naming))
            held = await self._put_marker(held, held.marker.with_rewind(rewind.model_copy(update={"applied": True})))
        if stopped and held.marker.stream.desired_state is DesiredState.RUNNING:
            await self._start_all(await self._assigned(await self._found(held.name)))
        return held

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
        connector = await self._cluster.get(name)
        if connector is None:
            return None
        marker = Marker.read(connector.config)
        if marker is None:
            raise NotOurs(
                f"the Connect cluster has a connector of this name, of {connector.config.get('connector.class')}, and "
                "no stream made it",
                stream=name,
                fix="choose another name, or delete that connector",
            )
        names = build(marker, Side.DESTINATION, self._aliases).others
        found = await asyncio.gather(*(self._cluster.get(other) for other in names))
        return Held(connector, marker, tuple(other for other in found if other is not None and _is_part(other, name)))

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


def _now() -> datetime:
    """With milliseconds, as the record has it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _is_part(connector: Connector, name: str) -> bool:
    return connector.config.get(PART_OF) == name


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


def _overrides(connector: Connector) -> bool:
    """Whether its producer writes to another cluster than the worker's."""
    return "producer.override.bootstrap.servers" in connector.config


def _differing(connector: Connector, config: Mapping[str, str]) -> set[str]:
    there = {key: value for key, value in connector.config.items() if key != "name"}
    return {key for key in there.keys() | config.keys() if there.get(key) != config.get(key)}


def _shown(key: str, value: str) -> str:
    return "[redacted]" if re.search(r"(?i)jaas|passw|secret|token|key$", key) else value
