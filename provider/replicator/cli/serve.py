"""`replicator serve`: one backend in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from replicator.backends import REGISTRY
from replicator.cli.output import say
from replicator.errors import Unsupported

SERVED_ELSEWHERE: Mapping[str, str] = {"litestream": "replicator agent run"}
"""Backends whose driver needs more than its class, and the command that serves them."""


def _parse_latency(value: str | timedelta) -> timedelta:
    import durationpy

    if isinstance(value, timedelta):
        return value
    try:
        latency: timedelta = durationpy.from_str(value)
    except durationpy.DurationError:
        latency = timedelta(-1)
    if latency < timedelta():
        raise typer.BadParameter(f'{value!r} is not a duration; write one such as "50ms"')
    return latency


def _parse_backend(value: str) -> str:
    if value not in REGISTRY:
        raise typer.BadParameter(f"{value!r} is not a backend; there are {', '.join(sorted(REGISTRY))}")
    return value


def serve(
    backend: Annotated[str, typer.Option(help="The backend to serve.", parser=_parse_backend, metavar="NAME")],
    socket: Annotated[Path, typer.Option(help="The Unix socket to listen at.", metavar="PATH")],
    latency: Annotated[
        timedelta,
        typer.Option(
            help="A wait before each operation, such as 50ms.",
            parser=_parse_latency,
            metavar="DURATION",
            show_default="0s",
        ),
    ] = timedelta(),
) -> None:
    """Serve one backend on a Unix socket until SIGTERM or ^C."""
    if command := SERVED_ELSEWHERE.get(backend):
        raise Unsupported(f"the backend {backend} runs inside an agent", fix=f"use {command}")

    import asyncio
    from pkgutil import resolve_name

    from replicator.remote.server import build_app
    from replicator.remote.server import serve as serve_app

    driver = resolve_name(REGISTRY[backend].driver)
    app = build_app({backend: driver()}, latency=latency)
    asyncio.run(serve_app(app, socket, ready=lambda: say(f"listening on unix://{socket.absolute()}")))
