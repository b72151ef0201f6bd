"""The provider's configuration: addresses, and what is wrong with one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from replicator.backends import REGISTRY
from replicator.errors import InvalidConfig
from replicator.lifecycle.config import Preflight, ProviderConfig, parse_config
from replicator.remote.address import default_address

from tests.lifecycle.given import config

REGIONS = {"us-east": "unix:///a", "eu-fra": "unix:///b"}


@pytest.mark.parametrize(
    ("blocks", "backend", "region", "expected"),
    [
        ({"litestream": {"address": "unix:///x"}}, "litestream", "default", "unix:///x"),
        ({"litestream": {"address": "unix:///x"}}, "litestream", "us-east", "unix:///x"),
        ({"litestream": {"address": "unix:///x", "regions": REGIONS}}, "litestream", "eu-fra", "unix:///b"),
        ({"litestream": {"address": "unix:///x", "regions": REGIONS}}, "litestream", "default", "unix:///x"),
        ({"litestream": {"regions": REGIONS}}, "litestream", "us-east", "unix:///a"),
        ({"litestream": json.dumps({"regions": REGIONS})}, "litestream", "us-east", "unix:///a"),
        ({"litestream": ' {"address": "ssh://host"}'}, "litestream", "default", "ssh://host"),
        ({}, "litestream", "us-east", default_address()),
        ({"litestream": {}}, "litestream", "us-east", default_address()),
        ({"memory": {"address": "unix:///m"}}, "memory", "default", "unix:///m"),
    ],
)
def test_an_address(blocks: dict[str, Any], backend: str, region: str, expected: str) -> None:
    assert config(**blocks).address(REGISTRY[backend], region) == expected


@pytest.mark.parametrize(
    ("blocks", "backend", "region"),
    [
        ({}, "memory", "default"),
        ({"memory": {}}, "memory", "default"),
        ({"litestream": {"regions": REGIONS}}, "litestream", "default"),
        ({"litestream": {"regions": REGIONS}}, "litestream", "us-west"),
    ],
)
def test_no_address(blocks: dict[str, Any], backend: str, region: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        config(**blocks).address(REGISTRY[backend], region)
    assert caught.value.message == f"no address for backend {backend!r} and region {region!r}"
    assert f"replicator:{backend}.address" in str(caught.value)


@pytest.mark.parametrize(
    ("blocks", "path", "says"),
    [
        ({"litestrem": {}}, "litestrem", "is not a setting of this provider; it has litestream, memory, preflight"),
        ({"litestream": "unix:///a"}, "litestream", "must be an object"),
        ({"litestream": "{not json"}, "litestream", "must be an object"),
        ({"litestream": ["a"]}, "litestream", "must be an object"),
        ({"litestream": {"adress": "a"}}, "litestream.adress", "did you mean address?"),
        ({"litestream": {"address": 5}}, "litestream.address", "must be a string"),
        ({"litestream": {"address": ""}}, "litestream.address", "must not be empty"),
        ({"litestream": {"regions": ["a"]}}, "litestream.regions", "must be an object"),
        ({"litestream": {"regions": {"us": 5}}}, "litestream.regions.us", "must be a string"),
        ({"preflight": "maybe"}, "preflight", "must be one of 'strict', 'warn' or 'off'"),
    ],
)
def test_what_is_wrong(blocks: dict[str, Any], path: str, says: str) -> None:
    parsed, failures = parse_config(blocks)
    assert [failure.path for failure in failures] == [path]
    assert says in failures[0].reason
    assert failures[0].code == "RPL-CONFIG-INVALID"
    assert parsed == ProviderConfig()


def test_what_pulumi_adds_is_no_setting() -> None:
    parsed = config(version="1.2.3", pluginDownloadURL="x", __internal="{}", preflight="warn")
    assert parsed == ProviderConfig(preflight=Preflight.WARN)


def test_every_failure_is_told_at_once() -> None:
    _, failures = parse_config({"a": 1, "b": 2, "preflight": "x"})
    assert [failure.path for failure in failures] == ["a", "b", "preflight"]


def test_each_block_is_a_backend_of_the_registry() -> None:
    keys = [backend.config_key for backend in REGISTRY.values()]
    assert len(set(keys)) == len(keys)
    parsed = config(**{key: {"address": "a"} for key in keys})
    assert parsed.backends.keys() == REGISTRY.keys()
