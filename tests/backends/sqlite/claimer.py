"""An agent's claims in a process of its own: it reads a place and a moment a line, and claims the place then."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from replicator.backends.sqlite.claims import Claim, Claims
from replicator.backends.sqlite.layout import CLAIM
from replicator.backends.sqlite.locations import parse_location
from replicator.backends.sqlite.replica import S3Credentials
from replicator.errors import DestinationInUse
from replicator.model import Stream

from tests.backends.sqlite.line_process import LineProcess


class Claimer(LineProcess):
    """The other end of the process. Use it as an async context manager.

    :param way: `claims`, or `naive`: look first, then write.
    """

    def __init__(self, agent: str, way: str, credentials: S3Credentials) -> None:
        super().__init__(__name__, agent, way, credentials.access_key_id, credentials.secret_access_key)

    async def claim(self, stream: Stream, at: float) -> bool:
        """Claim the destination of a stream at a moment; whether that was won."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([stream.wire(), at]).encode() + b"\n")
        return bool(json.loads(await asyncio.wait_for(self._process.stdout.readline(), 60)))


async def _serve(agent: str, way: str, key: str, secret: str) -> None:
    credentials = S3Credentials(key, secret)

    async def identify(_: Stream) -> S3Credentials:
        return credentials

    claims = Claims(agent, identify)
    while line := await asyncio.to_thread(sys.stdin.readline):
        given: tuple[dict[str, Any], float] = json.loads(line)
        stream = Stream.model_validate(given[0])
        await asyncio.sleep(max(0.0, given[1] - time.time()))
        won = await (_take(claims, stream) if way == "claims" else _look_and_write(agent, stream, credentials))
        print(json.dumps(won), flush=True)


async def _take(claims: Claims, stream: Stream) -> bool:
    try:
        return await claims.take(stream)
    except DestinationInUse:
        return False


async def _look_and_write(agent: str, stream: Stream, credentials: S3Credentials) -> bool:
    place = parse_location(stream)
    if await place.read_object(CLAIM, credentials) is not None:
        return False
    claim = Claim(agent=agent, host="here", stream=stream.name)
    await place.create_object(f"{CLAIM}.{agent}", b"", credentials)  # as long as the two steps of a claim take
    await place.write_object(CLAIM, claim.model_dump_json().encode(), credentials)
    return True


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
