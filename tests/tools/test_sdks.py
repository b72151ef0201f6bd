"""The generated SDKs and examples are fresh, and made by the generators of the CLI that is tested."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from replicator import __version__
from replicator.plugin.schema_examples import LANGUAGES, TRANSLATED, sources

from tools import pulumi_cli, sdks
from tools.gobuild import Cache, cache_root, complete

COMMITTED = sdks.ROOT / "sdk"
LEFT_BY_TOOLS = {"node_modules", "bin", "build", "dist", "__pycache__"}
RUN = "run: make sdk"


@pytest.fixture(scope="module")
def generator() -> Path:
    cache = Cache(cache_root(os.environ))
    if not complete(cache.folder(sdks.MODULE), sdks.MODULE.files):
        pytest.skip("the SDK generator is not built: python tools/sdks.py build")
    return sdks.generator(cache)


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder, without what compilers and installers leave there."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    inside = ((path.relative_to(folder), path) for path in paths)
    return {str(name): path.read_bytes() for name, path in inside if not LEFT_BY_TOOLS & set(name.parts)}


def stale(made: dict[str, bytes], committed: dict[str, bytes]) -> list[str]:
    """The names of the files that differ, or that only one side has."""
    return sorted(name for name in made.keys() | committed.keys() if made.get(name) != committed.get(name))


@pytest.mark.cli
def test_the_committed_sdks_are_fresh(generator: Path, tmp_path: Path) -> None:
    sdks.write_sdks(generator, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["go", "nodejs", "python"]
    assert stale(tree(tmp_path), tree(COMMITTED)) == [], RUN


def test_what_is_stale_is_found(tmp_path: Path) -> None:
    shutil.copytree(COMMITTED, tmp_path / "sdk")
    (tmp_path / "sdk" / "go" / "go.mod").unlink()
    (tmp_path / "sdk" / "python" / "edited.py").write_text("edited")
    with (tmp_path / "sdk" / "nodejs" / "package.json").open("a") as file:
        file.write("\n")
    (tmp_path / "sdk" / "nodejs" / "bin").mkdir()
    (tmp_path / "sdk" / "nodejs" / "bin" / "index.js").write_text("compiled")
    assert stale(tree(COMMITTED), tree(tmp_path / "sdk")) == ["go/go.mod", "nodejs/package.json", "python/edited.py"]


@pytest.mark.cli
def test_the_translated_examples_are_fresh(generator: Path) -> None:
    assert TRANSLATED.read_text("utf-8") == sdks.translated(generator), RUN


def test_each_example_is_translated() -> None:
    made = json.loads(TRANSLATED.read_text("utf-8"))
    assert {name: {*texts, "yaml"} for name, texts in made.items()} == {name: set(LANGUAGES) for name in sources()}, RUN


def test_a_yaml_program_becomes_pcl() -> None:
    call = {"fn::invoke": {"function": "a:b:get", "arguments": {"id": "${x.id}", "when": {"n": 1}}}}
    program = {
        "resources": {"x": {"type": "a:b:C", "properties": {"on": True, "list": ['q"q', {"k": None}]}}},
        "variables": {"y": call},
        "outputs": {"z": "is ${y.z}"},
    }
    assert sdks.pcl(program) == (
        'resource "x" "a:b:C" {\non = true\nlist = ["q\\"q", {k = null}]\n}\n'
        'y = invoke("a:b:get", {id = "${x.id}", when = {n = 1}})\n'
        'output "z" {\nvalue = "is ${y.z}"\n}\n'
    )


@pytest.mark.parametrize(
    "program",
    [
        {"config": {}},
        {"resources": {"x": {"type": "a:b:C", "properties": {}, "options": {}}}},
        {"variables": {"x": {"fn::toJSON": {}}}},
        {"variables": {"x": {"fn::invoke": {"function": "f", "return": "id"}}}},
    ],
    ids=["config", "options", "fn::toJSON", "return"],
)
def test_what_would_be_lost_in_translation_is_refused(
    program: dict[str, object], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ValueError, match=request.node.callspec.id):
        sdks.pcl(program)


def test_the_generators_are_those_of_the_cli() -> None:
    codegen = r"^\s*github.com/pulumi/pulumi/pkg/v3 (\S+)"
    versions = {re.findall(codegen, module.gomod, re.MULTILINE)[0] for module in (sdks.MODULE, pulumi_cli.MODULES[0])}
    assert versions == {f"v{pulumi_cli.MODULES[0].sdk_version}"}


def test_each_sdk_asks_for_this_release_of_the_plugin_and_names_no_server() -> None:
    plugins = [json.loads(path.read_text()) for path in COMMITTED.rglob("pulumi-plugin.json")]
    plugins.append(json.loads((COMMITTED / "nodejs" / "package.json").read_text())["pulumi"])
    assert plugins == [{"resource": True, "name": "replicator", "version": __version__}] * 3
