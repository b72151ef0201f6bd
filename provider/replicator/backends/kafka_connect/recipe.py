"""What a backend adds to the life of its connectors: one protocol, which `ConnectorLife` calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from replicator.backends.kafka_connect.deployed import DeployedStream, Listed, Parts
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord
from replicator.model import Checkpoint, Stream
from replicator.replicator import Description, Finding, ReplayMethod, ReplayPlan

Facts = TypeVar("Facts")
Start = TypeVar("Start")
Positions = TypeVar("Positions")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stream that is created and may start.

    :param record: with its start.
    :param listed: the names of all connectors that were listed beside it.
    """

    record: StreamRecord
    listed: frozenset[str]


@dataclass(frozen=True, slots=True)
class ResolvedReplay:
    """A replay that was resolved against what the source retains.

    :param start: the positions to set, as a checkpoint's text.
    :param until: the positions at which it has repeated all that was copied, as a checkpoint's text.
    :param extent: how much it sets, as in `12 partitions`.
    :param topics: ids of topics to add to the record.
    """

    plan: ReplayPlan
    start: str
    until: str
    extent: str
    topics: Mapping[str, str] = field(default_factory=dict)


class Recipe(Protocol[Facts, Start, Positions]):
    """One backend of the Kafka Connect family.

    Looks change nothing. What changes something is called for one stream at a time. `Facts` is what a look before a
    change gives, `Start` where a new stream begins, and `Positions` what Connect stores of a stream.
    """

    kind: str

    # --- a declaration as connectors ---

    def part_names(self, name: str) -> Sequence[str]:
        """Return the names of all connectors that a stream can have beside the one with its record."""

    def parts(self, record: StreamRecord) -> Parts:
        """Return the configurations of a stream's connectors."""

    def moves(self, old: StreamRecord, new: StreamRecord) -> bool:
        """Tell whether the positions of the old declaration mean nothing in the new one."""

    def needs_start(self, stream: Stream) -> bool:
        """Tell whether the stream's connector must not run before its start is set."""

    # --- looks before a change ---

    async def recent(self) -> Listed:
        """Return the backend's streams, as a recent listing has them."""

    def forget_errors(self) -> None:
        """Discard recent answers that were errors, so that the next look asks again."""

    async def claim(self, stream: Stream, deployed: DeployedStream | None) -> StreamRecord:
        """Return what the stream would read and write, as a record."""

    async def look(self, stream: Stream, claimed: Sequence[StreamRecord], deployed: DeployedStream | None) -> Facts:
        """Look at both ends and at all other streams; raise what is refused.

        :param claimed: streams that this process changes or previews, and that no listing has yet.
        """

    async def validate(self, stream: Stream, facts: Facts) -> None:
        """Let the worker check the configuration; raise what it refuses, with the property."""

    async def warnings(
        self, stream: Stream, facts: Facts, claim: StreamRecord, deployed: DeployedStream | None
    ) -> list[Finding]:
        """Return what a person should know before the change."""

    async def refuse_gap(self, record: StreamRecord) -> None:
        """Raise where the stream would start behind a gap or in the wrong place, or where that cannot be seen."""

    async def refuse_return(self, record: StreamRecord, stream: Stream) -> None:
        """Raise where a running stream would return to something it left, behind a gap.

        :param record: of the present declaration.
        :param stream: the new declaration.
        """

    # --- changes ---

    async def record(self, stream: Stream, facts: Facts, deployed: DeployedStream | None) -> StreamRecord:
        """Return the record to write.

        :param deployed: the stream whose positions stay valid; `None` for one that begins.
        """

    async def find_start(self, stream: Stream) -> Start | None:
        """Return where a new stream begins; `None` where that is the engine's own default. Raise what is refused."""

    async def prepare(self, record: StreamRecord, start: Start | None) -> Prepared:
        """Prepare a stream whose connector is created and stopped: win against others, and set the start.

        Runs again after a cut.
        """

    async def moved(self, record: StreamRecord) -> StreamRecord:
        """Return the record of a stream that begins anew in another place."""

    def starts_idle(self, record: StreamRecord) -> bool:
        """Tell whether the main connector of a stream that was just created has nothing to do."""

    async def may_idle(self, deployed: DeployedStream, connector: str) -> bool:
        """Tell whether a connector of the stream may run without a task now."""

    # --- measures ---

    def as_found(self, deployed: DeployedStream) -> Stream:
        """Return the declaration, with what somebody changed in the configuration as `options`."""

    def outline(self, deployed: DeployedStream) -> Description:
        """Return what a listing alone tells of a stream."""

    async def measure(self, streams: Sequence[DeployedStream]) -> list[Description]:
        """Return status, objects and findings of streams, without those that were removed meanwhile."""

    # --- replays ---

    async def positions(self, stream: Stream) -> Positions:
        """Return what Connect stores of a stream; raise `StreamNotFound`."""

    def is_done(self, replay: ReplayRecord, positions: Positions) -> bool:
        """Tell whether a replay has passed the positions at which it was asked for, or has ended otherwise."""

    async def resolve(
        self, deployed: DeployedStream, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[ResolvedReplay, Positions]:
        """Return what a replay would do now, and the positions that this is said of; raise what is refused."""

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> None:
        """Set the positions of a replay. The connector is stopped."""

    async def aclose(self) -> None:
        """End what runs, and close connections."""
