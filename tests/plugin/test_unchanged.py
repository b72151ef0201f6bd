"""What the plugin answers without looking: a stack in which nothing changes costs no model."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from replicator.plugin._proto import pb
from replicator.plugin.codec import encode

from tests.lifecycle.builders import URN
from tests.plugin.builders import failing, memory_inputs, serving

LIVES = """
import asyncio, sys
from replicator.plugin._proto import pb
from replicator.plugin.codec import encode
from replicator.plugin.servicer import Servicer

async def run(config, old, new):
    servicer = Servicer()
    await servicer.CheckConfig(pb.CheckRequest(olds=encode(config), news=encode(config)), None)
    await servicer.Configure(pb.ConfigureRequest(args=encode(config)), None)
    urn = "urn:pulumi:dev::a::replicator:index:Stream::c"
    ask = pb.CheckRequest(urn=urn, olds=encode(old), news=encode(new))
    new = (await servicer.Check(ask, None)).inputs
    ask = pb.DiffRequest(urn=urn, id="memory/default/orders", old_inputs=encode(old), news=new)
    diff = await servicer.Diff(ask, None)
    print(pb.DiffResponse.DiffChanges.Name(diff.changes), "pydantic" in sys.modules)
"""


def run(old: dict[str, Any], new: dict[str, Any]) -> str:
    script = f"{LIVES}\nasyncio.run(run({{'memory': {{'address': 'unix:///nowhere'}}}}, {old!r}, {new!r}))"
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()


def test_nothing_is_loaded_where_nothing_changes() -> None:
    written = {key: value for key, value in memory_inputs().items() if key not in ("name", "backend")}
    checked = {**written, "name": "orders", "backend": "memory"}
    assert run(checked, written) == "DIFF_NONE False"
    assert run(checked, {**written, "checkpointInterval": "5s"}) == "DIFF_SOME True"


@pytest.mark.parametrize(
    "changes",
    [{}, {"checkpointInterval": "60s"}, {"include": ["b", "a"]}, {"name": None}, {"mode": "cdc"}],
    ids=str,
)
async def test_the_short_answer_is_the_long_one(changes: dict[str, Any]) -> None:
    async with serving() as provider:
        written = {key: value for key, value in memory_inputs(**changes).items() if value is not None}
        given, refused = await provider.check(written)
        assert refused == []
        short = await provider.stub.Check(pb.CheckRequest(urn=URN, olds=encode(given), news=encode(written)))
        long, failures = await provider.servicer.resource(URN).check(URN, given, written)
        assert (short.inputs, list(short.failures)) == (encode(long), failures)


@pytest.mark.parametrize("dropped", ["mode", "checkpointInterval"])
async def test_a_property_that_was_taken_out_is_a_change(dropped: str) -> None:
    async with serving() as provider:
        given = await provider.checked(mode="cdc", checkpointInterval="60s")
        written = {key: value for key, value in given.items() if key != dropped}
        again, _ = await provider.check(written, given)
        assert dropped not in again
        assert list((await provider.diff(given, again)).diffs) == [dropped]


async def test_a_configuration_that_was_read_before_is_read_when_it_is_used() -> None:
    """The state of another release may hold what this one does not take."""
    config = encode({"memroy": {}})
    async with serving() as provider:
        reply = await provider.stub.CheckConfig(pb.CheckRequest(olds=config, news=config))
        assert (reply.inputs, list(reply.failures)) == (config, [])
        await provider.stub.Configure(pb.ConfigureRequest(args=config))
        error = await failing(provider.read("memory/default/orders"))
        assert "memroy: is not a setting of this provider" in (error.details() or "")
