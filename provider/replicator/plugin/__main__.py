"""The plugin process: print the port, serve until the engine says stop, and never outlive it."""

from __future__ import annotations

import gc

gc.disable()  # collecting while modules load costs a twentieth of the start; it is on again after the port line

import asyncio
import os
import signal
import sys

import grpc.aio

# The command that httpx has besides, which would load rich and click: a fifth of what a first call imports.
sys.modules["httpx._main"] = None  # type: ignore[assignment]

from replicator.plugin._proto import provider_pb2_grpc
from replicator.plugin.servicer import Servicer

_MESSAGE_LIMIT = 400 * 1024 * 1024  # bytes; the limit that Pulumi's own SDKs set
_STOP_GRACE = 4.0  # seconds for running calls; the engine kills 5 s after its SIGINT
_ORPHAN_LOOK = 2.0  # seconds between looks at the parent


def _engine_address(arguments: list[str]) -> str | None:
    """The engine's address is the only argument; a flag such as `--tracing URL` takes its value along."""
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
    """Return when the parent is gone: an engine that was killed sends no signal."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  (the kernel tells nobody)
        await asyncio.sleep(_ORPHAN_LOOK)


async def serve(engine_address: str | None) -> None:
    """Serve on a free port of 127.0.0.1. SIGINT is the engine's way to say that it is done."""
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
    """Console script `pulumi-resource-replicator`."""
    asyncio.run(serve(_engine_address(sys.argv[1:])))


if __name__ == "__main__":
    main()
