"""Messages to the user from a dynamic provider.

The Pulumi engine starts every provider process with its own address as the only argument. The host of dynamic providers
does not use it, and hides what the process prints, so this module sends the messages.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from replicator.diagnostics import Diagnostics, Level

_PATIENCE = 5.0  # timeout in seconds; an engine that hangs must not block an operation
_OPTIONS = (("grpc.enable_http_proxy", 0),)  # the engine is on this host, whatever http_proxy is
_SEVERITIES = {Level.DEBUG: engine_pb2.DEBUG, Level.INFO: engine_pb2.INFO, Level.WARNING: engine_pb2.WARNING}


def engine_address(arguments: Sequence[str]) -> str | None:
    """Return the engine's address from the arguments of this process; `None` if they hold none."""
    match arguments:
        case [address] if re.fullmatch(r"[\w.\[\]:-]+:\d+", address):
            return address
        case _:
            return None


class PulumiDiagnostics(Diagnostics):
    """Messages through the log service of the engine at `address`; without an address, it sends none."""

    def __init__(self, address: str | None) -> None:
        super().__init__()
        channel = grpc.insecure_channel(address, options=_OPTIONS) if address else None
        self._stub = engine_pb2_grpc.EngineStub(channel) if channel else None

    async def send(self, level: Level, message: str, urn: str, *, ephemeral: bool = False) -> None:
        """Send one message, and ignore every error."""
        if self._stub is None:
            return
        request = engine_pb2.LogRequest(severity=_SEVERITIES[level], message=message, urn=urn, ephemeral=ephemeral)
        with suppress(grpc.RpcError):
            await asyncio.to_thread(self._stub.Log, request, timeout=_PATIENCE)
