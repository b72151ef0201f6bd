"""A destination's URL is read as the engine reads it: the engine is asked which host it connects to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from replicator.backends.sqlite.hosts import form_to_write
from replicator.backends.sqlite.litestream import Binary, CommandLine, EngineError
from replicator.backends.sqlite.replica import S3Location, parse_replica

REFUSED = {
    "shop.s3.amazonaws.com": "s3://shop/prefix",
    "shop.s3.eu-west-1.amazonaws.com": "s3://shop/prefix?region=eu-west-1",
    "my.bucket.s3.eu-west-1.amazonaws.com": "s3://my.bucket/prefix?region=eu-west-1",
    "shop.fra1.digitaloceanspaces.com": "s3://shop/prefix?endpoint=https://fra1.digitaloceanspaces.com&region=fra1",
    "shop.s3.us-west-002.backblazeb2.com": (
        "s3://shop/prefix?endpoint=https://s3.us-west-002.backblazeb2.com&region=us-west-002"
    ),
    "shop.s3.filebase.com": "s3://shop/prefix?endpoint=https://s3.filebase.com",
    "shop.s3.fr-par.scw.cloud": "s3://shop/prefix?endpoint=https://s3.fr-par.scw.cloud&region=fr-par",
    "shop.minio.local:9000": "s3://shop/prefix?endpoint=http://minio.local:9000",
}
WITHOUT_A_BUCKET = {
    "fra1.digitaloceanspaces.com": "s3://bucket/prefix?endpoint=https://fra1.digitaloceanspaces.com&region=fra1",
    "s3.filebase.com": "s3://bucket/prefix?endpoint=https://s3.filebase.com",
    "minio:9000": "s3://bucket/prefix?endpoint=http://minio:9000",
}
ACCEPTED = [
    "plain",
    "my.bucket.name",
    "bucket.region.store.com",
    "shop.s3.example.com",
    "b.digitaloceanspaces.com.example",
    "b-digitaloceanspaces.com",
    "s3.eu-west-1.amazonaws.com",
    "b.scw.cloud",
]


@pytest.mark.parametrize(("host", "form"), (REFUSED | WITHOUT_A_BUCKET).items())
def test_a_host_that_names_a_store_is_refused_with_the_form_to_write(host: str, form: str) -> None:
    assert form_to_write(host, "prefix") == form
    with pytest.raises(ValueError, match="litestream reads this host as a bucket and its store") as refused:
        parse_replica(f"s3://{host}/p?region=eu-west-1")
    assert str(refused.value).endswith(f"write {form.replace('/prefix', '/p')}")
    assert isinstance(parse_replica(form), S3Location)


@pytest.mark.parametrize("host", ACCEPTED)
def test_other_names_with_dots_are_buckets(host: str) -> None:
    location = parse_replica(f"s3://{host}/p")
    assert isinstance(location, S3Location)
    assert (location.bucket, location.endpoint) == (host, None)


@dataclass
class Proxy:
    """An HTTP proxy that refuses everything, and keeps what it was asked for."""

    environment: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).decode().split()[1])
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        writer.close()


@asynccontextmanager
async def _proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    server = await asyncio.start_server(proxy.answer, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    proxy.environment = {"HTTP_PROXY": address, "HTTPS_PROXY": address, **keys}
    try:
        yield proxy
    finally:
        server.close()


async def _first_contact(binary: Binary, url: str) -> str:
    async with _proxy() as proxy:
        command = asyncio.create_task(CommandLine(binary.path, proxy.environment).ltx(url))
        while not proxy.asked and not command.done():
            await asyncio.sleep(0.02)
        command.cancel()
        with suppress(EngineError, asyncio.CancelledError):
            await command
        return proxy.asked[0].removeprefix("http://").partition("/")[0].removesuffix(":443")


@pytest.mark.engine
@pytest.mark.parametrize(("host", "form"), REFUSED.items())
async def test_the_form_to_write_leads_the_engine_to_the_same_store(binary: Binary, host: str, form: str) -> None:
    region = "" if "region=" in form else f"{'&' if '?' in form else '?'}region=eu-west-1"
    named = await _first_contact(binary, f"s3://{host}/prefix?region=eu-west-1")
    written = await _first_contact(binary, form + region)
    assert written.removeprefix("shop.") == named.removeprefix("shop.")  # virtual style has the bucket in it


@pytest.mark.engine
@pytest.mark.parametrize("host", ACCEPTED)
async def test_the_engine_takes_the_other_names_for_buckets_of_aws(binary: Binary, host: str) -> None:
    location = parse_replica(f"s3://{host}/p?region=eu-west-1")
    contact = await _first_contact(binary, location.url_for_engine())
    assert contact in ("s3.eu-west-1.amazonaws.com", f"{host}.s3.eu-west-1.amazonaws.com")
