"""From an address to an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from replicator.remote.client import RemoteReplicator
    from replicator.remote.routes import Info


@asynccontextmanager
async def connected(backend: str, address: str | None) -> AsyncIterator[RemoteReplicator]:
    """A client of the agent at `address`, or of this host's own."""
    client = _client(backend, address)
    try:
        yield client
    finally:
        await client.aclose()


@contextmanager
def session(backend: str, address: str | None) -> Iterator[tuple[asyncio.Runner, RemoteReplicator]]:
    """What runs calls one after another, with other things between them, and a client that stays connected."""
    import asyncio

    client = _client(backend, address)
    with asyncio.Runner() as runner:
        try:
            yield runner, client
        finally:
            runner.run(client.aclose())


def _client(backend: str, address: str | None) -> RemoteReplicator:
    from replicator.lifecycle.connect import start_hint
    from replicator.remote.address import default_address
    from replicator.remote.client import RemoteReplicator

    address = address or default_address()
    return RemoteReplicator(backend, address, start_hint=start_hint(backend, address))


async def find_agent(client: RemoteReplicator) -> Info | None:
    """Who answers; `None`, at once, where nothing listens. Who listens and does not answer raises what calls raise."""
    from replicator.remote.address import parse_unix

    return await client.info() if listens(str(parse_unix(client.address))) else None


def listens(path: str) -> bool:
    """Whether somebody listens, or may: what we are not allowed to know counts as yes."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except OSError:
            return True
        return True
