"""`replicator serve`: run one backend in its own process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from replicator.backends import REGISTRY
from replicator.cli.options import parse_backend, parse_wait
from replicator.cli.output import say
from replicator.errors import Unsupported


def serve(
    backend: Annotated[str, typer.Option(help="The backend to serve.", parser=parse_backend, metavar="NAME")],
    socket: Annotated[Path, typer.Option(help="The Unix socket to listen at.", metavar="PATH")],
    latency: Annotated[
        timedelta,
        typer.Option(
            help="A wait before each operation, such as 50ms.",
            parser=parse_wait,
            metavar="DURATION",
            show_default="0s",
        ),
    ] = timedelta(),
) -> None:
    """Serve one backend on a Unix socket until SIGTERM or ^C."""
    if command := REGISTRY[backend].served_by:
        raise Unsupported(f"the backend {backend} runs inside an agent", fix=f"use {command}")
    if not REGISTRY[backend].via_agent:
        raise Unsupported(
            f"the backend {backend} has a server of its own", fix="give its address to the provider or the command"
        )

    import asyncio
    from pkgutil import resolve_name

    from replicator.remote.server import build_app
    from replicator.remote.server import serve as serve_app

    driver = resolve_name(REGISTRY[backend].driver)
    app = build_app({backend: driver()}, latency=latency)
    asyncio.run(serve_app(app, socket, ready=lambda: say(f"listening on unix://{socket.absolute()}")))
