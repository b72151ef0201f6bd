"""A process that creates mirrors as an `up` of a stack does, when it is told to.

It reads a JSON object a line: the address of the workers, and the declaration. It answers each with a word a line.
"""

from __future__ import annotations

import asyncio
import json
import sys

from replicator.backends.kafka_connect.mirror.driver import open_mirror
from replicator.backends.kafka_connect.mirror.surroundings import Surroundings
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.settings import ConnectConfig
from replicator.errors import ReplicatorError
from replicator.model import Stream


class Careless(Surroundings):
    """A naive look: what is listed before the claim is all that counts."""

    async def win(self, mine: StreamRecord) -> frozenset[str]:
        return frozenset()


async def create(address: str, stream: Stream, *, careless: bool) -> str:
    driver = open_mirror(address, ConnectConfig(address=address))
    if careless:
        driver._recipe._surroundings.__class__ = Careless  # type: ignore[attr-defined]
    try:
        await driver.upsert_stream(stream)
    except ReplicatorError as error:
        return type(error).__name__
    finally:
        await driver.aclose()
    return "created"


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        stream = Stream.model_validate(given["stream"])
        print(asyncio.run(create(given["address"], stream, careless=given["careless"])), flush=True)


if __name__ == "__main__":
    main()
