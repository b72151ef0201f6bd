"""The slots and publications of streams, asked once per database and role."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from replicator.backends.kafka_connect.debezium.details import slot_name
from replicator.backends.postgres import publications, slots
from replicator.backends.postgres.endpoint import PostgresEndpoint, postgres_endpoint
from replicator.backends.postgres.publications import Publication
from replicator.backends.postgres.session import Sessions
from replicator.backends.postgres.slots import Slot
from replicator.errors import ReplicatorError
from replicator.model import Stream


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a stream has in its database; `None` for what does not exist."""

    slot: Slot | None
    publication: Publication | None


async def look(sessions: Sessions, streams: Iterable[Stream]) -> dict[str, SourceStatus | ReplicatorError]:
    """Return what streams have in their databases by the stream's name, or why it cannot be seen."""
    groups: dict[PostgresEndpoint, list[Stream]] = {}
    found: dict[str, SourceStatus | ReplicatorError] = {}
    for stream in streams:
        groups.setdefault(postgres_endpoint(stream.source, "source"), []).append(stream)

    async def one(at: PostgresEndpoint) -> None:
        asked = {stream.name: slot_name(stream) for stream in groups[at]}
        try:
            there = await slots.look(sessions.at(at), [*asked.values()])
            published = await publications.look(sessions.at(at), [*asked.values()])
            found.update({name: SourceStatus(there.get(word), published.get(word)) for name, word in asked.items()})
        except ReplicatorError as error:
            found.update(dict.fromkeys(asked, error))

    await asyncio.gather(*map(one, groups))
    return found
