"""The provider's configuration on the real CLI: each way to write it, and what is wrong with its way out."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory, serving
from tests.e2e.programs import stream
from tests.languages import prepare
from tests.pulumi import ROOT, Project, Ran

VARIABLE = "REPLICATOR_MEMORY"


def program(project: Project, properties: dict[str, Any] | None = None, **more: Any) -> None:
    """Write a program with one stream; with properties it has a provider of its own, `agents`."""
    main: dict[str, Any] = {"type": "replicator:index:Stream", "properties": stream(project)}
    resources = {"main": main}
    if properties is not None:
        resources["agents"] = {"type": "pulumi:providers:replicator", "properties": properties}
        main["options"] = {"provider": "${agents}"}
    project.write_yaml({"resources": resources, **more})


def looked(memory: Memory, preview: Callable[[], Ran]) -> Ran:
    """A preview that looked at the source and the destination, so that the configuration led it to the engine."""
    before = memory.calls()["preflight"]
    ran = preview()
    assert memory.calls()["preflight"] == before + 1
    return ran


# --- each way to write it --------------------------------------------------------------------------------------------


def _text(project: Project, block: dict[str, Any]) -> None:
    project.run("config", "set", "replicator:memory", json.dumps(block), "--stack", project.stack)


def _path(project: Project, block: dict[str, Any]) -> None:
    project.run("config", "set", "--path", "replicator:memory.address", block["address"], "--stack", project.stack)


def _path_of_region(project: Project, block: dict[str, Any]) -> None:
    key = "replicator:memory.regions.default"
    project.run("config", "set", "--path", key, block["address"], "--stack", project.stack)


def _secret(project: Project, block: dict[str, Any]) -> None:
    project.run("config", "set", "--secret", "replicator:memory", json.dumps(block), "--stack", project.stack)


def _project_file(project: Project, block: dict[str, Any]) -> None:
    program(project, config={"replicator:memory": {"value": block}, "replicator:preflight": "warn"})


def _provider(project: Project, block: dict[str, Any]) -> None:
    program(project, {"memory": block, "preflight": "warn"})


def _variable(project: Project, block: dict[str, Any]) -> None:
    project.environment[VARIABLE] = json.dumps(block)


def _variable_of_a_provider(project: Project, block: dict[str, Any]) -> None:
    program(project, {"preflight": "strict"})
    project.environment[VARIABLE] = json.dumps(block)


@pytest.mark.parametrize(
    "write",
    [_text, _path, _path_of_region, _secret, _project_file, _provider, _variable, _variable_of_a_provider],
    ids=lambda write: write.__name__.strip("_"),
)
def test_a_way_to_write_it(
    write: Callable[[Project, dict[str, Any]], None], memory: Memory, make_project: Make
) -> None:
    project = make_project(f"way-{write.__name__.strip('_').replace('_', '-')}")
    program(project)
    write(project, {"address": memory.address})
    assert looked(memory, project.preview).done("main") == ["create"]


PYTHON = """
import pulumi
import pulumi_replicator as replicator

agents = replicator.Provider(
    "agents", memory=replicator.BackendConfigArgs(address={address!r}, regions={{"us": {address!r}}}), preflight="warn"
)
orders = replicator.Stream("main", backend="memory", source={source!r}, destination={destination!r},
    opts=pulumi.ResourceOptions(provider=agents))
{functions}
pulumi.export("states", [now.state, same.state])
"""
NODE = """
import * as replicator from "@pulumi-replicator/replicator";

const memory = {{ address: {address}, regions: {{ us: {address} }} }};
const agents = new replicator.Provider("agents", {{ memory, preflight: replicator.Preflight.Warn }});
const orders = new replicator.Stream(
    "main", {{ backend: "memory", source: {source}, destination: {destination} }}, {{ provider: agents }},
);
{functions}
export const states = [now.state, same.state];
"""
GO = """
package main

import (
	"github.com/pulumi-replicator/pulumi-replicator/sdk/go/replicator"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

func main() {{
	pulumi.Run(func(ctx *pulumi.Context) error {{
		source, destination := pulumi.String({source}), pulumi.String({destination})
		agents, err := replicator.NewProvider(ctx, "agents", &replicator.ProviderArgs{{
			Memory: &replicator.BackendConfigArgs{{
				Address: pulumi.String({address}),
				Regions: pulumi.StringMap{{"us": pulumi.String({address})}},
			}},
			Preflight: replicator.PreflightWarn,
		}})
		if err != nil {{
			return err
		}}
		orders, err := replicator.NewStream(ctx, "main", &replicator.StreamArgs{{
			Backend:     pulumi.String("memory"),
			Source:      &replicator.EndpointArgs{{Kind: replicator.EndpointKindPostgres, Uri: source}},
			Destination: &replicator.EndpointArgs{{Kind: replicator.EndpointKindKafka, Uri: destination}},
		}}, pulumi.Provider(agents))
		if err != nil {{
			return err
		}}
		{functions}
		ctx.Export("states", pulumi.Array{{now.State(), same.State()}})
		return nil
	}})
}}
"""


def of_example(language: str, *names: str) -> dict[str, str]:
    """Files of the example in a language."""
    return {name: (ROOT / "examples" / f"litestream-{language}" / name).read_text() for name in names}


def of_page(language: str) -> str:
    """What docs/configuration.md writes in a language about functions with a provider of the program."""
    section = (ROOT / "docs" / "configuration.md").read_text().partition("### Functions with a provider")[2]
    return section.partition(f"```{language}\n")[2].partition("```")[0]


def _write_python(project: Project, address: str, inputs: dict[str, Any]) -> None:
    project.write_python(PYTHON.format(address=address, functions=of_page("python"), **inputs))


def _write_node(project: Project, address: str, inputs: dict[str, Any]) -> None:
    values = {key: json.dumps(value) for key, value in {"address": address, **inputs}.items()}
    beside = of_example("typescript", "package.json", "tsconfig.json")
    project.write_files("nodejs", {"index.ts": NODE.format(functions=of_page("typescript"), **values), **beside})


def _write_go(project: Project, address: str, inputs: dict[str, Any]) -> None:
    uris = {end: json.dumps(inputs[end]["uri"]) for end in ("source", "destination")}
    text = GO.format(address=json.dumps(address), functions=of_page("go"), **uris)
    project.write_files("go", {"main.go": text, **of_example("go", "go.mod", "go.sum")})


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "write", [_write_python, _write_node, _write_go], ids=lambda write: write.__name__.rpartition("_")[2]
)
def test_a_provider_of_an_sdk(
    write: Callable[[Project, str, dict[str, Any]], None], memory: Memory, make_project: Make
) -> None:
    """Python and TypeScript send the block as JSON text, Go as an object. Functions with it find the stream."""
    project = make_project(f"sdk-{write.__name__.rpartition('_')[2]}")
    write(project, memory.address, {key: value for key, value in stream(project).items() if key != "backend"})
    prepare(project)
    ran = looked(memory, project.preview)
    assert ran.done("main") == ["create"]
    project.up("--skip-preview")
    assert project.outputs()["states"] == ["running", "running"]


@pytest.mark.parametrize("option", ["provider", "parent"])
def test_a_function_with_the_provider_of_its_stream(option: str, memory: Memory, make_project: Make) -> None:
    project = make_project(f"asks-{option}")
    block = of_page("yaml")
    options = re.findall(r"\{(provider|parent): (\"[^\"]+\")\}", block)
    assert [name for name, _ in options] == ["provider", "parent"]
    variables = yaml.safe_load(block)["variables"]
    variables["now"]["fn::invoke"]["options"] = {option: json.loads(dict(options)[option])}
    resources = {
        "agents": {"type": "pulumi:providers:replicator", "properties": {"memory": {"address": memory.address}}},
        "orders": {
            "type": "replicator:index:Stream",
            "properties": stream(project),
            "options": {"provider": "${agents}"},
        },
    }
    project.write_yaml({"variables": variables, "resources": resources, "outputs": {"state": "${now.state}"}})
    project.up("--skip-preview")
    assert project.outputs() == {"state": "running"}

    del variables["now"]["fn::invoke"]["options"]
    project.write_yaml({"variables": variables, "resources": resources, "outputs": {"state": "${now.state}"}})
    ran = project.up("--skip-preview", check=False)
    assert ran.code != 0
    said = " ".join(" ".join(ran.said("error")).split())
    assert "if the stream has a provider of its own, give the function the same: options provider or parent" in said


# --- a wrong one, and its way out ------------------------------------------------------------------------------------


def hints(ran: Ran) -> list[str]:
    """What the messages tell a person to type."""
    lines = [line.strip() for message in ran.said("error") for line in message.splitlines()]
    return [line.removeprefix("→ ") for line in lines if line.startswith("→ ")]


@pytest.fixture(scope="module")
def mended(memory: Memory, make_project: Make) -> Project:
    project = make_project("mended")
    program(project)
    return project


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("memory", '{"adress": "unix:///a"}', "memory.adress: is not known here; did you mean address?"),
        (
            "memory",
            '{"regions": {"us": "unix:///a"}}',
            "backend: no address for backend 'memory'; memory.regions has us",
        ),
        ("memroy", '{"address": "unix:///a"}', "memroy: is not a setting of this provider; did you mean memory?"),
        ("preflight", "wran", "preflight: must be one of 'strict', 'warn' or 'off'"),
    ],
)
def test_what_the_hint_says_is_what_helps(mended: Project, memory: Memory, key: str, value: str, says: str) -> None:
    for setting in ("memory", "memroy", "preflight"):
        mended.run("config", "rm", f"replicator:{setting}", "--stack", mended.stack)
    if key == "preflight":
        mended.configure("replicator:memory", {"address": memory.address})
    mended.configure(f"replicator:{key}", value)
    refused = mended.preview(check=False)
    assert refused.code != 0
    assert f"has a problem: {says}" in refused.text
    (hint,) = hints(refused)
    for command in hint.replace("unix:///run/replicator/agent.sock", memory.address).split("; then "):
        pulumi, *words = shlex.split(command)
        assert pulumi == "pulumi"
        mended.run(*words, "--stack", mended.stack)
    looked(memory, mended.preview)


def test_a_provider_of_the_program_is_mended_in_the_program(memory: Memory, make_project: Make) -> None:
    project = make_project("own")
    for properties, says in (
        ({"memory": {"address": "db.example:70"}}, "memory.address: is not an address of an agent"),
        ({"memory": {"regions": {"us": memory.address}}}, "backend: no address for backend 'memory'"),
    ):
        program(project, properties)
        refused = project.preview(check=False)
        assert refused.code != 0
        assert f"has a problem: {says}" in refused.text
        assert "pulumi config set" not in refused.text
        (hint,) = hints(refused)
        assert hint.startswith("in the program, change memory of the provider resource 'agents', as in {")

    program(project, {"preflight": "strict"})
    project.environment[VARIABLE] = "unix:///a"
    (hint,) = hints(project.preview(check=False))
    variable, text = shlex.split(hint)[1].split("=", 1)
    project.environment[variable] = text.replace("unix:///run/replicator/agent.sock", memory.address)
    looked(memory, project.preview)


# --- secrets, and what is not known yet ------------------------------------------------------------------------------


def test_a_secret_address_is_in_no_state_and_no_message(memory: Memory, make_project: Make) -> None:
    project = make_project("secret")
    program(project)
    _secret(project, {"address": memory.address, "regions": {"us": "unix:///srv/canary.sock"}})
    texts = [project.up("--skip-preview").text]
    state = json.dumps(project.deployment())
    assert "ciphertext" in json.dumps(project.resources()["default"])
    assert memory.address not in state
    assert "canary" not in state

    def previewed(region: str, block: dict[str, Any]) -> str:
        _secret(project, block)
        destination = {"kind": "kafka", "uri": "kafka://broker.example:9092/east"}
        properties = stream(project, source={**stream(project)["source"], "region": region}, destination=destination)
        project.write_yaml({"resources": {"east": {"type": "replicator:index:Stream", "properties": properties}}})
        texts.append(project.preview("--diff", check=False).text)
        return texts[-1]

    assert "at [redacted]" in previewed("us", {"regions": {"us": "unix:///srv/canary.sock"}})
    assert "pulumi config set --secret replicator:memory '" in previewed("eu", {"regions": {"us": "ssh://canary"}})
    assert "memory.regions.us: is not an address" in previewed("us", {"regions": {"us": "canary:70"}})
    assert [text for text in texts if "canary" in text or memory.address in text] == []


def test_an_address_that_is_not_known_yet_holds_up_no_preview(memory: Memory, make_project: Make) -> None:
    project = make_project("unknown")
    first = stream(project, name="first", destination={"kind": "kafka", "uri": "kafka://broker.example:9/first"})
    resources = {
        "first": {"type": "replicator:index:Stream", "properties": first},
        "agents": {"type": "pulumi:providers:replicator", "properties": {"memory": {"address": "${first.id}"}}},
        "main": {
            "type": "replicator:index:Stream",
            "properties": stream(project),
            "options": {"provider": "${agents}"},
        },
    }
    _text(project, {"address": memory.address})
    project.write_yaml({"resources": resources})
    ran = project.preview()
    assert [ran.done(name) for name in ("first", "agents", "main")] == [["create"]] * 3


# --- what a change means ---------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[Memory]:
    with serving() as made:
        yield made


def test_another_address_updates_the_provider_and_leaves_the_streams(
    memory: Memory, elsewhere: Memory, make_project: Make
) -> None:
    project = make_project("moved")
    program(project, {"memory": {"address": memory.address}})
    project.up("--skip-preview")
    program(project, {"memory": {"address": elsewhere.address}, "preflight": "warn"})
    shown = project.preview("--diff")
    assert f'~ address: "{memory.address}" => "{elsewhere.address}"' in shown.text
    assert '+ preflight: "warn"' in shown.text
    assert project.refresh("--skip-preview").done("main") == ["same"], "it uses what the state holds"
    ran = project.up("--skip-preview")
    assert (ran.done("agents"), ran.done("main")) == (["update"], ["same"])
    (warning,) = ran.said("warning")
    assert warning.startswith("memory.address: streams stay where they are")
    assert elsewhere.names() == []

    assert project.refresh("--skip-preview").done("main") == ["delete"]
    assert project.up("--skip-preview").done("main") == ["create"]
    assert elsewhere.names() == [name for name in memory.names() if name.startswith("moved-")]
