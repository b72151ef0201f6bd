"""kafka-mirror: the Replicator of MirrorMaker 2."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from replicator.authref import Redactor
from replicator.backends.connect.brokers import RECENT
from replicator.backends.connect.cluster import ConnectCluster, ConnectorState
from replicator.backends.connect.marker import Marker
from replicator.backends.connect.mirror import preflight
from replicator.backends.connect.mirror.claims import Claims
from replicator.backends.connect.mirror.connectors import BACKEND, Parts, Side, build
from replicator.backends.connect.mirror.creating import Creating
from replicator.backends.connect.mirror.declarations import begins_at_the_beginning
from replicator.backends.connect.mirror.ends import Ends, View, look, rebuilt, recorded_ids
from replicator.backends.connect.mirror.neighbours import HOLDS, PATIENCE, Mirrors, Neighbours
from replicator.backends.connect.mirror.rewinding import Rewinding, given_up_all
from replicator.backends.connect.mirror.running import SEEN_WITHIN, Running
from replicator.backends.connect.mirror.starts import Starts, recorded_starts
from replicator.backends.connect.mirror.status import Held
from replicator.backends.connect.mirror.streams import Streams, differing, gone, record
from replicator.backends.connect.mirror.surroundings import Surroundings
from replicator.backends.connect.mirror.topics import Naming, taken
from replicator.backends.connect.recent import Recent
from replicator.backends.connect.rest import ConnectRest
from replicator.backends.connect.workers import access
from replicator.backends.declarations import canonical, with_canonical_options
from replicator.backends.ownership import may_remove, refuse_elsewhere, settle_owner
from replicator.backends.settings import DEFAULT_ALIASES, ConnectConfig
from replicator.errors import RecordUnreadable, ReplayNotRetained, ReplicatorError
from replicator.model import Checkpoint, DesiredState, Owner, Stream, StreamStatus
from replicator.replicator import Adoption, Description, Finding, ReplayMethod, ReplayPlan, ReplayProgress, Severity

# Of the process: a program may have mirrors on several Connect clusters, and each cluster has a driver of its own.
_CLAIMS = Claims(RECENT, HOLDS)
_PREVIEWED = Claims(HOLDS, HOLDS)


def open_mirror(address: str, settings: ConnectConfig) -> KafkaMirror:
    """The mirrors of the Connect cluster at an address; raise `SecretNotFound` where the login cannot be read."""
    redactor = Redactor()
    aliases = {**DEFAULT_ALIASES, **settings.secret_providers}

    def rest(at: str) -> ConnectRest:
        return ConnectRest(access(at, settings, redactor, os.environ), redact=redactor)

    elsewhere = sorted({settings.address or address, *settings.regions.values()} - {address})
    neighbours = Neighbours([ConnectCluster(rest(at), patience=PATIENCE) for at in elsewhere])
    return KafkaMirror(
        ConnectCluster(rest(address)),
        address,
        aliases=aliases,
        redactor=redactor,
        neighbours=neighbours,
        claims=_CLAIMS,
        previewed=_PREVIEWED,
    )


class KafkaMirror:
    """Streams from Kafka to Kafka, as connectors of one Connect cluster.

    :param address: the Connect cluster's.
    :param aliases: names of the worker's ConfigProviders, by scheme of reference.
    :param neighbours: other Connect clusters whose mirrors matter to those here.
    :param claims: what this process changes, here and elsewhere.
    :param previewed: what this process has looked at before a change.
    """

    kind = BACKEND

    def __init__(
        self,
        cluster: ConnectCluster,
        address: str,
        *,
        aliases: Mapping[str, str],
        redactor: Redactor,
        neighbours: Neighbours,
        claims: Claims,
        previewed: Claims,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._cluster = cluster
        self._address = address
        self._neighbours = neighbours
        self._aliases = aliases
        self._ends = Ends(environ, redactor)
        self._streams = Streams(cluster, self._ends, aliases)
        self._running = Running(cluster, self._streams)
        self._starts = Starts(cluster, self._ends, self._streams)
        self._mirrors = Mirrors(cluster, RECENT)
        self._surroundings = Surroundings(self._mirrors, neighbours, claims)
        self._creating = Creating(cluster, self._streams, self._starts, self._surroundings, aliases)
        self._rewinding = Rewinding(self._ends, self._streams, self._running)
        self._identity = Recent(cluster.identity, RECENT)
        self._claims = claims
        self._previewed = previewed

    # --- making and changing -----------------------------------------------------------------------------------------

    async def upsert_stream(self, stream: Stream) -> None:
        stream = with_canonical_options(stream.model_copy(update={"backend": self.kind}))
        async with self._cluster.slot(stream.name):
            self._mirrors.forget_error()
            self._identity.forget_error()
            held = None if await self._seems_new(stream) else await self._streams.get(stream.name)
            while not await self._make_it_so(stream, held):
                held = await self._streams.get(stream.name)

    async def _seems_new(self, stream: Stream) -> bool:
        """Whether a listing of the last second has no such stream. Connect itself refuses a name that is taken."""
        updated = stream.owner is not None and stream.owner.claim
        listed = (await self._mirrors.recent()).listed
        return not updated and stream.name not in listed.streams and stream.name not in listed.unreadable

    async def _make_it_so(self, stream: Stream, held: Held | None) -> bool:
        """Make or change a stream; False, and nothing was done, where there is one that `held` does not know."""
        if held is None:
            refuse_elsewhere(stream.name, stream.owner, await self.identity())
        owner = settle_owner(held.marker.stream if held else None, stream)
        wanted = stream.model_copy(update={"owner": owner, "backend": self.kind})
        claim = await self._claim_of(wanted, held)
        if held is not None and not held.marker.making and _is_as_declared(held.marker, claim):
            declared = held.marker.stream.model_copy(update={"owner": wanted.recorded().owner})
            await self._reconcile(held, held.marker.model_copy(update={"stream": declared}))
            return True
        with self._claims.claim(self._address, claim) as claimed:
            return await self._change(wanted, held, claimed)

    async def _change(self, wanted: Stream, held: Held | None, claimed: Sequence[Marker]) -> bool:
        """Make a stream, or give it another declaration; False as `Creating.create` says it.

        :param claimed: other streams that are changed meanwhile.
        """
        side, seen = await (self._checked if held else self._looked)(wanted, claimed, held)
        marker = await self._marker(wanted, side, seen, held)
        if held is None or held.marker.making:
            return await self._creating.create(marker, side, held)
        if _moves(held.marker, marker):
            settled = self._rewinding.settled(held, await self._streams.positions(held.marker.stream))
            ended = given_up_all(settled, "the stream was moved meanwhile")
            fresh = await self._marker(wanted, side, seen, None)
            starts = recorded_starts(await self._starts.earliest(wanted), {})
            marker = fresh.model_copy(update={"rewinds": ended.rewinds, "starts": starts})
            await self._running.stop(held)
            await self._cluster.reset_offsets(wanted.name)
        else:
            await self._running.before_change(held, wanted)
            await self._running.pause_first(held, wanted)
        await self._apply(held, build(marker, side, self._aliases))
        await self._running.set_state(wanted)
        return True

    async def _claim_of(self, stream: Stream, held: Held | None) -> Marker:
        seen = await look(self._ends, stream, recorded_ids(held.marker if held else None, stream))
        return seen.claim(stream)

    async def _checked(
        self, stream: Stream, claimed: Sequence[Marker] = (), held: Held | None = None
    ) -> tuple[Side, View]:
        """What is refused before anything is changed."""
        side, seen = await self._looked(stream, claimed, held)
        await preflight.refuse_invalid(self._cluster, build(Marker(stream=stream), side, self._aliases).source, stream)
        return side, seen

    async def _looked(
        self, stream: Stream, claimed: Sequence[Marker] = (), held: Held | None = None
    ) -> tuple[Side, View]:
        """The same but for the engine's own checks, which the creation of a connector begins with.

        :param held: what there is. If it is a claim itself, the end of its creation decides between it and others.
        """
        routes = await self._surroundings.lately(stream, claimed)
        if held is not None and held.marker.making:
            routes = [route for route in routes if route.settled]
        worker = (await self._identity.get()).kafka_cluster_id
        recorded = recorded_ids(held.marker if held else None, stream)
        return await preflight.check(self._cluster, worker, self._ends, stream, routes, self._aliases, recorded)

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
        was, now = _places(known.stream), _places(stream)
        return Marker(
            stream=stream,
            source_cluster=seen.id("source") or (known.source_cluster if was[0] == now[0] else None),
            destination_cluster=seen.id("destination") or (known.destination_cluster if was[1] == now[1] else None),
            side=side.value,
            topics={**topics, **known.topics},  # positions are of the topics that were there when they were made
            rewinds=known.rewinds,
            starts=known.starts,
        )

    async def _reconcile(self, held: Held, marker: Marker) -> None:
        """The declaration is the same: put right what the engine's side says otherwise, and nothing else."""
        await self._running.before_change(held, marker.stream)
        parts = build(marker, held.side, self._aliases)
        if marker == held.marker:
            parts = parts.with_record_of(held.connector.config)
        await self._running.pause_first(held, marker.stream)
        await self._apply(held, parts)
        for connector in held.all:
            if connector.failed and marker.stream.desired_state is DesiredState.RUNNING:
                await self._cluster.restart_failed(connector.name)
        await self._running.set_state(marker.stream)

    async def _apply(self, held: Held, parts: Parts) -> None:
        """Write the configurations that differ."""
        there = {connector.name: connector for connector in held.all}
        for name in there.keys() - parts.others.keys() - {held.name}:
            await self._cluster.delete(name, SEEN_WITHIN)
        for name, config in {held.name: parts.source, **parts.others}.items():
            if name not in there:
                await self._creating.create_part(name, config)
            elif differing(there[name], config):
                await self._cluster.put_config(name, config, SEEN_WITHIN)

    async def adopt_stream(self, stream: Stream, *, dry_run: bool = False) -> Adoption:
        known = await self._streams.get(stream.name) is not None
        if not known and not dry_run:
            await self.upsert_stream(stream.model_copy(update={"owner": None}))
        elif not known:
            await self._checked(stream)
        return Adoption(known=known)

    # --- removing ----------------------------------------------------------------------------------------------------

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        async with self._cluster.slot(name):
            connector, parts = await asyncio.gather(self._cluster.look(name), self._streams.parts(name))
            held = None if connector is None else Held(connector, record(connector), parts)
            if held is None:
                refuse_elsewhere(name, owner, await self.identity())
            if held is not None and not may_remove(held.marker.stream, owner):
                return False
            for part in parts:  # also those that somebody left who deleted the one with the record
                await self._cluster.delete(part.name, SEEN_WITHIN)
            token = None
            if held is not None:
                await self._remove(held)
                token = held.marker.stream.owner.token if held.marker.stream.owner else None
            self._claims.drop(self._address, name, token)
            return True

    async def _remove(self, held: Held) -> None:
        """Remove the connector with the record.

        What a cut leaves has no offsets, with which MirrorMaker 2 would begin at the beginning. So a stream that begins
        elsewhere is one whose start is to be set again before they go.
        """
        if not begins_at_the_beginning(held.marker.stream):
            await self._cluster.stop(held.name, SEEN_WITHIN)
            await self._running.put_marker(held, held.marker.model_copy(update={"making": True}))
        await self._cluster.delete(held.name, SEEN_WITHIN)

    # --- pausing -----------------------------------------------------------------------------------------------------

    async def pause(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._running.pause(await self._streams.found(name))

    async def resume(self, name: str) -> None:
        async with self._cluster.slot(name):
            await self._running.resume(await self._streams.found(name))

    # --- looking -----------------------------------------------------------------------------------------------------

    async def list_streams(self) -> list[Stream]:
        return [self._streams.as_found(held) for held in (await self._streams.listing()).streams.values()]

    async def get_status(self, name: str) -> StreamStatus:
        found = await self.describe([name])
        if not found:
            raise gone(name)
        return found[0].status

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        return await self._identified(await self._described(names))

    async def _identified(self, found: list[Description]) -> list[Description]:
        """Name the Connect cluster, by which a state knows an address that leads elsewhere."""
        own = {"connectCluster": await self.identity()}
        return [item.model_copy(update={"engine_objects": {**item.engine_objects, **own}}) for item in found]

    async def _described(self, names: Sequence[str] | None) -> list[Description]:
        if names is not None and len(names) == 1:
            try:
                held = await self._streams.get(names[0])
            except RecordUnreadable as error:
                return [Description.unreadable(names[0], error)]
            return await self._streams.describe([held] if held else [])
        listed = await self._streams.listing()
        wanted = [held for name, held in listed.streams.items() if names is None or name in names]
        return await self._streams.describe(wanted) + listed.failures(names)

    async def overview(self) -> list[Description]:
        return await self._identified(await self._streams.overview())

    async def identity(self) -> str | None:
        return (await self._identity.get()).kafka_cluster_id

    async def preflight(self, stream: Stream) -> list[Finding]:
        stream = with_canonical_options(stream.model_copy(update={"backend": self.kind}))
        await self._cluster.identity()  # a worker that is away is no finding about the stream
        held = None
        try:
            held = await self._streams.get(stream.name)
            if held is None:
                refuse_elsewhere(stream.name, stream.owner, await self.identity())
            settle_owner(held.marker.stream if held else None, stream)
            claim = await self._claim_of(stream, held)
            with self._previewed.claim(self._address, claim) as previewed:
                claimed = [*previewed, *self._claims.of_others(self._address, stream.name)]
                _, seen = await self._checked(stream, claimed, held)
            if held is None:
                await self._starts.find(stream)
            elif not held.marker.making and not _moves(held.marker, claim):
                await self._running.refuse_change(held, stream)
        except ReplicatorError as error:
            return [Finding.of(error, Severity.ERROR)]
        found = await preflight.warnings(self._ends, stream, seen, new=held is None)
        found += await self._surroundings.doubts(claim)
        same_places = held is not None and _places(held.marker.stream) == _places(stream)
        if held is not None and same_places and (told := rebuilt(held.marker, seen)):
            text = f"{told}; so all that the source retains is copied again"
            found.append(Finding(severity=Severity.WARNING, code=ReplayNotRetained.code, message=text))
        return found

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
            held = await self._streams.found(name)
            runs = held.connector.state is ConnectorState.RUNNING
            with self._streams.busy(name, "a replay sets its offsets back") if runs else nullcontext():
                return await self._rewinding.replay(held, start, key, method, target)

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        return await self._rewinding.progress(await self._streams.found(name), key)

    async def plan_replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayPlan:
        return await self._rewinding.plan(await self._streams.found(name), start, method, target)

    async def aclose(self) -> None:
        await self._mirrors.aclose()
        await self._neighbours.aclose()


def _moves(old: Marker, new: Marker) -> bool:
    """Whether positions of before mean nothing any more: another source, or topics that are empty at first."""
    if Naming.of(old.stream) != Naming.of(new.stream):
        return True
    (source_was, destination_was), (source_now, destination_now) = _places(old.stream), _places(new.stream)
    return _is_another(source_was, old.source_cluster, source_now, new.source_cluster) or _is_another(
        destination_was, old.destination_cluster, destination_now, new.destination_cluster
    )


def _places(stream: Stream) -> tuple[str, str]:
    declared = canonical(stream)
    return declared.source.uri, declared.destination.uri


def _is_another(was: str, before: str | None, now: str, after: str | None) -> bool:
    """Whether a cluster is another one, by its id; by its address where the id is not known."""
    return before != after if before and after else was != now


def _is_as_declared(record: Marker, claim: Marker) -> bool:
    """Whether a record is of the same declaration, and of clusters that still answer at its addresses."""
    declared, wanted = (
        canonical(item.stream.recorded()).model_copy(update={"owner": None}) for item in (record, claim)
    )
    return declared == wanted and not _moves(record, claim)
