"""A litestream as people run it under a service manager: a configuration, a process, and nothing of ours."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from replicator.backends.sqlite.daemon_process import Control
from replicator.backends.sqlite.litestream import EngineUnreachable

from tests.engines import find_engine
from tests.waiting import until


@dataclass
class Foreign:
    """One daemon that runs."""

    process: asyncio.subprocess.Process
    control: Control

    async def upload(self, database: Path) -> int:
        """Upload what is committed; the transaction that is reached."""
        target = (await self.control.progress(database, timeout=20)).txid
        reached = None

        async def arrived() -> bool:
            nonlocal reached
            reached = (await self.control.progress(database, timeout=20)).replicated_txid
            return target is not None and reached is not None and reached >= target

        await until(arrived, timeout=20, what="all is uploaded")
        assert reached is not None
        return reached

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it as a service manager does, or as the kernel does when memory runs out."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def foreign_daemon(config: Path, socket: Path, environ: Mapping[str, str]) -> AsyncIterator[Foreign]:
    """Run litestream with a configuration whose control socket is `socket`."""
    binary = str(find_engine("litestream"))
    process = await asyncio.create_subprocess_exec(
        binary,
        "replicate",
        "-config",
        str(config),
        env={"PATH": "/usr/bin:/bin", **environ},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with Control(socket) as control:
        daemon = Foreign(process, control)
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        await control.info()
                        break
                    except EngineUnreachable:
                        await asyncio.sleep(0.02)
            yield daemon
        finally:
            await daemon.end(signal.SIGKILL)
