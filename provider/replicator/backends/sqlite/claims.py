"""The claim on a destination: an object beside the data that names the agent that writes there.

An agent's registry holds only its own streams; the claim informs other agents. The store creates it atomically, so
only one of two agents that start at the same moment gets it. It never expires. A purge or a create that is undone
removes it, and a takeover replaces it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from pydantic import Field, ValidationError

from replicator.backends.sqlite import litestream_errors
from replicator.backends.sqlite.layout import CLAIM, TAKEOVER
from replicator.backends.sqlite.locations import parse_location, takeover_command
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
            fix="choose another prefix, or try again",
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

    async def find(self, stream: Stream) -> Claim | None:
        """Return the claim on the destination."""
        place, credentials = parse_location(stream), await self._identify(stream)
        try:
            return await self._read(place, credentials, stream)
        except ReplicaError as error:
            raise litestream_errors.of_replica(error, stream.name) from error

    async def replace(self, stream: Stream, former: str | None, wanted: Claim) -> None:
        """Replace the claim of another agent, if it is still that agent's; idempotent for this one.

        A lock object makes it atomic among agents that take over; the former agent writes its claim only when one of
        its streams changes.

        :param former: the id of the agent that has to hold the claim; `None` where nobody may.
        :raises DestinationInUse: another agent holds it by now, or takes it over at this moment.
        """
        place, credentials = parse_location(stream), await self._identify(stream)
        try:
            await self._lock(place, credentials, wanted, stream)
            try:
                held = await self._read(place, credentials, stream)
                if held is not None and held.agent == self._agent:
                    return
                if (None if held is None else held.agent) != former:
                    raise DestinationInUse(
                        f"the claim on {place} has changed: {_holder(held)}",
                        stream=stream.name,
                        property="destination.uri",
                        fix="look again before you take it over",
                    )
                await place.write_object(CLAIM, _content(wanted), credentials)
                _log.info("stream %s: took %s over from the agent %s", wanted.stream, place, former)
            finally:
                await place.remove_object(TAKEOVER, credentials)
        except ReplicaError as error:
            raise litestream_errors.of_replica(error, stream.name) from error

    async def _lock(
        self, place: ReplicaLocation, credentials: S3Credentials | None, wanted: Claim, stream: Stream
    ) -> None:
        try:
            if await place.create_object(TAKEOVER, _content(wanted), credentials):
                return
        except NotConditional:
            self._note(place, conditional=False)
            return
        content = await place.read_object(TAKEOVER, credentials)
        if content is not None and (other := _claim_in(content)) is not None and other.agent == self._agent:
            return  # an earlier attempt was interrupted
        raise DestinationInUse(
            f"another agent takes {place} over at this moment",
            stream=stream.name,
            property="destination.uri",
            fix=f"try again; or, where that attempt was given up, delete {place}/{TAKEOVER}",
        )

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
        if content is None:
            return None
        if (claim := _claim_in(content)) is not None:
            return claim
        raise DestinationInUse(
            f"{place} holds an object {CLAIM} that cannot be read as a claim",
            stream=stream.name,
            property="destination.uri",
            fix=f"choose another prefix; or, where nothing else writes there, delete {place}/{CLAIM}",
        )

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
            fix=f"choose another prefix; or, where that agent is gone for good, run {takeover_command(stream)}",
        )


def _claim_in(content: bytes) -> Claim | None:
    try:
        return Claim.model_validate_json(content)
    except ValidationError:
        return None


def _holder(held: Claim | None) -> str:
    return "no agent holds it" if held is None else f"the agent {held.agent} on host {held.host} holds it"


def _content(claim: Claim) -> bytes:
    return claim.model_dump_json(exclude_none=True, indent=1).encode()
