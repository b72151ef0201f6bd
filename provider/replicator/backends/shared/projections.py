"""The methods of a Replicator that follow from its `describe`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from replicator.errors import StreamNotFound, Unsupported
from replicator.model import Endpoint, Stream, StreamStatus
from replicator.replicator import Description, EndHints, Proposal, Takeover, Unmanaged


class Projections(ABC):
    """A base class for drivers. A driver overrides what its engine answers with less work."""

    kind: str

    @abstractmethod
    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        """Describe streams, as `Replicator.describe` says."""

    @abstractmethod
    def not_found(self, name: str) -> StreamNotFound:
        """Return the error for a stream that does not exist."""

    async def look_at_destination(self, destination: Endpoint, database: Endpoint | None = None) -> Takeover:
        raise self._claims_nothing()

    async def take_over(self, destination: Endpoint, former: str | None) -> None:
        raise self._claims_nothing()

    def _claims_nothing(self) -> Unsupported:
        return Unsupported(
            f"{self.kind} claims no destinations, so there is nothing to take over",
            fix="declare the stream, and run pulumi up",
        )

    async def unmanaged(self) -> list[Unmanaged]:
        return []

    async def propose(self, name: str, source: EndHints, destination: EndHints) -> Proposal:
        raise Unsupported(
            f"{self.kind} adopts nothing by name",
            stream=name,
            fix="take over databases that litestream replicates with replicator agent adopt litestream.yml",
        )

    async def overview(self) -> list[Description]:
        return await self.describe()

    async def list_streams(self) -> list[Stream]:
        return [item.declaration for item in await self.overview() if item.declaration is not None]

    async def get_status(self, name: str) -> StreamStatus:
        found = await self.describe([name])
        if not found:
            raise self.not_found(name)
        return found[0].status
