"""The plugin process: prints its port, serves until the engine stops it, and never outlives the engine."""

from __future__ import annotations

import gc

gc.disable()  # garbage collection during imports costs 5 % of the start; it is on again after the port line

import asyncio
import os
import signal
import sys

import grpc.aio

# httpx's own command would load rich and click: a fifth of what a first call imports.
sys.modules["httpx._main"] = None  # type: ignore[assignment]

from replicator.plugin._proto import provider_pb2_grpc
from replicator.plugin.servicer import Servicer

_MESSAGE_LIMIT = 400 * 1024 * 1024  # bytes; the limit in Pulumi's own SDKs
_STOP_GRACE = 4.0  # seconds for running calls; the engine kills 5 s after its SIGINT
_ORPHAN_LOOK = 2.0  # seconds between checks of the parent


def _engine_address(arguments: list[str]) -> str | None:
    """Return the engine's address, the only argument; flags such as `--tracing URL` take a value."""
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument.startswith("-"):
            skip = "=" not in argument
        else:
            return argument
    return None


async def _until_orphaned() -> None:
    """Wait until the parent has exited: a killed engine sends no signal."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  (the kernel tells nobody)
        await asyncio.sleep(_ORPHAN_LOOK)


async def serve(engine_address: str | None) -> None:
    """Serve on a free port of 127.0.0.1 until SIGINT, which the engine sends when it is done."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
            ("grpc.max_send_message_length", _MESSAGE_LIMIT),
            ("grpc.so_reuseport", 0),
        ]
    )
    servicer = Servicer(engine_address)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    gc.freeze()
    gc.enable()
    waits: list[asyncio.Future[object]] = [asyncio.ensure_future(stop.wait())]
    if engine_address:
        waits.append(asyncio.ensure_future(_until_orphaned()))
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    servicer.calls.cancel.set()
    await server.stop(_STOP_GRACE)
    await servicer.aclose()


def main() -> None:
    """Run the console script `pulumi-resource-replicator`."""
    asyncio.run(serve(_engine_address(sys.argv[1:])))


if __name__ == "__main__":
    main()
