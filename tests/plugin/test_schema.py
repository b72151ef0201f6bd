"""The schema: fresh, described, sound, and true to what the plugin does."""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from replicator.backends import REGISTRY
from replicator.lifecycle.check import Identity, check
from replicator.lifecycle.config import Preflight, parse_config
from replicator.lifecycle.connections import StreamId
from replicator.model import Model
from replicator.plugin.functions import FUNCTIONS
from replicator.plugin.schema import build_schema, render
from replicator.plugin.schema_examples import LANGUAGES, sources
from replicator.plugin.schema_types import Types, docs_of

from tools.gobuild import Cache, cache_root
from tools.pulumi_cli import built

COMMITTED = Path(__file__).parents[2] / "schema.json"
URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"
STREAM = "replicator:index:Stream"
SECRET_KEY = re.compile(r"(?i)pass|pwd|secret|token|credential|(access|api|private)key")
SCHEMA = build_schema()


def properties_of(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each place that lists properties, and its list."""
    yield "config", schema["config"]["variables"]
    yield "provider", schema["provider"]["inputProperties"]
    for token, item in schema["types"].items():
        if "enum" not in item:
            yield token, item["properties"]
    for token, item in schema["resources"].items():
        yield f"{token} inputs", item["inputProperties"]
        yield f"{token} outputs", item["properties"]
    for token, item in schema["functions"].items():
        yield f"{token} inputs", item["inputs"]["properties"]
        yield f"{token} outputs", item["outputs"]["properties"]


def undescribed(schema: dict[str, Any]) -> list[str]:
    items = {"provider": schema["provider"]}
    for group in ("types", "resources", "functions"):
        items |= schema[group]
    for token, item in schema["types"].items():
        items |= {f"{token}: {value['value']}": value for value in item.get("enum", ())}
    for place, properties in properties_of(schema):
        items |= {f"{place}: {name}": item for name, item in properties.items()}
    return [name for name, item in items.items() if not item.get("description", "").strip()]


def refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            else:
                yield from refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from refs(item)


def test_the_committed_file_is_fresh() -> None:
    assert COMMITTED.read_text("utf-8") == render(), "run: make schema"


def test_the_module_prints_the_file() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "replicator.plugin.schema"], capture_output=True, check=True
    )
    assert done.stdout.decode() == render()
    assert json.loads(done.stdout) == SCHEMA


def test_everything_is_described() -> None:
    assert undescribed(SCHEMA) == []


def test_a_missing_description_is_found() -> None:
    schema = copy.deepcopy(SCHEMA)
    schema["types"]["replicator:index:Endpoint"]["properties"]["uri"]["description"] = " "
    del schema["functions"]["replicator:index:replay"]["description"]
    assert undescribed(schema) == ["replicator:index:replay", "replicator:index:Endpoint: uri"]


def test_each_reference_resolves_and_each_type_is_used() -> None:
    named = {f"#/types/{token}" for token in SCHEMA["types"]}
    assert set(refs(SCHEMA)) - {"pulumi.json#/Any"} == named


def test_required_names_are_properties() -> None:
    lists: list[tuple[dict[str, Any], list[str]]] = []
    for item in SCHEMA["resources"].values():
        lists += [(item["properties"], item["required"]), (item["inputProperties"], item["requiredInputs"])]
    for item in SCHEMA["functions"].values():
        lists += [(part["properties"], part["required"]) for part in (item["inputs"], item["outputs"])]
    lists += [(item["properties"], item["required"]) for item in SCHEMA["types"].values() if "enum" not in item]
    assert [names for properties, names in lists if names != sorted(names) or set(names) - set(properties)] == []


def test_no_two_tokens_differ_in_case_alone() -> None:
    tokens = [token.casefold() for group in ("types", "resources", "functions") for token in SCHEMA[group]]
    assert len(tokens) == len(set(tokens))


def test_a_stream_has_the_inputs_that_people_write_and_the_outputs_that_states_hold() -> None:
    stream = SCHEMA["resources"][STREAM]
    inputs, outputs = stream["inputProperties"], stream["properties"]
    assert "owner" not in inputs
    assert set(outputs) - set(inputs) == {"status", "engineObjects", "ownerToken", "ownerUrn"}
    assert stream["requiredInputs"] == ["destination", "source"]
    optional = {
        "filter",
        "checkpointInterval",
        "startFrom",
        "drainBeforeDelete",
        "bookmarks",
        "onDelete",
        "status",
        "engineObjects",
        "ownerToken",
        "ownerUrn",
    }
    assert set(stream["required"]) == set(outputs) - optional
    assert [name for name, item in inputs.items() if item.get("willReplaceOnChanges")] == ["name", "backend"]
    assert inputs["startFrom"]["oneOf"] == [{"type": "string"}, {"$ref": "#/types/replicator:index:Checkpoint"}]
    assert inputs["checkpointInterval"]["type"] == "string"
    assert inputs["options"]["additionalProperties"] == {"$ref": "pulumi.json#/Any"}


def test_functions_are_the_ones_that_the_plugin_serves() -> None:
    assert set(SCHEMA["functions"]) == set(FUNCTIONS)


def test_a_function_with_an_effect_waits_for_the_resources_that_it_depends_on() -> None:
    assert [name for name, item in SCHEMA["functions"].items() if item.get("plain") is False] == [
        "replicator:index:replay"
    ]


def test_each_setting_of_the_provider_is_read() -> None:
    blocks = {backend.config_key: {"address": backend.example} for backend in REGISTRY.values()}
    settings = {**blocks, "preflight": "warn"}
    assert settings.keys() == SCHEMA["config"]["variables"].keys()
    _, failures = parse_config(settings)
    assert failures == []
    assert SCHEMA["provider"]["inputProperties"].keys() == SCHEMA["config"]["variables"].keys()


def test_a_word_in_the_configuration_is_a_string_since_sdks_read_other_types_as_json() -> None:
    assert SCHEMA["provider"]["inputProperties"]["preflight"]["$ref"] == "#/types/replicator:index:Preflight"
    preflight = SCHEMA["config"]["variables"]["preflight"]
    assert preflight["type"] == "string"
    assert preflight["description"].endswith(f"One of {', '.join(f'`{word.value}`' for word in Preflight)}.")


def test_what_looks_like_a_secret_is_marked_as_one() -> None:
    held = {name: item for _, properties in properties_of(SCHEMA) for name, item in properties.items()}
    plain = {name for name, item in held.items() if SECRET_KEY.search(name) and not item.get("secret")}
    assert plain == {"secretProviders"}, "it names what reads secrets, and no secret"
    assert [name for name, item in held.items() if item.get("secret")] == ["ownerToken"]


def shown_in(schema: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The program in each language that a resource or function shows, by its token."""
    items = {**schema["resources"], **schema["functions"]}
    block = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    examples = re.compile(r"{{% examples %}}\n(.*){{% /examples %}}", re.DOTALL)
    return {
        token: {
            language: text for part in examples.findall(item["description"]) for language, text in block.findall(part)
        }
        for token, item in items.items()
    }


def unshown(schema: dict[str, Any]) -> list[str]:
    return [f"{token}: {word}" for token, shown in shown_in(schema).items() for word in LANGUAGES if word not in shown]


def test_each_resource_and_function_is_shown_in_four_languages() -> None:
    assert unshown(SCHEMA) == [], "write an example in YAML, then run: make sdk"
    assert {token.rpartition(":")[2] for token in shown_in(SCHEMA)} == set(sources())


def test_a_missing_example_is_found() -> None:
    schema = copy.deepcopy(SCHEMA)
    stream = schema["resources"][STREAM]
    stream["description"] = stream["description"].replace("```go", "```rust")
    schema["functions"]["replicator:index:replay"]["description"] = "A replay."
    assert unshown(schema) == [f"{STREAM}: go", *(f"replicator:index:replay: {word}" for word in LANGUAGES)]


def wrong(value: Any, item: dict[str, Any], place: str) -> Iterator[str]:
    """What the schema has against a value in a YAML program."""
    named = SCHEMA["types"].get(item.get("$ref", "").removeprefix("#/types/"))
    if named and "enum" in named:
        if value not in [each["value"] for each in named["enum"]]:
            yield f"{place} is no {item['$ref']}"
    elif named:
        yield from wrong_object(value, named, place)


def wrong_object(value: dict[str, Any], item: dict[str, Any], place: str) -> Iterator[str]:
    yield from (f"{place} has an unknown {name}" for name in value.keys() - item["properties"].keys())
    yield from (f"{place} has no {name}" for name in set(item.get("required", ())) - value.keys())
    for name in value.keys() & item["properties"].keys():
        yield from wrong(value[name], item["properties"][name], f"{place}.{name}")


def wrong_program(program: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, resource in program.get("resources", {}).items():
        row = SCHEMA["resources"][resource["type"]]
        inputs = {"properties": row["inputProperties"], "required": row["requiredInputs"]}
        found += wrong_object(resource["properties"], inputs, name)
    for name, variable in program.get("variables", {}).items():
        call = variable["fn::invoke"]
        found += wrong_object(call.get("arguments", {}), SCHEMA["functions"][call["function"]]["inputs"], name)
    return sorted(found)


@pytest.mark.parametrize("token", shown_in(SCHEMA))
def test_a_yaml_example_uses_what_it_shows_and_fits_the_schema(token: str) -> None:
    program = yaml.safe_load(shown_in(SCHEMA)[token]["yaml"])
    resources = [resource["type"] for resource in program.get("resources", {}).values()]
    calls = [variable["fn::invoke"]["function"] for variable in program.get("variables", {}).values()]
    assert token in resources + calls
    assert wrong_program(program) == []


def test_an_example_that_does_not_fit_the_schema_is_found() -> None:
    start = {"wall": "2026-11-25T09:00:00Z", "wal": 1}
    call = {"function": "replicator:index:planReplay", "arguments": {"start": start, "method": "magic"}}
    assert wrong_program({"variables": {"plan": {"fn::invoke": call}}}) == [
        "plan has no stream",
        "plan.method is no #/types/replicator:index:ReplayMethod",
        "plan.start has an unknown wal",
    ]


def test_the_streams_of_the_examples_pass_check() -> None:
    config, failures = parse_config({})
    assert failures == []
    programs = [yaml.safe_load(shown["yaml"]) for shown in shown_in(SCHEMA).values()]
    streams = [item for program in programs for item in program.get("resources", {}).values() if item["type"] == STREAM]
    checked = [check(stream["properties"], (), {}, Identity.of_urn(URN), config) for stream in streams]
    assert [each.failures for each in checked] == [[]] * len(streams) != []

    imported = re.search(rf"pulumi import {STREAM} orders (\S+)", SCHEMA["resources"][STREAM]["description"])
    assert imported is not None
    assert StreamId.parse(imported[1]) == StreamId("litestream", "us-east", "orders")


class Sample(Model):
    """A class.

    Its second paragraph.

    :param name: a text
        of two lines; `None` where nobody knows.
    :param other: short.
    """

    name: str | None = None
    other: str


class Extended(Sample):
    """Another class.

    :param other: told again.
    """


def test_descriptions_come_from_the_docstrings() -> None:
    docs = docs_of(Extended)
    assert docs.text == "Another class."
    assert docs.fields == {"name": "A text of two lines; null where nobody knows.", "other": "Told again."}
    assert docs_of(Sample).text == "A class. Its second paragraph."


def test_a_type_that_pulumi_does_not_have_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"set\[str\]"):
        Types("replicator").of(set[str])


def test_the_plugin_starts_without_what_makes_the_schema() -> None:
    code = (
        "import sys, replicator.plugin.__main__; print([name for name in sys.modules if name.startswith('replicator')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert "replicator.plugin.servicer" in loaded
    assert not {name for name in loaded if "schema" in name or name.endswith(".shapes")}


@pytest.fixture(scope="module")
def pulumi() -> Path:
    folder = built(Cache(cache_root(os.environ)))
    if folder is None:
        pytest.skip("the Pulumi CLI is not built: python tools/pulumi_cli.py path")
    return folder / "pulumi"


def schema_check(pulumi: Path, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "schema.json"
    path.write_text(text, "utf-8")
    env = os.environ | {"PULUMI_HOME": str(folder / "home"), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    command = [str(pulumi), "schema", "check", str(path), "--color", "never"]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@pytest.mark.cli
def test_pulumi_accepts_the_schema(pulumi: Path, tmp_path: Path) -> None:
    done = schema_check(pulumi, COMMITTED.read_text("utf-8"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.cli
def test_pulumi_refuses_a_schema_with_a_dangling_reference(pulumi: Path, tmp_path: Path) -> None:
    schema = copy.deepcopy(SCHEMA)
    del schema["types"]["replicator:index:Mode"]
    done = schema_check(pulumi, json.dumps(schema), tmp_path)
    assert done.returncode != 0
    assert "type replicator:index:Mode not found" in done.stderr
