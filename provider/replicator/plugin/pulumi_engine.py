"""Messages to the user, through the log service of the Pulumi engine.

The engine hides what a plugin prints, so this is the only way to show messages. A message can never fail an operation:
every error on the way is ignored. Severity ERROR is left out on purpose: the engine prints it and continues, with exit
code 0, so an error has to be the answer of the call itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc.aio

from replicator.diagnostics import Diagnostics, Level
from replicator.plugin._proto import engine_pb2, engine_pb2_grpc

_PATIENCE = 5.0  # timeout in seconds; an engine that hangs must not block an operation
_OPTIONS = (("grpc.enable_http_proxy", 0),)  # the engine is on this host, whatever http_proxy is
_SEVERITIES = {Level.DEBUG: engine_pb2.DEBUG, Level.INFO: engine_pb2.INFO, Level.WARNING: engine_pb2.WARNING}


def engine_stub(channel: grpc.aio.Channel) -> engine_pb2_grpc.EngineAsyncStub:
    """Return the engine's service on an asyncio channel, with asyncio's types."""
    return engine_pb2_grpc.EngineStub(channel)  # type: ignore[return-value]


class PulumiDiagnostics(Diagnostics):
    """The log of one engine. Without an address it sends nothing, so a plugin that is started by hand works too.

    Every text passes through `redact`. A message with a URN is shown at that resource, any other at the stack. The
    channel opens with the first message; `close` ends it.
    """

    def __init__(
        self, address: str | None, redact: Callable[[str], str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock=clock)
        self.address = address
        self._redact = redact
        self._channel: grpc.aio.Channel | None = None

    async def send(self, level: Level, message: str, urn: str, *, ephemeral: bool = False) -> None:
        """Send a message to the engine, if any. It is shown under Diagnostics, DEBUG only with `--debug`."""
        if not self.address:
            return
        try:
            request = engine_pb2.LogRequest(
                severity=_SEVERITIES[level], message=self._redact(message), urn=urn, ephemeral=ephemeral
            )
            if self._channel is None:
                self._channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
            await engine_stub(self._channel).Log(request, timeout=_PATIENCE)
        except Exception:  # noqa: S110  (see the module's first lines)
            pass

    async def close(self) -> None:
        """Close the channel. Later messages are dropped."""
        self.address = None
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
