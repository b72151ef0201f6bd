"""From an address to an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.remote.client import RemoteReplicator
    from replicator.remote.routes import Info


@asynccontextmanager
async def connected(backend: str, address: str | None) -> AsyncIterator[RemoteReplicator]:
    """A client of the agent at `address`, or of this host's own."""
    from replicator.lifecycle.connect import start_hint
    from replicator.remote.address import default_address
    from replicator.remote.client import RemoteReplicator

    address = address or default_address()
    client = RemoteReplicator(backend, address, start_hint=start_hint(backend, address))
    try:
        yield client
    finally:
        await client.aclose()


async def find_agent(client: RemoteReplicator) -> Info | None:
    """Who answers; `None`, at once, where nothing listens. Who listens and does not answer raises what calls raise."""
    from replicator.remote.address import parse_unix

    return await client.info() if _listens(str(parse_unix(client.address))) else None


def _listens(path: str) -> bool:
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
