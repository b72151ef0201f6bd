"""The Python SDK installs, imports, and sends what the YAML programs say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from pydantic.alias_generators import to_snake
from replicator import __version__
from replicator.plugin.schema import build_schema
from replicator.plugin.schema_examples import TRANSLATED, sources

from tools.gobuild import Cache, cache_root
from tools.languages import python_sdk

NAMES = "import json, pulumi_replicator; print(json.dumps(sorted(vars(pulumi_replicator))))"
SEND = """
import json, sys, pulumi

class Mocks(pulumi.runtime.Mocks):
    def new_resource(self, args):
        sent.append([args.typ, args.inputs])
        return args.name, args.inputs

    def call(self, args):
        sent.append([args.token, args.args])
        return {}

found = {}
for name, program in json.load(sys.stdin).items():
    sent = found[name] = []
    pulumi.runtime.set_mocks(Mocks(), preview=False)
    pulumi.runtime.test(lambda: exec(program, {}))()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def installed() -> Path:
    return python_sdk(Cache(cache_root(os.environ)))


def run(installed: Path, code: str, text: str = "") -> Any:
    command = [sys.executable, "-W", "error", "-c", code]
    env = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(command, input=text, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_has_everything_that_the_schema_has(installed: Path) -> None:
    schema = build_schema()
    wanted = {token.rpartition(":")[2] for token in schema["resources"]}
    wanted |= {token.rpartition(":")[2] for token, item in schema["types"].items() if "enum" in item}
    for token, item in schema["functions"].items():
        name = to_snake(token.rpartition(":")[2])
        wanted |= {f"{name}_output"} if item.get("plain") is False else {name, f"{name}_output"}
    assert wanted - set(run(installed, NAMES)) == set()


def test_it_is_installed_under_its_name_with_what_it_needs(installed: Path) -> None:
    (info,) = installed.glob("*.dist-info")
    distribution = PathDistribution(info)
    assert (distribution.name, distribution.version) == ("pulumi_replicator", __version__)
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    assert "plugins: {providers: [" in distribution.metadata["Description"]
    needed = {Requirement(each).name for each in distribution.requires or ()}
    assert needed == {"packaging", "pulumi", "semver", "typing-extensions"}
    assert (installed / "pulumi_replicator" / "py.typed").exists()


def test_the_examples_send_what_their_yaml_says(installed: Path) -> None:
    programs = {name: texts["python"] for name, texts in json.loads(TRANSLATED.read_text("utf-8")).items()}
    sent = run(installed, SEND, json.dumps(programs))
    assert programs
    assert sent == {name: said(yaml.safe_load(text)) for name, text in sources().items()}


def said(program: dict[str, Any]) -> list[list[Any]]:
    """What a YAML program declares and calls: tokens with inputs. The mocks use a resource's name as its id."""
    text = json.dumps([program.get("resources", {}), program.get("variables", {})])
    resources, variables = json.loads(re.sub(r"\$\{(\w+)\.id\}", r"\1", text))
    calls = (item["fn::invoke"] for item in variables.values())
    sent = [[item["type"], item["properties"]] for item in resources.values()]
    return sent + [[call["function"], call.get("arguments", {})] for call in calls]
