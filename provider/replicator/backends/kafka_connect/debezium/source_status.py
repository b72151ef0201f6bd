"""How far the source is ahead of its streams: slots, and the heartbeats that have arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from replicator.backends.kafka_connect.debezium.details import details_of, heartbeat_table, slot_name
from replicator.backends.kafka_connect.debezium.positions import Position
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.postgres import slots
from replicator.backends.postgres.endpoint import PostgresEndpoint, postgres_endpoint
from replicator.backends.postgres.identifiers import literal
from replicator.backends.postgres.lsn import write_lsn
from replicator.backends.postgres.session import Session, Sessions
from replicator.backends.postgres.slots import Slot
from replicator.errors import ReplicatorError


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last heartbeat that is at the destination, with all that was committed before it.

    :param at: when it was written, by the source's clock.
    :param age: seconds since then, by the source's clock.
    """

    at: datetime
    age: float


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A stream's source.

    :param slot: `None` if it does not exist.
    :param heartbeat: `None` if none has arrived, or none is written.
    """

    slot: Slot | None
    heartbeat: Heartbeat | None


async def look(
    sessions: Sessions, streams: Sequence[tuple[DeployedStream, Position]]
) -> dict[str, SourceStatus | ReplicatorError]:
    """Return the sources of streams by name, asked once per database and role; or why one is not reachable."""
    groups: dict[PostgresEndpoint, list[tuple[DeployedStream, Position]]] = {}
    for deployed, position in streams:
        groups.setdefault(postgres_endpoint(deployed.record.stream.source, "source"), []).append((deployed, position))
    found: dict[str, SourceStatus | ReplicatorError] = {}

    async def one(at: PostgresEndpoint) -> None:
        asked = groups[at]
        try:
            session = sessions.at(at)
            names = {deployed.name: slot_name(deployed.record.stream) for deployed, _ in asked}
            there = await slots.look(session, [*names.values()])
            beats = await _heartbeats(session, asked)
            found.update({name: SourceStatus(there.get(slot), beats.get(name)) for name, slot in names.items()})
        except ReplicatorError as error:
            found.update({deployed.name: error for deployed, _ in asked})

    await asyncio.gather(*map(one, groups))
    return found


async def _heartbeats(session: Session, streams: Sequence[tuple[DeployedStream, Position]]) -> Mapping[str, Heartbeat]:
    """Return the last heartbeat that arrived, by stream. A position after the LSN in a row is after its commit."""
    asked = [
        (deployed, position.lsn)
        for deployed, position in streams
        if position.lsn is not None and details_of(deployed.record).has_helpers
    ]
    if not asked:
        return {}
    present = await session.rows(
        "SELECT name FROM unnest(%(names)s::text[], %(tables)s::text[]) AS t(name, tab) "
        "WHERE to_regclass(tab) IS NOT NULL",
        {
            "names": [deployed.name for deployed, _ in asked],
            "tables": [heartbeat_table(deployed.record.stream).sql for deployed, _ in asked],
        },
    )
    there = {row["name"] for row in present}
    parts = [
        f"(SELECT {literal(deployed.name)} AS name, at, extract(epoch FROM clock_timestamp() - at)::float AS age "  # noqa: S608
        f"FROM {heartbeat_table(deployed.record.stream).sql} WHERE lsn <= {literal(write_lsn(lsn))}::pg_lsn "
        "ORDER BY id DESC LIMIT 1)"
        for deployed, lsn in asked
        if deployed.name in there
    ]
    if not parts:
        return {}
    rows = await session.rows(" UNION ALL ".join(parts))
    return {row["name"]: Heartbeat(row["at"], max(0.0, row["age"])) for row in rows}
