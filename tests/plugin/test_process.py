"""The plugin as a process: how it starts, how it stops, and that it does not outlive its engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from google.protobuf import empty_pb2
from replicator import __version__
from replicator.plugin._proto import provider_pb2_grpc

PLUGIN = ["-m", "replicator.plugin"]
NOBODY = "127.0.0.1:9"  # an engine's address at which nothing listens
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, *{PLUGIN}, {NOBODY!r}], stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline().decode().strip(), flush=True)
time.sleep(60)
"""


@contextlib.asynccontextmanager
async def python(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def first_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode()


async def version(port: int) -> str:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        return str((await stub.GetPluginInfo(empty_pb2.Empty(), timeout=10)).version)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    "arguments", [[], [NOBODY], ["--tracing", "http://127.0.0.1:9", NOBODY], ["--logflow", NOBODY]]
)
async def test_the_first_line_is_the_port_and_nothing_else(arguments: list[str]) -> None:
    async with python(*PLUGIN, *arguments) as process:
        line = await first_line(process)
        assert line == f"{int(line)}\n"
        assert await version(int(line)) == __version__


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "used",
    [
        pytest.param(False, id="at once"),
        pytest.param(True, id="after a call"),
    ],
)
async def test_a_signal_ends_it_quickly_and_well(number: signal.Signals, used: bool) -> None:
    async with python(*PLUGIN, NOBODY) as process:
        port = int(await first_line(process))
        if used:
            await version(port)
        began = time.monotonic()
        process.send_signal(number)
        out, err = await asyncio.wait_for(process.communicate(), 10)
        assert time.monotonic() - began < 2
        assert (process.returncode, out, err) == (0, b"", b"")


async def test_it_does_not_outlive_an_engine_that_was_killed() -> None:
    async with python("-c", PARENT) as parent:
        pid, port = map(int, (await first_line(parent)).split())
        try:
            assert await version(port) == __version__
            parent.kill()
            await parent.wait()
            began = time.monotonic()
            while alive(pid) and time.monotonic() - began < 8:
                await asyncio.sleep(0.05)
            assert not alive(pid)
            assert time.monotonic() - began < 5
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


HEAVY = ("pydantic", "pydantic_core", "httpx", "boto3", "starlette", "uvicorn", "typer", "rich", "durationpy", "yaml")
OWN = (
    "replicator.model",
    "replicator.lifecycle",
    "replicator.backends",
    "replicator.remote",
    "replicator.plugin.functions",
)
UNWANTED = (*HEAVY, *OWN, "pulumi.automation", "pulumi.resource", "pulumi.runtime.settings")


async def test_nothing_heavy_is_loaded_before_the_port() -> None:
    """The first call that needs one of these loads it."""
    async with python("-X", "importtime", *PLUGIN) as process:
        await first_line(process)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 10)
        loaded = {
            line.rpartition("|")[2].strip() for line in err.decode().splitlines() if line.startswith("import time:")
        }
        assert {"grpc.aio", "replicator.plugin.servicer", "pulumi.runtime.proto.provider_pb2"} <= loaded
        assert sorted(loaded & set(UNWANTED)) == []
