"""What becomes of the changes of a stream after Debezium has written them to topics.

A Kafka cluster is a destination by itself: its topics are what people read. A database gets the changes from topics
between, by a connector of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from replicator.backends.kafka_connect.debezium.positions import Position, Progress
from replicator.backends.kafka_connect.debezium.source_facts import SourceFacts
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.recipe import ResolvedReplay
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord
from replicator.backends.postgres.identifiers import Table
from replicator.model import Checkpoint, Stream
from replicator.replicator import Description, Finding, ReplayMethod


class Destination(Protocol):
    """One kind of destination. Checks change nothing; changes run again after an interruption."""

    leftovers: str
    """What becomes of rows that the source no longer has, as a clause."""
    holds_rows: bool
    """Whether it has one row for each of the source, which a column that joins is then missing in."""

    # --- a declaration as connectors ---

    def part_names(self, name: str) -> Sequence[str]:
        """Return the names of the connectors that a stream has beside Debezium's."""

    def parts(self, record: StreamRecord) -> dict[str, dict[str, str]]:
        """Return the configurations of these connectors, by name."""

    def settings(self, record: StreamRecord) -> Mapping[str, str]:
        """Return what the destination needs of Debezium's own configuration."""

    # --- checks before a change ---

    async def identity(self, stream: Stream) -> str:
        """Return the id of the cluster or database."""

    async def topics_cluster(self, stream: Stream) -> str | None:
        """Return the id of the Kafka cluster with the topics between; `None` if there are none between."""

    async def refuse_unresolved_logins(self, stream: Stream) -> None:
        """Raise `SecretNotFound` if the worker cannot resolve a placeholder of the destination."""

    async def refuse_unfit(
        self,
        record: StreamRecord,
        source: SourceFacts,
        known: StreamRecord | None,
        claimed: Sequence[StreamRecord],
    ) -> None:
        """Raise what keeps the destination from taking the tables of a source.

        :param record: the identities of both ends, and the tables.
        :param known: the stream that exists; `None` for a new one.
        :param claimed: streams that this process changes or previews.
        """

    async def validate(self, record: StreamRecord) -> None:
        """Validate the configurations of the other connectors with the worker; raise its refusal."""

    async def warnings(self, stream: Stream, source: SourceFacts, new: Sequence[Table]) -> list[Finding]:
        """Return warnings about a change.

        :param new: tables that the stream does not have yet.
        """

    async def refuse_gap(self, record: StreamRecord, progress: Progress) -> None:
        """Raise if the destination would go on behind a gap, or if that is unknown."""

    # --- changes ---

    async def prepare(
        self, record: StreamRecord, source: SourceFacts, *, fresh: bool
    ) -> tuple[StreamRecord, frozenset[Table]]:
        """Claim what the stream writes to, and make what is missing.

        Return the record with it, and the tables of which the destination has not all rows, or not all columns.

        :param fresh: a first snapshot reads every table.
        """

    async def settled(self, record: StreamRecord) -> None:
        """Note that Debezium has been told to read these tables."""

    async def ready(self, record: StreamRecord) -> bool:
        """Set what a connector that does not run needs before it starts, after `refuse_gap`.

        Return whether a connector was stopped for that.
        """

    async def refuse_removal(self, record: StreamRecord) -> None:
        """Raise if what the stream has at the destination cannot be removed now."""

    async def drain(self, deployed: DeployedStream) -> None:
        """Deliver what is on the way before a delete, as `drainBeforeDelete` asks; raise if that cannot be done."""

    async def dispose(self, record: StreamRecord) -> None:
        """Remove what the stream has at the destination, but for what it has delivered."""

    # --- reads ---

    def engine_objects(self, record: StreamRecord) -> Mapping[str, object]:
        """Return the names of what a stream has at its destination."""

    async def progress(self, record: StreamRecord, position: Position) -> Progress:
        """Return how far a stream is, given how far Debezium is."""

    def described(self, deployed: DeployedStream, progress: Progress, found: Description) -> Description:
        """Return the description of the whole stream, given that of Debezium's half."""

    # --- replays ---

    async def resolve(
        self, deployed: DeployedStream, progress: Progress, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> ResolvedReplay | None:
        """Return the replay of what the topics between retain; `None` for one by the source, or without such topics."""

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> StreamRecord:
        """Apply a replay to the topics between, if there are any, and return the record with those that it made."""
