"""Clients for the agents and clusters at addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from replicator.backends.settings import BackendConfig
    from replicator.remote.client import RemoteReplicator
    from replicator.remote.routes import Info
    from replicator.replicator import Replicator

R = TypeVar("R", bound="Replicator")


def connected(backend: str, address: str) -> aclosing[Replicator]:
    """Return the Replicator of a backend at an address, as a context manager that closes it."""
    from replicator.lifecycle.connections import open_replicator

    block = block_of(backend, address)
    return aclosing(open_replicator(backend, address, block))


def block_of(
    backend: str, given: str | None, region: str = "default", settings: Mapping[str, Any] | None = None
) -> BackendConfig:
    """Return a backend's configuration, with the given address, else that of the settings or the environment variable.

    The default is this host's own agent. Raise `InvalidConfig` if the address is invalid, and if the settings are
    invalid or have no address for the region.

    :param settings: those of a stack.
    """
    import os

    from replicator.backends import REGISTRY
    from replicator.errors import InvalidConfig
    from replicator.lifecycle.config import all_settings, configured, parse_config
    from replicator.remote.address import default_address, parse_address

    at = REGISTRY[backend]
    variable = all_settings()[at.config_key].variable
    ignored = given is not None and at.via_agent  # an agent has no other setting than its address
    environ = {variable: text} if (text := os.environ.get(variable)) and not ignored else {}
    config = configured(settings or {}, environ=environ)
    known = bool(environ or settings)
    found = given or config.find(at, region) or (default_address() if at.via_agent and not known else None)
    if given is not None and at.via_agent:
        parse_address(given)
    elif given is not None:
        _, failures = parse_config({at.config_key: {"address": given}})
        if failures:
            raise InvalidConfig(failures[0].reason, property="address", fix=f"write one such as {at.example}")
    if found is None:
        place = "that stands for all regions" if region == "default" else f"for the region {region}"
        lacks = f"has no address {place}" if known else f"is not set, and says where {backend} is"
        where = f"replicator:{at.config_key}" if settings else variable
        raise InvalidConfig(f"{where} {lacks}", property="address", fix=f"choose one: --address {at.example}")
    return config.block(at).model_copy(update={"address": found, "regions": {}})


def address_of(backend: str, given: str | None) -> str:
    """Return the address that `block_of` finds."""
    return block_of(backend, given).address or ""


def agent_client(address: str | None) -> RemoteReplicator:
    """Return a client of the agent at `address`, or of this host's own, for requests that only an agent serves."""
    from replicator.lifecycle.connections import start_hint
    from replicator.remote.client import RemoteReplicator

    address = address_of("litestream", address)
    return RemoteReplicator("litestream", address, start_hint=start_hint("litestream", address))


@contextmanager
def session(client: R) -> Iterator[tuple[asyncio.Runner, R]]:
    """Yield a runner for successive calls, and the client, which stays connected between them."""
    import asyncio

    with asyncio.Runner() as runner:
        try:
            yield runner, client
        finally:
            runner.run(client.aclose())


async def find_agent(client: RemoteReplicator) -> Info | None:
    """Return the agent that answers; `None`, at once, if nothing listens. If it does not answer, raise as calls do."""
    from replicator.remote.address import parse_unix

    return await client.info() if listens(str(parse_unix(client.address))) else None


def listens(path: str) -> bool:
    """Tell whether a process listens, or may: without permission to find out, the answer is yes."""
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
