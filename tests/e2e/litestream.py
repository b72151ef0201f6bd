"""A host with an agent, an S3 server, and what somebody sees of both who does not use Pulumi."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import S3Credentials, engine_environment
from replicator.model import StreamState, StreamStatus
from replicator.remote.client import RemoteReplicator
from replicator.replicator import Description

from tests.agent.support import Host, command
from tests.agent.support import host as make_host
from tests.engines import S3Server, find_engine, make_database
from tests.pulumi import Project
from tests.waiting import wait_until

BUCKET = "replicas"
T = TypeVar("T")


class Writer(threading.Thread):
    """An application that commits a row some 50 times a second, until the block ends."""

    def __init__(self, database: Path) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._end = threading.Event()

    def run(self) -> None:
        with closing(sqlite3.connect(self._database, isolation_level=None, timeout=10)) as database:
            while not self._end.wait(0.02):
                database.execute("INSERT INTO item (value) VALUES (hex(randomblob(20)))")

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join(15)


class World:
    """The outside of a Pulumi project.

    :param host: whose agent runs, and knows the identities `SHOP_*`, `STRANGER_*` and `WRONG_*`.
    :param arguments: of `agent run`.
    """

    def __init__(self, host: Host, s3: S3Server, arguments: tuple[str, ...]) -> None:
        self.host = host
        self._arguments = arguments
        self.s3 = s3

    # --- declarations ------------------------------------------------------------------------------------------------

    def database(self, name: str, rows: int = 20) -> Path:
        """A new database on the host."""
        return make_database(self.host.database(name), rows=rows)

    def inputs(self, name: str, prefix: str | None = None, **changes: Any) -> dict[str, Any]:
        """A stream of the database of that name. A property given as None is left out."""
        found = {
            "name": name,
            "source": {"kind": "sqlite", "uri": f"sqlite://{self.host.database(name)}"},
            "destination": {"kind": "s3", "uri": self.s3.url(BUCKET, prefix or name), "authRef": "env://SHOP_*"},
            **changes,
        }
        return {key: value for key, value in found.items() if value is not None}

    def write(
        self,
        project: Project,
        inputs: Mapping[str, Any],
        *,
        address: str | None = None,
        variables: Mapping[str, Any] | None = None,
        outputs: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a program with the stream `main`."""
        project.write_yaml(
            {
                "variables": dict(variables or {}),
                "resources": {
                    "agent": {
                        "type": "pulumi:providers:replicator",
                        "properties": {"litestream": {"address": address or self.host.address}},
                        "defaultProvider": True,
                    },
                    "main": {
                        "type": "replicator:index:Stream",
                        "properties": dict(inputs),
                        "options": dict(options or {}),
                    },
                },
                "outputs": dict(outputs or {}),
            }
        )

    # --- the agent's side --------------------------------------------------------------------------------------------

    def ask(self, call: Callable[[RemoteReplicator], Awaitable[T]]) -> T:
        """Call the agent as somebody who does not use Pulumi."""

        async def ask() -> T:
            async with self.host.client() as client:
                return await call(client)

        return asyncio.run(ask())

    def names(self) -> list[str]:
        return sorted(stream.name for stream in self.ask(lambda agent: agent.list_streams()))

    def find(self, name: str) -> Description | None:
        found = self.ask(lambda agent: agent.describe([name]))
        return found[0] if found else None

    def status(self, name: str) -> StreamStatus:
        return self.ask(lambda agent: agent.get_status(name))

    def command(self, *arguments: str) -> str:
        """Run `replicator` as an operator does."""
        done = command(*arguments, "--address", self.host.address)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def caught_up(self, name: str) -> StreamStatus:
        """Wait until all is at the destination."""
        status = self.status(name)

        def reached() -> bool:
            nonlocal status
            status = self.status(name)
            return status.state is StreamState.RUNNING and status.lag_events == 0

        wait_until(reached, f"{name} is caught up", timeout=40)
        return status

    # --- the data ----------------------------------------------------------------------------------------------------

    def content(self, name: str) -> str:
        """The hash of what a reader sees in a database."""
        return asyncio.run(content_hash(self.host.database(name)))

    def restored(self, prefix: str, bucket: str = BUCKET) -> str:
        """The hash of what the engine itself restores."""
        return self.restore(prefix, lambda database: asyncio.run(content_hash(database)), bucket)

    def restore(self, prefix: str, look: Callable[[Path], T], bucket: str = BUCKET) -> T:
        """Look at what the engine itself restores."""
        owner = S3Credentials(self.s3.owner.access_key_id, self.s3.owner.secret_access_key)
        engine = CommandLine(find_engine("litestream"), engine_environment(owner))
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "restored.db"
            asyncio.run(engine.restore(self.s3.url(bucket, prefix), output))
            return look(output)

    def start_agent(self) -> None:
        """Run the agent, under its policy."""
        self.host.start(*self._arguments)

    def grant(self, uri: str) -> None:
        """Let the policy grant a destination to the identity `SHOP_*`; the agent reads it again."""
        with (self.host.folder / "policy.toml").open("a") as file:
            file.write(f'\n[[destination]]\nuri = "{uri}"\nauthRef = "env://SHOP_*"\n')

    def keys(self, prefix: str) -> list[str]:
        return self.s3.keys(BUCKET, f"{prefix}/")

    def side_folders(self) -> list[str]:
        """The folders that litestream has beside databases, by stream."""
        return sorted(path.name.split(".")[1] for path in self.host.folder.glob(".*-litestream"))


def _granted(host: Host, s3: S3Server) -> tuple[str, ...]:
    """A policy that grants the host's databases, the bucket and the references of these tests."""
    _, policy = host.grant_all()
    bucket = s3.url(BUCKET, "").partition("&")[0]
    with Path(policy).open("a") as file:
        file.write('\n[[source]]\nfolder = "/"\n')
        for name in ("SHOP", "STRANGER", "WRONG", "NOBODY"):
            for uri in (bucket, bucket.replace(BUCKET, "nowhere")):
                file.write(f'\n[[destination]]\nuri = "{uri}"\nauthRef = "env://{name}_*"\n')
    return ("--policy", policy)


@contextmanager
def world(s3: S3Server, *arguments: str) -> Iterator[World]:
    """A running agent on a host of its own.

    :param arguments: of `agent run`.
    """
    with make_host() as host:
        identities = {"SHOP": s3.owner, "STRANGER": s3.stranger}
        for name, identity in identities.items():
            host.environment[f"{name}_ACCESS_KEY_ID"] = identity.access_key_id
            host.environment[f"{name}_SECRET_ACCESS_KEY"] = identity.secret_access_key
        made = World(host, s3, (*arguments, *_granted(host, s3)))
        made.start_agent()
        yield made
        host.end()
