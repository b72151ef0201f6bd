"""What the tests of the life cycle begin with: inputs, streams, a clock, and a replicator that can be watched."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from replicator.backends.memory import MemoryReplicator
from replicator.lifecycle.check import Checked, Identity, check
from replicator.lifecycle.config import ProviderConfig, parse_config
from replicator.lifecycle.connections import Connections
from replicator.model import Checkpoint, Conflict, DesiredState, Drain, Mode, OnDelete, Owner, Stream, WaitFor
from replicator.replicator import Description

URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"
OTHER_URN = "urn:pulumi:prod::shop::replicator:index:Stream::orders"
SQLITE = {"kind": "sqlite", "uri": "sqlite:///srv/orders.db"}
S3 = {"kind": "s3", "uri": "s3://bucket/orders", "authRef": "env://S3_*"}
POSTGRES = {"kind": "postgres", "uri": "postgres://app@db.example/orders"}
KAFKA = {"kind": "kafka", "uri": "kafka://broker.example:9092"}


def config(**blocks: Any) -> ProviderConfig:
    """A configuration that is right."""
    parsed, failures = parse_config(blocks)
    assert failures == []
    return parsed


EVERYWHERE = config(litestream={}, memory={"address": "unix:///mem"})
"""Every backend has an address."""


def inputs(**changes: Any) -> dict[str, Any]:
    """Inputs of a litestream stream; a value of `...` leaves the property out."""
    given = {"source": SQLITE, "destination": S3, **changes}
    return {key: value for key, value in given.items() if value is not ...}


def checked(
    given: dict[str, Any],
    unknown: Sequence[str] = (),
    old: dict[str, Any] | None = None,
    urn: str = URN,
    configured: ProviderConfig | None = None,
) -> Checked:
    return check(given, unknown, old or {}, Identity.of_urn(urn), configured or EVERYWHERE)


def stream(**changes: Any) -> Stream:
    """A memory stream, from camelCase properties."""
    return Stream.model_validate(inputs(**{"name": "orders", "backend": "memory"} | changes))


class Clock:
    """Seconds since the epoch that only a test moves on."""

    def __init__(self, now: float = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Watched(MemoryReplicator):
    """A memory replicator that counts listings and effects.

    :param gate: every listing waits for it, if given.
    :param broken: every listing raises it, if given.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock or Clock())
        self.listings: list[Sequence[str] | None] = []
        self.upserts = 0
        self.gate: asyncio.Event | None = None
        self.broken: Exception | None = None

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        self.listings.append(names)
        if self.gate is not None:
            await self.gate.wait()
        if self.broken is not None:
            raise self.broken
        return await super().describe(names)

    async def upsert_stream(self, stream: Stream) -> None:
        self.upserts += 1
        await super().upsert_stream(stream)


def connected(replicator: MemoryReplicator, **blocks: Any) -> Connections:
    """Connections that all lead to one replicator."""
    return Connections(config(**({"memory": {"address": "unix:///mem"}} | blocks)), lambda kind, address: replicator)


names = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
instants = st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
checkpoints = st.builds(Checkpoint, lsn=words, wall=st.none() | instants)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
streams = st.builds(
    Stream,
    name=names,
    source=st.builds(dict, kind=st.just("postgres"), uri=st.just("postgres://a/b"), region=st.none() | st.just("eu")),
    destination=st.builds(dict, kind=st.just("kafka"), uri=names.map("kafka://{}".format)),
    backend=st.sampled_from(["memory", "litestream"]),
    mode=st.sampled_from(Mode),
    include=st.lists(words, max_size=3).map(tuple),
    exclude=st.lists(words, max_size=3).map(tuple),
    filter=st.none() | words,
    conflict=st.sampled_from(Conflict),
    checkpoint_interval=st.none() | st.sampled_from(["1s", "60s", "90s", "1h", "250ms"]),
    desired_state=st.sampled_from(DesiredState),
    start_from=st.none() | st.sampled_from(["earliest", "latest"]) | checkpoints,
    wait_for=st.sampled_from(WaitFor),
    deletion_protection=st.booleans(),
    purge_destination=st.booleans(),
    drain_before_delete=st.sampled_from(Drain),
    bookmarks=st.lists(st.sampled_from(["a", "before-2026", "z9"]), max_size=2).map(tuple),
    on_delete=st.sampled_from(OnDelete),
    options=st.dictionaries(words, st.integers() | words | st.lists(words, max_size=2), max_size=3),
    owner=st.none() | st.builds(Owner, urn=words, token=st.none() | words),
)
