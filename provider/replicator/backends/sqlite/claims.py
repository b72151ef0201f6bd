"""The claim on a destination: an object beside the data that names the agent that writes there.

An agent's registry holds only its own streams; the claim informs other agents. The store creates it atomically, so
only one of two agents that start at the same moment gets it. It never expires. A purge, a create that is undone, or a
person removes it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from pydantic import Field, ValidationError

from replicator.backends.sqlite import litestream_errors
from replicator.backends.sqlite.layout import CLAIM
from replicator.backends.sqlite.locations import parse_location
from replicator.backends.sqlite.objects import NotConditional
from replicator.backends.sqlite.replica import ReplicaError, ReplicaLocation, S3Credentials
from replicator.errors import DestinationInUse
from replicator.model import Instant, Model, Stream
from replicator.replicator import Finding, Severity

_TRIES = 3  # another agent may remove its claim between the refused create and the read
_log = logging.getLogger(__name__)


class Claim(Model):
    """The writer of a destination.

    :param agent: the random id of an agent's registry.
    :param owner: the URN of the resource that manages the stream; `None` where none does.
    """

    version: int = 1
    agent: str
    host: str
    stream: str
    owner: str | None = None
    claimed_at: Instant = Field(default_factory=lambda: datetime.now(UTC))


class Claims:
    """The claims of one agent.

    :param agent: its id.
    :param identify: gives the identity of a stream at its destination.
    """

    def __init__(self, agent: str, identify: Callable[[Stream], Awaitable[S3Credentials | None]]) -> None:
        self._agent = agent
        self._identify = identify
        self._conditional: dict[str, bool] = {}

    async def take(self, stream: Stream) -> bool:
        """Claim the destination; tell whether the claim is new. Raise `DestinationInUse` if another agent holds it."""
        place, credentials = parse_location(stream), await self._identify(stream)
        owner = stream.owner.urn if stream.owner else None
        wanted = Claim(agent=self._agent, host=socket.gethostname(), stream=stream.name, owner=owner)
        try:
            for _ in range(_TRIES):
                held = await self._read(place, credentials, stream)
                if held is None:
                    if await self._create(place, credentials, wanted):
                        _log.info("stream %s: claimed %s", stream.name, place)
                        return True
                    continue
                self._refuse_other(held, place, stream)
                if (held.stream, held.owner) != (wanted.stream, wanted.owner):
                    await place.write_object(CLAIM, _content(wanted), credentials)
                await self._probe(place, credentials, wanted)
                return False
        except ReplicaError as error:
            raise litestream_errors.of_replica(error, stream.name) from error
        raise DestinationInUse(
            f"other agents claim {place} at this moment",
            stream=stream.name,
            property="destination.uri",
            fix="choose another prefix, or do the same again",
        )

    async def check(self, stream: Stream) -> None:
        """Raise `DestinationInUse` where another agent has claimed the destination. Write nothing."""
        place, credentials = parse_location(stream), await self._identify(stream)
        try:
            held = await self._read(place, credentials, stream)
        except ReplicaError as error:
            raise litestream_errors.of_replica(error, stream.name) from error
        if held is not None:
            self._refuse_other(held, place, stream)

    async def release(self, stream: Stream) -> None:
        """Remove the claim if this agent holds it."""
        place, credentials = parse_location(stream), await self._identify(stream)
        try:
            held = await self._read(place, credentials, stream)
            if held is None or held.agent == self._agent:
                await place.remove_object(CLAIM, credentials)
        except ReplicaError as error:
            raise litestream_errors.of_replica(error, stream.name) from error

    def findings(self, stream: Stream) -> list[Finding]:
        """Return a warning where the store has created the same object twice."""
        place = parse_location(stream)
        if self._conditional.get(place.store, True):
            return []
        unguarded = DestinationInUse(
            f"the store of {place} creates an object that exists (it ignores If-None-Match), so two agents that begin "
            "to write there at the same moment both do, and see each other within 5 minutes",
            property="destination.uri",
            fix="see that no other agent has this destination, or use a store that knows conditional writes",
        )
        return [Finding.of(unguarded, Severity.WARNING)]

    async def _read(self, place: ReplicaLocation, credentials: S3Credentials | None, stream: Stream) -> Claim | None:
        content = await place.read_object(CLAIM, credentials)
        try:
            return None if content is None else Claim.model_validate_json(content)
        except ValidationError:
            raise DestinationInUse(
                f"{place} holds an object {CLAIM} that cannot be read as a claim",
                stream=stream.name,
                property="destination.uri",
                fix=f"choose another prefix; or, where nothing else writes there, delete {place}/{CLAIM}",
            ) from None

    async def _create(self, place: ReplicaLocation, credentials: S3Credentials | None, wanted: Claim) -> bool:
        content = _content(wanted)
        try:
            created = await place.create_object(CLAIM, content, credentials)
        except NotConditional:
            self._note(place, conditional=False)
            await place.write_object(CLAIM, content, credentials)
            return True
        await self._probe(place, credentials, wanted)
        return created

    async def _probe(self, place: ReplicaLocation, credentials: S3Credentials | None, wanted: Claim) -> None:
        """Check once per store that it refuses to create the existing claim again."""
        if place.store not in self._conditional:
            try:
                created = await place.create_object(CLAIM, _content(wanted), credentials)
            except NotConditional:
                created = True
            self._note(place, conditional=not created)

    def _note(self, place: ReplicaLocation, *, conditional: bool) -> None:
        if not conditional and self._conditional.get(place.store, True):
            _log.warning(
                "the store of %s ignores If-None-Match: two agents may claim one place at the same moment", place
            )
        self._conditional[place.store] = conditional

    def _refuse_other(self, held: Claim, place: ReplicaLocation, stream: Stream) -> None:
        if held.agent == self._agent:
            return
        owner = f", which {held.owner} manages" if held.owner else ""
        raise DestinationInUse(
            f"{place} is claimed by the agent {held.agent} on host {held.host}, for its stream {held.stream!r}{owner}, "
            f"since {held.claimed_at:%Y-%m-%d %H:%M} UTC",
            stream=stream.name,
            property="destination.uri",
            fix=f"choose another prefix; or, where that agent is gone for good, delete {place}/{CLAIM} and try again",
        )


def _content(claim: Claim) -> bytes:
    return claim.model_dump_json(exclude_none=True, indent=1).encode()
