"""A module of the tests in a process of its own, which reads a line and answers it until its input ends."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Self


class LineProcess:
    """The other end of the process. Use it as an async context manager.

    :param module: what runs, with `arguments`.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 20)
