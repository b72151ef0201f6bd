"""The slots of streams, asked once per database and role."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from replicator.backends.kafka_connect.debezium.details import slot_name
from replicator.backends.postgres import slots
from replicator.backends.postgres.endpoint import PostgresEndpoint, postgres_endpoint
from replicator.backends.postgres.session import Sessions
from replicator.backends.postgres.slots import Slot
from replicator.errors import ReplicatorError
from replicator.model import Stream


async def slots_of(sessions: Sessions, streams: Iterable[Stream]) -> dict[str, Slot | ReplicatorError | None]:
    """Return the slots of streams by the stream's name: `None` if it does not exist, or why it cannot be seen."""
    groups: dict[PostgresEndpoint, list[Stream]] = {}
    found: dict[str, Slot | ReplicatorError | None] = {}
    for stream in streams:
        groups.setdefault(postgres_endpoint(stream.source, "source"), []).append(stream)

    async def one(at: PostgresEndpoint) -> None:
        asked = {stream.name: slot_name(stream) for stream in groups[at]}
        try:
            there = await slots.look(sessions.at(at), [*asked.values()])
            found.update({name: there.get(slot) for name, slot in asked.items()})
        except ReplicatorError as error:
            found.update(dict.fromkeys(asked, error))

    await asyncio.gather(*map(one, groups))
    return found
