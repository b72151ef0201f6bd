"""The protocol by which `ConnectorLife` calls a backend of the family."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from replicator.backends.kafka_connect.cluster import Connector
from replicator.backends.kafka_connect.deployed import DeployedStream, Listed, Parts
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord
from replicator.errors import EngineRefused, EngineUnavailable, StreamNotFound
from replicator.model import Checkpoint, Stream
from replicator.replicator import Description, EndHints, Finding, Proposal, ReplayMethod, ReplayPlan

Facts = TypeVar("Facts")
Start = TypeVar("Start")
Positions = TypeVar("Positions")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A created stream that may start.

    :param record: the record with its start position.
    :param listed: the names of all connectors that were listed with it.
    """

    record: StreamRecord
    listed: frozenset[str]


@dataclass(frozen=True, slots=True)
class ResolvedReplay:
    """A replay that was resolved against the records that the source retains.

    :param start: the offsets to set, as a checkpoint's text.
    :param until: the offsets at which everything has been copied again, as a checkpoint's text.
    :param extent: its size, as in `12 partitions`.
    :param topics: ids of topics to add to the record.
    """

    plan: ReplayPlan
    start: str
    until: str
    extent: str
    topics: Mapping[str, str] = field(default_factory=dict)


class Recipe(Protocol[Facts, Start, Positions]):
    """One backend of the Kafka Connect family.

    Checks change nothing. Methods that change a stream are called for one stream at a time. `Facts` is the result of
    the checks before a change, `Start` the start of a new stream, and `Positions` what Connect stores for a stream.
    """

    kind: str

    # --- a declaration as connectors ---

    def part_names(self, name: str) -> Sequence[str]:
        """Return the names of all auxiliary connectors that a stream can have."""

    def parts(self, record: StreamRecord) -> Parts:
        """Return the configurations of a stream's connectors."""

    def moves(self, old: StreamRecord, new: StreamRecord) -> bool:
        """Tell whether the old declaration's offsets are meaningless in the new one."""

    def needs_start(self, stream: Stream) -> bool:
        """Tell whether the stream's connector must not run before its start position is set."""

    # --- adoption ---

    @property
    def connector_classes(self) -> Collection[str]:
        """Return the classes of connectors that a stream may take over."""

    @property
    def kept_together(self) -> Collection[Collection[str]]:
        """Return groups of settings, such as those of a login, which a stream keeps or replaces together."""

    @property
    def never_kept(self) -> Collection[str]:
        """Return the settings that an adoption replaces."""

    async def propose(self, connector: Connector, source: EndHints, destination: EndHints) -> Proposal:
        """Return the stream for a connector that belongs to no stream, without `kept`; raise why none can be."""

    async def adopted(self, connector: Connector, stream: Stream) -> StreamRecord:
        """Return the record of a stream that takes over a connector, as of before the adoption.

        :raises NotOurs: the connector is not the one that the declaration describes.
        """

    async def refuse_adoption(self, connector: Connector, record: StreamRecord) -> None:
        """Raise if a connector cannot be taken over now, or not without harm; after the checks of `look`."""

    # --- checks before a change ---

    async def recent(self) -> Listed:
        """Return the backend's streams in a recent listing."""

    def forget_errors(self) -> None:
        """Discard cached errors, so that the next check retries."""

    async def claim(self, stream: Stream, deployed: DeployedStream | None) -> StreamRecord:
        """Return the stream's sources and destinations, as a record."""

    async def look(self, stream: Stream, claimed: Sequence[StreamRecord], deployed: DeployedStream | None) -> Facts:
        """Check both ends and all other streams; raise an error for a refusal.

        :param claimed: streams that this process changes or previews, and that no listing has yet.
        """

    async def validate(self, stream: Stream, facts: Facts, deployed: DeployedStream | None) -> None:
        """Validate the configuration with the worker; raise its refusal, with the property."""

    async def warnings(
        self, stream: Stream, facts: Facts, claim: StreamRecord, deployed: DeployedStream | None
    ) -> list[Finding]:
        """Return warnings about the change."""

    def positioned(self, deployed: DeployedStream) -> Sequence[Connector]:
        """Return the connectors that go on from a position, and of which `refuse_gap` tells whether they can."""

    async def refuse_gap(self, record: StreamRecord) -> None:
        """Raise if the stream would start behind a gap or in the wrong place, or if that is unknown."""

    async def refuse_return(self, record: StreamRecord, stream: Stream) -> None:
        """Raise if a running stream would return to a topic that it left, behind a gap.

        :param record: of the current declaration.
        :param stream: the new declaration.
        """

    # --- changes ---

    async def record(self, stream: Stream, facts: Facts, deployed: DeployedStream | None) -> StreamRecord:
        """Return the record to write.

        :param deployed: the stream whose offsets stay valid; `None` for a new one.
        """

    async def find_start(self, stream: Stream) -> Start | None:
        """Return a new stream's start; `None` for the engine's own default. Raise an error for a refusal."""

    async def prepare(self, record: StreamRecord, start: Start | None) -> Prepared:
        """Prepare a stream whose connector was created stopped: win against other claims, and set the start position.

        Runs again after an interruption.
        """

    async def moved(self, record: StreamRecord, before: StreamRecord) -> StreamRecord:
        """Return the record of a stream that starts afresh in another place.

        :param before: of the place that it leaves.
        """

    def starts_idle(self, record: StreamRecord) -> bool:
        """Tell whether the main connector of a new stream has nothing to do."""

    async def may_idle(self, deployed: DeployedStream, connector: str) -> bool:
        """Tell whether a connector of the stream may run without a task now."""

    # --- objects outside Connect ---

    has_objects: bool
    """Whether streams have objects outside Connect, which are made in `prepare` and removed in `dispose`."""

    def is_writable(self, facts: Facts) -> bool:
        """Tell whether the worker takes a configuration now. It may connect to the source to validate one."""

    def must_stop(self, old: StreamRecord, new: StreamRecord) -> bool:
        """Tell whether the connector must not run while the declaration changes in place."""

    async def alter(self, old: StreamRecord, new: StreamRecord) -> StreamRecord:
        """Change the objects for another declaration of the same places, and return the record to write with it."""

    async def follow_up(self, record: StreamRecord) -> None:
        """Finish a change after its configuration was written. Runs again at each change."""

    async def ready(self, record: StreamRecord) -> bool:
        """Set what a connector that does not run needs before it starts, after `refuse_gap`.

        Return whether a connector was stopped for that.
        """

    async def refuse_removal(self, record: StreamRecord) -> None:
        """Raise if the objects of a stream cannot be removed now. Nothing of it is removed then."""

    async def drain(self, deployed: DeployedStream) -> None:
        """Deliver what is on the way before a delete, as `drainBeforeDelete` asks; raise if that cannot be done."""

    async def dispose(self, record: StreamRecord, *, undone: bool = False) -> None:
        """Remove the objects of a stream whose connector is stopped. Those that are gone are no error.

        :param undone: a creation that failed is undone: what it has taken over is left as it was.
        """

    # --- reads ---

    def as_found(self, deployed: DeployedStream) -> Stream:
        """Return the declaration, with foreign changes of the configuration as `options`."""

    def outline(self, deployed: DeployedStream) -> Description:
        """Return the description of a stream by a listing alone."""

    async def measure(self, streams: Sequence[DeployedStream]) -> list[Description]:
        """Return status, objects and findings of streams, without those that were removed meanwhile."""

    # --- replays ---

    async def positions(self, record: StreamRecord) -> Positions:
        """Return how far a stream is by the offsets that Connect stores; raise `StreamNotFound`."""

    def is_done(self, record: StreamRecord, replay: ReplayRecord, positions: Positions) -> bool:
        """Tell whether a replay has passed the offsets at which it was requested, or has ended otherwise."""

    async def resolve(
        self, deployed: DeployedStream, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[ResolvedReplay, Positions]:
        """Return what a replay would do now, and the offsets on which that is based; raise an error for a refusal."""

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> tuple[StreamRecord, ReplayRecord]:
        """Set the offsets of a replay, or what else makes it run when the connector starts. The connector is stopped.

        Return the record with what was made for it, and the replay with its end, where that is known only now. Runs
        again after an interruption.
        """

    async def aclose(self) -> None:
        """Cancel what runs, and close connections."""


async def answer_or_error(positions: Awaitable[Positions]) -> Positions | EngineRefused | EngineUnavailable | None:
    """Return a stream's positions, or why they cannot be read; `None` if the stream no longer exists.

    Errors of one connector do not affect the others.
    """
    try:
        return await positions
    except StreamNotFound:
        return None
    except (EngineRefused, EngineUnavailable) as error:
        return error


class ConnectOnly(Generic[Facts]):
    """The part of a recipe for streams that have no objects outside Connect."""

    has_objects = False

    def is_writable(self, facts: Facts) -> bool:
        return True

    def must_stop(self, old: StreamRecord, new: StreamRecord) -> bool:
        return False

    async def alter(self, old: StreamRecord, new: StreamRecord) -> StreamRecord:
        return new

    async def follow_up(self, record: StreamRecord) -> None:
        pass

    async def ready(self, record: StreamRecord) -> bool:
        return False

    async def refuse_removal(self, record: StreamRecord) -> None:
        pass

    async def drain(self, deployed: DeployedStream) -> None:
        pass

    async def dispose(self, record: StreamRecord, *, undone: bool = False) -> None:
        pass
