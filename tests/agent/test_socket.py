"""What whoever may write to the socket can send: an agent refuses for itself what a preview would have refused."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from typing import Any

import pytest
from replicator.errors import InvalidStream, ReplicatorError, SecretSyntax, Unsupported
from replicator.model import Stream
from replicator.replicator import Severity

from tests.agent.support import Host
from tests.engines import make_database

pytestmark = pytest.mark.engine

REFUSED: list[tuple[dict[str, Any], type[ReplicatorError], str]] = [
    ({"options": {"meta-path": "/etc/cron.d"}}, Unsupported, "options.meta-path"),
    ({"options": {"path": "/etc/passwd"}}, InvalidStream, "options.path"),
    ({"options": {"replicas": [{"url": "s3://thief/x"}]}}, InvalidStream, "options.replicas"),
    ({"options": {"exec": "/bin/sh"}}, Unsupported, "options.exec"),
    ({"options": {"monitor-interval": {"dbs": []}}}, InvalidStream, "options.monitor-interval"),
    ({"options": {"api-token": "x"}}, InvalidStream, "options.api-token"),
    ({"mode": "cdc"}, Unsupported, "mode"),
    ({"startFrom": "latest"}, Unsupported, "startFrom"),
    ({"filter": "tenant = 1"}, Unsupported, "filter"),
    ({"exclude": ["users"]}, Unsupported, "exclude"),
    ({"conflict": "dest_wins"}, Unsupported, "conflict"),
    ({"drainBeforeDelete": "wait"}, Unsupported, "drainBeforeDelete"),
    ({"source": {"kind": "kafka", "uri": "kafka://broker/etc/passwd"}}, Unsupported, "backend"),
    ({"source": {"kind": "sqlite", "uri": "sqlite:///a.db", "authRef": "hunter2"}}, SecretSyntax, "source.authRef"),
]


def test_an_agent_refuses_what_a_preview_refuses(host: Host) -> None:
    make_database(host.database())
    host.start()

    async def ask() -> None:
        async with host.client() as client:
            for changes, kind, property in REFUSED:
                stream = host.stream(**changes)
                for call in (client.upsert_stream(stream), client.adopt_stream(stream), look(client, stream)):
                    with pytest.raises(kind) as refused:
                        await call
                    assert (refused.value.property, refused.value.stream) == (property, "orders")
                    assert "hunter2" not in str(refused.value)
            assert await client.list_streams() == []
            await client.upsert_stream(host.stream(options={"busy-timeout": "2s"}))  # the control

    asyncio.run(ask())


async def look(client: Any, stream: Stream) -> None:
    for finding in await client.preflight(stream):
        if finding.severity is Severity.ERROR:
            raise finding.error(stream.name)


STORE = "s3://bucket/prefix?endpoint=http://127.0.0.1:9"
LONG = "x" * 300
STREAMS: list[tuple[dict[str, Any], str]] = [
    ({"destination": {"kind": "s3", "uri": uri}}, "destination.uri")
    for uri in (
        f"{STORE}&region=../x",
        f"{STORE}&region=us_east",
        f"{STORE}&region=%00",
        f"{STORE}&region={'a' * 64}",
        f"{STORE}&region=%C3%BC",
        "s3://bucket/prefix?endpoint=http://a_b:9000",
        "s3://bucket/prefix?endpoint=http://ex%20ample",
        "s3://bucket/prefix?endpoint=http://127.0.0.1%00:9",
        "s3://bucket/prefix?endpoint=http://127.0.0.1:9/%0a",
        "s3://bucket/prefix?endpoint=http://127.0.0.1:9/?x=1",
        f"s3://bucket/prefix?endpoint=http://{'a' * 64}.example",
        "s3://bucket/prefix\0",
        "file:///tmp/a%00b",
        "file:///tmp/a\x7fb",
        "file:///tmp/a\x85b",
        f"file:///tmp/{LONG}",
    )
] + [
    ({"source": {"kind": "sqlite", "uri": uri}}, "source.uri")
    for uri in (
        "sqlite:///tmp/a\0b",
        "sqlite:///tmp/a%00b",
        "sqlite:///tmp/a%0ab",
        "sqlite:///%ff",
        f"sqlite:///{LONG}",
    )
]
TARGETS = (
    "/tmp/a\0b",
    "/tmp/a\nb",
    "/\0/b",
    "sqlite:///tmp/a\x7fb",
    f"/{LONG}/x",
    f"/tmp/{LONG}",
    "/",
    "/tmp/..",
    "//",
    "x",
)


def test_no_text_brings_about_an_error_that_is_not_expected(host: Host) -> None:
    for name in ("orders", "other"):
        make_database(host.database(name))
    host.start()
    start = {"lsn": f"{1:016x}"}

    async def ask() -> None:
        async with host.client() as client:
            await client.upsert_stream(host.stream())
        for changes, property in STREAMS:
            body = {"stream": {**host.stream("other").wire(), **changes}}
            found = raw(host, "POST", "preflight", body)
            finding = found if isinstance(found, dict) else found[0]  # a model refuses some already
            for answer in (finding, raw(host, "PUT", "streams", body), raw(host, "POST", "adoptions", body)):
                assert answer.get("code") not in (None, "RPL-AGENT-FAULT"), (changes, answer)
                assert answer["property"] in (property, property.removesuffix(".uri")), (changes, answer)
        for target in TARGETS:
            for path, more in (("replay-plan", {}), ("replays", {"key": "k"})):
                answer = raw(host, "POST", f"streams/orders/{path}", {"start": start, "target": target, **more})
                assert answer["code"] in ("RPL-STREAM-INVALID", "RPL-SOURCE-MISSING", "RPL-REPLAY-REFUSED"), answer
                assert (answer["property"], answer["stream"]) == ("target", "orders")
        for path in ("streams/a%00b/status", "streams/orders/replays/a%00b", "streams/a%0Ab/status"):
            assert raw(host, "GET", path)["code"] == "RPL-STREAM-INVALID"

    asyncio.run(ask())
    assert "Traceback" not in host.log()


def raw(host: Host, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """What the agent answers to a request that no client of ours would send."""
    connection = http.client.HTTPConnection("agent", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(host.socket))
    try:
        connection.request(verb, f"/v1/litestream/{path}", json.dumps(body or {}), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
