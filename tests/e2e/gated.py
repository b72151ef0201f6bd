"""Serves a backend that looks at a file: the command line that such backends of tests share."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path

from replicator.backends.memory import MemoryReplicator
from replicator.remote.server import build_app, serve


def main(make: Callable[[Path], MemoryReplicator]) -> None:
    """Serve on `--socket` what `make` makes of the file `--gate`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--gate", type=Path, required=True)
    given = parser.parse_args()

    def ready() -> None:
        print(f"listening on unix://{given.socket}", flush=True)

    asyncio.run(serve(build_app({"memory": make(given.gate)}), given.socket, ready=ready))
