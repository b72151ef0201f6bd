"""An S3 server for the session, a prefix and an engine's environment for each test."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from replicator.agent.supervisor import LineLog, Supervisor
from replicator.backends.sqlite.daemon_config import DaemonSettings, daemon_argv, shared_daemon
from replicator.backends.sqlite.litestream import Binary, CommandLine, ControlClient, EngineUnreachable, find_binary
from replicator.backends.sqlite.replica import (
    FolderLocation,
    S3Credentials,
    S3Location,
    engine_environment,
    parse_replica,
)

from tests.backends.sqlite.agents import Agent
from tests.engines import S3Identity, S3Server

BUCKET = "lab"
SECRET = 'it\'s "a" $HOME ${SECRET} \\ secret\nof two lines'


class TwoOwners(S3Server):
    """A server that a second identity may use as well, and a third one may only read."""

    second = S3Identity("SECONDKEY", "another secret")
    reader = S3Identity("READERKEY", "a third secret")

    def _identities(self) -> list[dict[str, object]]:
        def row(name: str, user: S3Identity, *actions: str) -> dict[str, object]:
            pair = {"accessKey": user.access_key_id, "secretKey": user.secret_access_key}
            return {"name": name, "credentials": [pair], "actions": list(actions)}

        return [
            *super()._identities(),
            row("second", self.second, "Admin", "Read", "Write", "List", "Tagging"),
            row("reader", self.reader, "Read", "List"),
        ]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoOwners]:
    """An S3 server that checks signatures; its owner's secret has every character that could break a file."""
    server = TwoOwners(tmp_path_factory.mktemp("s3"), owner=S3Identity("OWNERKEY", SECRET))
    server.start()
    try:
        server.make_bucket(BUCKET)
        yield server
    finally:
        server.kill()


@pytest.fixture
def credentials(s3: S3Server) -> S3Credentials:
    """The owner's."""
    return S3Credentials(s3.owner.access_key_id, s3.owner.secret_access_key)


@pytest.fixture
def location(s3: S3Server) -> S3Location:
    """An empty prefix of its own."""
    place = parse_replica(s3.url(BUCKET, f"test/{uuid.uuid4().hex}"))
    assert isinstance(place, S3Location)
    return place


@pytest.fixture
def folder_location(tmp_path: Path) -> FolderLocation:
    """An empty folder of its own, not yet made."""
    place = parse_replica(f"file://{tmp_path}/replica")
    assert isinstance(place, FolderLocation)
    return place


@pytest.fixture
async def binary() -> Binary:
    """The engine's program."""
    return await find_binary()


@pytest.fixture
def command_line(binary: Binary, credentials: S3Credentials) -> CommandLine:
    """The engine's commands with the owner's credentials."""
    return CommandLine(binary.path, engine_environment(credentials))


@dataclass(frozen=True)
class Daemon:
    """A running daemon."""

    control: ControlClient
    supervisor: Supervisor
    log: LineLog
    settings: DaemonSettings


StartDaemon = Callable[..., AbstractAsyncContextManager[Daemon]]


@pytest.fixture
def start_daemon(tmp_path: Path, binary: Binary, credentials: S3Credentials) -> StartDaemon:
    """Starts a daemon from `configure(settings)`, the shared one unless told otherwise."""

    @asynccontextmanager
    async def start(
        configure: Callable[[DaemonSettings], str] = shared_daemon,
        *,
        name: str = "daemon",
        environment: dict[str, str] | None = None,
    ) -> AsyncIterator[Daemon]:
        settings = DaemonSettings(socket=tmp_path / f"{name}.sock")
        config = tmp_path / f"{name}.yml"
        config.write_text(configure(settings))
        log = LineLog(tmp_path / f"{name}.log")
        async with ControlClient(settings.socket) as control:

            async def answers() -> None:
                async with asyncio.timeout(10):
                    while True:
                        try:
                            await control.info()
                            return
                        except EngineUnreachable:
                            await asyncio.sleep(0.02)

            supervisor = Supervisor(
                daemon_argv(binary.path, config),
                engine_environment(credentials) if environment is None else environment,
                log=log,
                pid_file=tmp_path / f"{name}.pid",
                marker=str(config),
                on_start=answers,
                stop_timeout=1.0,
            )
            await supervisor.start()
            try:
                await supervisor.wait_ready(15)
                yield Daemon(control, supervisor, log, settings)
            finally:
                await supervisor.stop()
                log.close()

    return start


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        yield Path(folder)


@pytest.fixture
def environ(s3: TwoOwners) -> dict[str, str]:
    """What the agent's own environment holds: identities, by the names that `authRef` uses."""
    return {
        "OWNER_ACCESS_KEY_ID": s3.owner.access_key_id,
        "OWNER_SECRET_ACCESS_KEY": s3.owner.secret_access_key,
        "SECOND_ACCESS_KEY_ID": s3.second.access_key_id,
        "SECOND_SECRET_ACCESS_KEY": s3.second.secret_access_key,
        "READER_ACCESS_KEY_ID": s3.reader.access_key_id,
        "READER_SECRET_ACCESS_KEY": s3.reader.secret_access_key,
        "STRANGER_ACCESS_KEY_ID": s3.stranger.access_key_id,
        "STRANGER_SECRET_ACCESS_KEY": s3.stranger.secret_access_key,
    }


@pytest.fixture
async def agent(binary: Binary, short_folder: Path, environ: dict[str, str]) -> AsyncIterator[Agent]:
    """An agent that runs."""
    running = Agent(binary.path, short_folder, environ)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def place(s3: S3Server) -> str:
    """The URI of an empty prefix."""
    return s3.url(BUCKET, f"stream/{uuid.uuid4().hex}")
