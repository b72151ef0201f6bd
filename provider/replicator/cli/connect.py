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


def address_of(backend: str, given: str | None) -> str:
    """The agent's address: the one given, else that of the provider's environment variable, else this host's own.

    Raise `InvalidConfig` where it is none, and where the variable is wrong or has none that stands for all regions.
    """
    import os

    from replicator.backends import REGISTRY
    from replicator.errors import InvalidConfig
    from replicator.lifecycle.config import SETTINGS, configured
    from replicator.remote.address import default_address, parse_address

    at = REGISTRY[backend]
    variable = SETTINGS[at.config_key].variable
    if given or not os.environ.get(variable):
        address = given or default_address()
        parse_address(address)
        return address
    found = configured({}, environ={variable: os.environ[variable]}).find(at, "default")
    if found is None:
        text = f"{variable} has no address that stands for all regions"
        raise InvalidConfig(text, property="address", fix="choose one: --address ADDRESS")
    return found


def _client(backend: str, address: str | None) -> RemoteReplicator:
    from replicator.lifecycle.connect import start_hint
    from replicator.remote.client import RemoteReplicator

    address = address_of(backend, address)
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
