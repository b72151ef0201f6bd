from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from replicator import __version__
from replicator.backends.memory import MemoryReplicator
from replicator.errors import InvalidStream
from replicator.model import Owner
from replicator.remote import connection
from replicator.remote.client import RemoteReplicator
from replicator.remote.routes import OPERATIONS, PROTOCOL
from replicator.remote.server import build_app
from replicator.replicator import EndHints, ReplayMethod, Replicator

from tests.remote.support import (
    ADOPTION,
    DESCRIPTION,
    FINDING,
    HINT,
    LOG,
    PLAN,
    PROGRESS,
    PROPOSAL,
    START,
    STATUS,
    TAKEOVER,
    UNMANAGED,
    Recorder,
    connected,
    make_stream,
    serving,
)


@dataclass
class Case:
    """A call: what is given, what the other side must see, and the answer."""

    method: str
    given: dict[str, Any]
    answer: Any = None
    defaults: dict[str, Any] = field(default_factory=dict)


_OWNER = Owner(urn="urn:x", token="t", claim=True)
_DEFAULTS = {"method": ReplayMethod.AUTO, "target": None}

CASES = [
    Case("upsert_stream", {"stream": make_stream()}),
    Case("adopt_stream", {"stream": make_stream()}, ADOPTION, {"dry_run": False}),
    Case("adopt_stream", {"stream": make_stream(), "dry_run": True}, ADOPTION),
    Case("look_at_destination", {"destination": make_stream().destination}, TAKEOVER, {"database": None}),
    Case(
        "look_at_destination",
        {"destination": make_stream().destination, "database": make_stream().source},
        TAKEOVER,
    ),
    Case("take_over", {"destination": make_stream().destination, "former": "a" * 32}),
    Case("take_over", {"destination": make_stream().destination, "former": None}),
    Case("unmanaged", {}, [UNMANAGED]),
    Case(
        "propose",
        {"name": "Orders_1", "source": EndHints(auth_ref="env://PG_*"), "destination": EndHints(region="eu")},
        PROPOSAL,
    ),
    Case("delete_stream", {"name": "orders"}, False, defaults={"owner": None}),
    Case("delete_stream", {"name": "orders", "owner": _OWNER}, False),
    Case("list_streams", {}, [make_stream(), make_stream("users", options={})]),
    Case("get_status", {"name": "orders"}, STATUS),
    Case("get_status", {"name": "Not a name? #%2F ü"}, STATUS),
    Case("get_status", {"name": ".."}, STATUS),
    Case("log", {"name": "orders"}, LOG, {"after": None, "lines": 100}),
    Case("log", {"name": "orders", "after": "c.1", "lines": 0}, LOG),
    Case("pause", {"name": "orders"}),
    Case("resume", {"name": "orders"}),
    Case("replay", {"name": "orders", "start": START, "key": "k"}, PROGRESS, _DEFAULTS),
    Case(
        "replay",
        {"name": "orders", "start": START, "key": "k", "method": ReplayMethod.COPY, "target": "/srv/copy.db"},
        PROGRESS,
    ),
    Case("get_replay", {"name": "orders", "key": "k"}, PROGRESS),
    Case("list_replays", {"name": "orders"}, [PROGRESS]),
    Case("get_replay", {"name": "orders", "key": "../a b/ü?x=1#y%2F."}, PROGRESS),
    Case("plan_replay", {"name": "orders", "start": START}, PLAN, _DEFAULTS),
    Case("plan_replay", {"name": "orders", "start": START, "method": ReplayMethod.RESEED, "target": "t"}, PLAN),
    Case("preflight", {"stream": make_stream()}, [FINDING]),
    Case("describe", {}, [DESCRIPTION], {"names": None}),
    Case("describe", {"names": []}, [DESCRIPTION]),
    Case("describe", {"names": ["orders", "users"]}, [DESCRIPTION]),
    Case("overview", {}, [DESCRIPTION]),
    Case("identity", {}, "id"),
]


def test_every_operation_has_a_case() -> None:
    assert {case.method for case in CASES} == {row.method for row in OPERATIONS}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
async def test_an_operation_arrives_whole_and_so_does_its_answer(case: Case, socket_path: Path) -> None:
    recorder = Recorder()
    async with serving(build_app({"recorder": recorder}), socket_path), connected(socket_path) as client:
        assert await getattr(client, case.method)(**case.given) == case.answer
    assert recorder.calls == [(case.method, case.given | case.defaults)]


def test_the_client_is_a_replicator() -> None:
    client: Replicator = RemoteReplicator("memory", "unix:///a", start_hint=HINT)
    assert client.kind == "memory"


@pytest.fixture
async def in_process() -> AsyncIterator[tuple[Recorder, RemoteReplicator]]:
    recorder = Recorder()
    transport = httpx.ASGITransport(build_app({"recorder": recorder}))
    client = RemoteReplicator("recorder", "unix:///nowhere", start_hint=HINT, transport=transport)
    yield recorder, client
    await client.aclose()


async def test_without_a_socket(in_process: tuple[Recorder, RemoteReplicator]) -> None:
    recorder, client = in_process
    assert await client.get_status("orders") == STATUS
    assert recorder.calls == [("get_status", {"name": "orders"})]


@pytest.mark.parametrize(
    ("method", "arguments", "property"),
    [
        ("get_status", {"name": ""}, "name"),
        ("pause", {"name": "a/b"}, "name"),
        ("get_replay", {"name": "a", "key": ""}, "key"),
        ("get_replay", {"name": "a", "key": "k\n"}, "key"),
        ("replay", {"name": "a", "start": START, "key": "k\n"}, "key"),
        ("log", {"name": "a", "lines": 1001}, "lines"),
        ("log", {"name": "a", "after": ""}, "after"),
    ],
)
async def test_what_no_path_can_hold_is_refused_before_it_is_sent(
    in_process: tuple[Recorder, RemoteReplicator], method: str, arguments: dict[str, Any], property: str
) -> None:
    recorder, client = in_process
    with pytest.raises(InvalidStream) as caught:
        await getattr(client, method)(**arguments)
    assert caught.value.property == property
    assert recorder.calls == []


async def test_info_says_who_answers_and_counts_the_calls(socket_path: Path) -> None:
    told: list[str] = []
    app = build_app({"recorder": Recorder(), "memory": MemoryReplicator()}, info={"engine": "v1"}, on_call=told.append)
    async with serving(app, socket_path), connected(socket_path) as client:
        await client.describe()
        await client.describe()
        await client.pause("orders")
        info = await client.info()
    assert (info.protocol, info.version, info.kinds) == (PROTOCOL, __version__, ["memory", "recorder"])
    assert info.model_extra == {"engine": "v1"}
    assert info.started_at.tzinfo is not None
    assert info.calls == {row.method: 0 for row in OPERATIONS} | {"describe": 2, "pause": 1}
    assert told == ["describe", "describe", "pause"]


async def test_latency_delays_each_operation(socket_path: Path) -> None:
    app = build_app({"recorder": Recorder()}, latency=timedelta(milliseconds=500))
    clock = asyncio.get_running_loop().time
    async with serving(app, socket_path), connected(socket_path) as client:
        await client.info()
        before = clock()
        await asyncio.gather(client.pause("a"), client.pause("b"))
        assert 0.5 <= clock() - before < 0.95


async def test_64_calls_at_once(socket_path: Path) -> None:
    memory = MemoryReplicator()
    names = [f"s{number}" for number in range(64)]
    async with serving(build_app({"memory": memory}), socket_path), connected(socket_path, "memory") as client:
        await asyncio.gather(*(client.upsert_stream(make_stream(name, start_from=None)) for name in names))
        statuses = await asyncio.gather(*map(client.get_status, names))
        described = await client.describe()
    assert [status.name for status in statuses] == names
    assert sorted(item.stream.name for item in described) == sorted(names)


async def test_clients_of_one_address_share_connections_until_the_last_one_closes(socket_path: Path) -> None:
    app = build_app({"recorder": Recorder(), "memory": MemoryReplicator()})
    here = asyncio.get_running_loop()
    async with serving(app, socket_path):
        async with connected(socket_path) as first:
            async with connected(socket_path, "memory") as second:
                await first.pause("orders")
                await second.list_streams()
                assert len(connection._shared[here]) == 1
            await first.pause("orders")
        assert connection._shared[here] == {}
        await first.pause("orders")
        await first.aclose()


def test_a_client_outlives_an_event_loop(socket_path: Path) -> None:
    client = RemoteReplicator("recorder", f"unix://{socket_path}", start_hint=HINT)

    async def use() -> None:
        async with serving(build_app({"recorder": Recorder()}), socket_path):
            assert await client.get_status("orders") == STATUS
            await client.aclose()

    others = set(connection._shared)  # another test's loop may live as long as the process
    asyncio.run(use())
    asyncio.run(use())
    (last,) = set(connection._shared) - others  # the first loop is forgotten when the second is used
    assert last.is_closed()
