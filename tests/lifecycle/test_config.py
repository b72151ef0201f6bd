"""The provider's configuration: addresses, what is wrong with one, and the way out."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from replicator.backends import REGISTRY
from replicator.errors import InvalidConfig
from replicator.lifecycle.config import Preflight, ProviderConfig, all_settings, configured, parse_config
from replicator.lifecycle.config_diff import changes
from replicator.property_values import Secret
from replicator.remote.address import default_address

from tests.lifecycle.builders import config

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
    ("blocks", "backend", "region", "says", "fix"),
    [
        (
            {},
            "memory",
            "default",
            "no address for backend 'memory'",
            """pulumi config set replicator:memory '{"address": "unix:///run/replicator/agent.sock"}'""",
        ),
        (
            {"memory": {"regions": {"eu-fra": "unix:///b"}}},
            "memory",
            "default",
            "no address for backend 'memory'; memory.regions has eu-fra",
            "pulumi config set replicator:memory "
            """'{"regions": {"eu-fra": "unix:///b"}, "address": "unix:///run/replicator/agent.sock"}'""",
        ),
        (
            {"litestream": {"regions": {"eu-fra": "unix:///b"}}},
            "litestream",
            "us-west",
            "no address for backend 'litestream' in region 'us-west'; litestream.regions has eu-fra",
            "pulumi config set replicator:litestream "
            """'{"regions": {"eu-fra": "unix:///b", "us-west": "ssh://user@host"}}'""",
        ),
        (
            {"memory": Secret('{"regions": {"eu-fra": "unix:///b"}}')},
            "memory",
            "us-west",
            "no address for backend 'memory' in region 'us-west'; memory.regions has eu-fra",
            "pulumi config set --secret replicator:memory "
            """'{"regions": {"eu-fra": "unix:///b", "us-west": "ssh://user@host"}}'""",
        ),
    ],
)
def test_no_address(blocks: dict[str, Any], backend: str, region: str, says: str, fix: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        config(**blocks).address(REGISTRY[backend], region)
    assert (caught.value.message, caught.value.fix) == (says, fix)


RIGHT = """pulumi config set replicator:litestream '{"address": "unix:///run/replicator/agent.sock"}'"""
EAST = """pulumi config set replicator:litestream '{"regions": {"us-east": "ssh://user@host"}}'"""
BOTH = (
    "pulumi config set replicator:litestream "
    """'{"address": "unix:///run/replicator/agent.sock", "regions": {"us-east": "ssh://user@host"}}'"""
)
NO_AGENT = "is not an address of an agent; write unix:// and the absolute path of its socket, as in "
WORDS = "must be one of 'strict', 'warn' or 'off'"


@pytest.mark.parametrize(
    ("given", "path", "says", "fix"),
    [
        (
            {"litestrem": {}},
            "litestrem",
            "is not a setting of this provider; did you mean litestream?",
            f"pulumi config rm replicator:litestrem; then {RIGHT}",
        ),
        (
            {"token": "x"},
            "token",
            "is not a setting of this provider; it has debezium, kafkaMirror, litestream, memory, preflight",
            "pulumi config rm replicator:token",
        ),
        ({"backends": {}}, "backends", "is not a setting", "pulumi config rm replicator:backends"),
        ({"origin": {}}, "origin", "is not a setting", "pulumi config rm replicator:origin"),
        ({"litestream": "unix:///a"}, "litestream", "must be an object", RIGHT),
        ({"litestream": "5"}, "litestream", "must be an object", RIGHT),
        ({"litestream": 5}, "litestream", "must be an object", RIGHT),
        ({"litestream": True}, "litestream", "must be an object", RIGHT),
        ({"litestream": ["a"]}, "litestream", "must be an object", RIGHT),
        ({"litestream": '["a"]'}, "litestream", "must be an object", RIGHT),
        ({"litestream": '{"address": unix:///a}'}, "litestream", "is not JSON: Expecting value at character 13", RIGHT),
        ({"litestream": "{'address': 'a'}"}, "litestream", "is not JSON: Expecting property name", RIGHT),
        ({"litestream": {"adress": "a"}}, "litestream.adress", "is not known here; did you mean address?", RIGHT),
        ({"litestream": '{"adress": "a"}'}, "litestream.adress", "is not known here; did you mean address?", RIGHT),
        ({"litestream": {"address": 5}}, "litestream.address", "must be a string", RIGHT),
        ({"litestream": {"address": ""}}, "litestream.address", "must not be empty", RIGHT),
        ({"litestream": {"address": "db.example:70"}}, "litestream.address", NO_AGENT, RIGHT),
        ({"litestream": {"address": "https://db.example"}}, "litestream.address", NO_AGENT, RIGHT),
        ({"litestream": {"address": "unix://run/a.sock"}}, "litestream.address", NO_AGENT, RIGHT),
        ({"litestream": {"address": "ssh://u:hunter2@h"}}, "litestream.address", "an address holds no password", RIGHT),
        ({"litestream": {"regions": ["a"]}}, "litestream.regions", "must be an object", RIGHT),
        ({"litestream": {"regions": {"us-east": 5}}}, "litestream.regions.us-east", "must be a string", EAST),
        ({"litestream": {"regions": {"us-east": "db"}}}, "litestream.regions.us-east", NO_AGENT, EAST),
        (
            {"litestream": {"address": "db", "regions": {"us-east": "unix:///a"}}},
            "litestream.address",
            NO_AGENT,
            BOTH,
        ),
        (
            {"litestream": {"regions": {"US East": "unix:///a"}}},
            "litestream.regions",
            "'US East' is no region: a stream can only name one that matches ^[a-z0-9]",
            RIGHT,
        ),
        ({"preflight": "maybe"}, "preflight", WORDS, "pulumi config set replicator:preflight strict"),
        ({"preflight": "wran"}, "preflight", WORDS, "pulumi config set replicator:preflight warn"),
        ({"preflight": '"maybe"'}, "preflight", WORDS, "pulumi config set replicator:preflight strict"),
        ({"preflight": 1}, "preflight", WORDS, "pulumi config set replicator:preflight strict"),
        ({"preflight": False}, "preflight", WORDS, "pulumi config set replicator:preflight strict"),
    ],
)
def test_what_is_wrong(given: dict[str, Any], path: str, says: str, fix: str) -> None:
    parsed, failures = parse_config(given)
    assert parsed == ProviderConfig()
    (failure,) = failures
    assert (failure.path, failure.code, failure.fix) == (path, "RPL-CONFIG-INVALID", fix)
    assert failure.reason.startswith(says)
    assert "hunter2" not in str(failure)
    with pytest.raises(InvalidConfig) as caught:
        configured(given)
    assert str(caught.value).startswith(f"replicator:{path}: {says}")
    assert caught.value.fix == fix


@pytest.mark.parametrize("given", [{"preflight": "warn"}, {"preflight": '"warn"'}, {"preflight": Secret("warn")}])
def test_a_word_in_each_form(given: dict[str, Any]) -> None:
    assert config(**given).preflight is Preflight.WARN


def test_what_a_hint_says_is_right() -> None:
    assert parse_config({"litestream": shlex.split(BOTH)[-1]})[1] == []
    assert parse_config({"litestream": shlex.split(EAST)[-1]})[1] == []


WAYS = [
    (
        {"resource": "agents"},
        "in the program, change litestream of the provider resource 'agents', "
        """as in {"address": "unix:///run/replicator/agent.sock"}""",
        "in the program, remove litestrem from the provider resource 'agents'; then ",
    ),
    ({}, RIGHT, "pulumi config rm replicator:litestrem; then "),
]


@pytest.mark.parametrize(("where", "fix", "removal"), WAYS)
def test_the_way_out_leads_to_where_the_setting_was_written(where: dict[str, Any], fix: str, removal: str) -> None:
    _, failures = parse_config({"litestream": {"adress": "a"}, "litestrem": {}}, **where)
    assert sorted(failure.fix or "" for failure in failures) == sorted([fix, removal + fix])
    parsed, _ = parse_config({"litestream": {"regions": {"eu": "unix:///a"}}}, **where)
    with pytest.raises(InvalidConfig) as caught:
        parsed.address(REGISTRY["litestream"], "us")
    assert (caught.value.fix or "").startswith(fix.partition("{")[0])


# --- environment variables -------------------------------------------------------------------------------------------


def test_each_setting_has_a_variable() -> None:
    names = {key: setting.variable for key, setting in all_settings().items()}
    assert names == {
        "debezium": "REPLICATOR_DEBEZIUM",
        "kafkaMirror": "REPLICATOR_KAFKA_MIRROR",
        "litestream": "REPLICATOR_LITESTREAM",
        "memory": "REPLICATOR_MEMORY",
        "preflight": "REPLICATOR_PREFLIGHT",
    }


HERE = {"REPLICATOR_LITESTREAM": '{"address": "unix:///env"}', "REPLICATOR_PREFLIGHT": "off", "REPLICATOR_MEMORY": ""}


@pytest.mark.parametrize(
    ("given", "address", "preflight"),
    [
        ({}, "unix:///env", "off"),
        ({"preflight": "warn"}, "unix:///env", "warn"),
        ({"litestream": {"address": "unix:///own"}}, "unix:///own", "off"),
        ({"litestream": {}}, default_address(), "off"),
    ],
)
def test_a_variable_gives_what_is_left_out(given: dict[str, Any], address: str, preflight: str) -> None:
    parsed = configured(given, environ=HERE)
    assert parsed.address(REGISTRY["litestream"], "default") == address
    assert parsed.preflight == preflight
    assert parsed.backends.keys() == {"litestream"}


@pytest.mark.parametrize("where", [{}, {"resource": "agents"}])
def test_the_way_out_of_a_wrong_variable_names_it(where: dict[str, Any]) -> None:
    wrong = {"REPLICATOR_LITESTREAM": "unix:///a", "REPLICATOR_PREFLIGHT": "loud"}
    _, failures = parse_config({}, environ=wrong, **where)
    assert {failure.path: failure.fix for failure in failures} == {
        "litestream": """export REPLICATOR_LITESTREAM='{"address": "unix:///run/replicator/agent.sock"}'""",
        "preflight": "export REPLICATOR_PREFLIGHT=strict",
    }
    assert parse_config({"litestream": {}, "preflight": "off"}, environ=wrong, **where)[1] == []


# --- the whole -------------------------------------------------------------------------------------------------------


def test_what_pulumi_adds_is_no_setting() -> None:
    parsed = config(version="1.2.3", pluginDownloadURL="x", __internal="{}", preflight="warn")
    assert parsed == ProviderConfig(preflight=Preflight.WARN)


def test_every_failure_is_told_at_once() -> None:
    given = {"a": 1, "b": 2, "litestream": "{", "preflight": "x"}
    _, failures = parse_config(given)
    assert [failure.path for failure in failures] == ["a", "b", "litestream", "preflight"]
    with pytest.raises(InvalidConfig, match="4 settings are wrong") as caught:
        configured(given)
    assert all(f"replicator:{key}: " in str(caught.value) for key in given)


def test_each_block_is_a_backend_of_the_registry() -> None:
    keys = [backend.config_key for backend in REGISTRY.values()]
    assert len(set(keys)) == len(keys)
    parsed = config(**{backend.config_key: {"address": backend.example} for backend in REGISTRY.values()})
    assert parsed.backends.keys() == REGISTRY.keys()


@pytest.mark.parametrize("text", [" strict", "Strict", "strict ", "STRICT", True])
def test_a_setting_in_another_spelling_is_refused_with_what_to_write(text: object) -> None:
    _, (failure,) = parse_config({"preflight": text})
    assert (failure.path, failure.reason) == ("preflight", "must be one of 'strict', 'warn' or 'off'")
    assert failure.fix == "pulumi config set replicator:preflight strict"


@pytest.mark.parametrize("key", ["regions", "secretProviders"])
def test_an_object_within_a_block_is_no_text(key: str) -> None:
    _, (failure,) = parse_config({"kafkaMirror": {"address": "http://w:8083", key: '{"us-east": "http://w:8083"}'}})
    assert (failure.path, failure.reason) == (f"kafkaMirror.{key}", "must be an object")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"preflight": "strict"}, {"preflight": '"strict"'}),
        ({"litestream": {"address": "unix:///a"}}, {"litestream": ' {"address":  "unix:///a"}'}),
    ],
)
def test_a_setting_as_text_means_what_it_spells(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert parse_config(old) == parse_config(new)
    assert changes(old, new) == changes(new, old) == []
