"""A driver with a registry on disk, as an agent runs it, and what its tests ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from replicator.agent.child import Child
from replicator.agent.registry import FileStore
from replicator.agent.supervisor import LineLog, Restarts
from replicator.authref import Redactor
from replicator.backends.sqlite.daemon_pool import Supervised
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.driver import SqliteDriver
from replicator.backends.sqlite.grants import Policies
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import parse_replica
from replicator.model import Stream, StreamState, StreamStatus
from replicator.replicator import ReplayProgress, Replicator

from tests.waiting import until

URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"


class Agent:
    """One agent's driver in this process. `stop` and `start` make another one over the same folder."""

    def __init__(
        self, binary: Path, folder: Path, environ: Mapping[str, str], policies: Policies | None = None
    ) -> None:
        self.folder = folder
        self.children: list[Child] = []
        self._binary = binary
        self._environ = environ
        self._policies = policies
        self.redactor = Redactor()
        self.driver: SqliteDriver

    async def start(self) -> SqliteDriver:
        """Begin, or begin again."""
        self.children.clear()
        self.store = FileStore(self.folder / "registry")
        self.driver = SqliteDriver(
            self._binary,
            self.folder / "d",
            self.store,
            self._launch,
            state=self.folder,
            replay_window=timedelta(hours=1),
            redactor=self.redactor,
            environ=self._environ,
            policies=self._policies,
        )
        await self.driver.start()
        return self.driver

    async def stop(self) -> None:
        """End in order."""
        await self.driver.aclose()

    @property
    def pids(self) -> list[int]:
        """The litestream processes that run now."""
        return [child.pid for child in self.children if child.pid is not None]

    def _launch(self, argv: list[str], env: Mapping[str, str], *, folder: Path, **rest: Any) -> Supervised:
        child = Child(
            argv,
            env,
            log=LineLog(folder / "litestream.log", redact=self.redactor),
            pid_file=folder / "pid",
            restarts=Restarts(first=0.05, most=0.2),  # tests kill it more often than it dies by itself
            **rest,
        )
        self.children.append(child)
        return child


def declare(name: str, database: Path, uri: str, **changes: Any) -> Stream:
    """A stream from a file to a place, from camelCase properties."""
    destination = {"kind": "s3", "uri": uri, **({"authRef": "env://OWNER_*"} if uri.startswith("s3:") else {})}
    given = {
        "name": name,
        "source": {"kind": "sqlite", "uri": f"sqlite://{database}"},
        "destination": destination,
        "backend": "litestream",
        "owner": {"urn": URN},
    }
    return Stream.model_validate(given | changes)


async def caught_up(replicator: Replicator, name: str, *, timeout: float = 20.0) -> StreamStatus:
    """Wait until all that is committed is at the destination."""
    status = await replicator.get_status(name)

    async def reached() -> bool:
        nonlocal status
        status = await replicator.get_status(name)
        return status.state is StreamState.RUNNING and status.lag_events == 0

    try:
        await until(reached, timeout=timeout, what=f"{name} is caught up")
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {status}") from None
    return status


async def state_is(replicator: Replicator, name: str, state: StreamState, *, timeout: float = 15.0) -> StreamStatus:
    """Wait for a state."""
    status = await replicator.get_status(name)

    async def reached() -> bool:
        nonlocal status
        status = await replicator.get_status(name)
        return status.state is state

    try:
        await until(reached, timeout=timeout, what=f"{name} is {state}")
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {status}") from None
    return status


async def replica_url(replicator: Replicator, name: str) -> str:
    """Where the stream writes now, as the engine's commands take it."""
    (found,) = await replicator.describe([name])
    query = found.stream.destination.uri.partition("?")[2]
    return parse_replica(str(found.engine_objects["replica"]) + (f"?{query}" if query else "")).url_for_engine()


async def restored_hash(command: CommandLine, url: str, output: Path, *, txid: int | None = None) -> str:
    """What is at a destination, by the engine's own command; hash it and throw the copy away."""
    await command.restore(url, output, txid=txid)
    try:
        return await content_hash(output)
    finally:
        for path in output.parent.glob(f"{output.name}*"):
            path.unlink()


async def finished(replicator: Replicator, name: str, key: str, *, timeout: float = 20.0) -> ReplayProgress:
    """Wait until a replay has ended."""
    progress = await replicator.get_replay(name, key)

    async def ended() -> bool:
        nonlocal progress
        progress = await replicator.get_replay(name, key)
        return progress.finished_at is not None

    await until(ended, timeout=timeout, what=f"replay {key} has ended")
    return progress
