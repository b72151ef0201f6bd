from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from replicator.backends import REGISTRY
from replicator.model import Endpoint, EndpointKind, Stream
from replicator.remote.client import RemoteReplicator

COMMAND = str(Path(sys.executable).with_name("replicator"))
STREAM = Stream(
    name="orders",
    source=Endpoint(kind=EndpointKind.SQLITE, uri="sqlite:///srv/orders.db"),
    destination=Endpoint(kind=EndpointKind.S3, uri="s3://bucket/orders"),
)


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        yield Path(folder) / "run" / "a.sock"


async def run(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        COMMAND, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def serving(path: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        COMMAND, "serve", "--backend", "memory", "--socket", str(path), *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert line.decode() == f"listening on unix://{path}\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[RemoteReplicator]:
    client = RemoteReplicator("memory", f"unix://{path}", start_hint="start it")
    try:
        yield client
    finally:
        await client.aclose()


async def test_it_serves_until_it_is_asked_to_stop(socket_path: Path) -> None:
    async with serving(socket_path) as process, connected(socket_path) as client:
        await client.upsert_stream(STREAM)
        assert [stream.name for stream in await client.list_streams()] == ["orders"]
        assert (await client.info()).pid == process.pid
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    assert not socket_path.exists()


async def test_it_starts_again_after_a_kill_and_not_beside_another(socket_path: Path) -> None:
    async with serving(socket_path) as process:
        process.kill()
        await process.wait()
    assert socket_path.exists()
    async with serving(socket_path), connected(socket_path) as client:
        code, out, err = await run("serve", "--backend", "memory", "--socket", str(socket_path))
        assert (code, out) == (1, "")
        assert err.startswith("error: another server is already running")
        assert await client.list_streams() == []


async def test_latency_is_a_duration(socket_path: Path) -> None:
    async with serving(socket_path, "--latency", "300ms"), connected(socket_path) as client:
        await client.info()
        before = asyncio.get_running_loop().time()
        await client.list_streams()
        assert asyncio.get_running_loop().time() - before >= 0.3


@pytest.mark.parametrize("backend", [row.kind for row in REGISTRY.values() if row.served_by])
async def test_a_backend_of_the_agent_is_refused_with_the_command_that_serves_it(
    backend: str, socket_path: Path
) -> None:
    code, _, err = await run("serve", "--backend", backend, "--socket", str(socket_path))
    assert code == 1
    assert err.startswith(f"error: the backend {backend} runs inside an agent")
    assert f"use {REGISTRY[backend].served_by}" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "mysql", "--socket", "a"], "there are debezium, kafka-mirror, litestream, memory"),
        (["--backend", "memory", "--socket", "a", "--latency", "soon"], "'soon' is not a duration"),
        (["--backend", "memory", "--socket", "a", "--latency", "-1s"], "is not a duration"),
        (["--backend", "memory", "--socket", "a", "--latency", "10s - 5s"], "'10s - 5s' is not a duration"),
        (["--backend", "memory", "--socket", "a", "--latency", "10mm"], "'10mm' is not a duration"),
        (["--backend", "memory"], "--socket"),
    ],
)
async def test_a_wrong_command_line_ends_with_2(arguments: list[str], words: str) -> None:
    code, out, err = await run("serve", *arguments)
    assert (code, out) == (2, "")
    assert words in err


async def test_help_names_the_command() -> None:
    code, out, _ = await run("--help")
    assert code == 0
    assert "serve" in out
