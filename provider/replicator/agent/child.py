"""A litestream process as the agent runs it: supervised, with a log of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from replicator.agent.supervisor import LineLog, Supervisor, SupervisorError
from replicator.backends.sqlite.daemon_pool import Launch
from replicator.backends.sqlite.daemon_process import LOG
from replicator.backends.sqlite.litestream import EngineError


class Child(Supervisor):
    """A supervisor that raises the backend's errors, and closes its log when it stops."""

    async def start(self) -> None:
        """Begin to supervise; raise `EngineError` where that fails."""
        try:
            await super().start()
        except (SupervisorError, OSError) as error:
            self.log.close()
            raise EngineError("start", None, str(error)) from error

    async def stop(self) -> None:
        """End the process and close its log."""
        await super().stop()
        self.log.close()


def launcher(redact: Callable[[str], str]) -> Launch:
    """Return a launcher of a driver's processes. It logs their redacted output to `LOG` in their folder."""

    def launch(
        argv: list[str],
        env: Mapping[str, str],
        *,
        folder: Path,
        marker: str,
        edit: Callable[[str], str],
        before_start: Callable[[], Awaitable[None]],
        on_start: Callable[[], Awaitable[None]],
    ) -> Child:
        return Child(
            argv,
            env,
            log=LineLog(folder / LOG, redact=redact),
            edit=edit,
            pid_file=folder / "pid",
            marker=marker,
            before_start=before_start,
            on_start=on_start,
        )

    return launch
