"""The Go SDK, its example and the Go programs in the schema pass `go vet`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from replicator import __version__
from replicator.plugin.schema import build_schema
from replicator.plugin.schema_examples import TRANSLATED

from tools import pulumi_cli
from tools.gobuild import SDK, Cache, GoModule, cache_root
from tools.languages import GO_ENVIRONMENT, GO_MODULES, ROOT, go

INFO = build_schema()["language"]["go"]
WRONG = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Printf("%d", "text") }\n'


def versions(text: str) -> dict[str, str]:
    """The modules that a go.mod asks for."""
    return dict(re.findall(r"^\s*(?:require )?(\S+\.\S+/\S+) (v\S+)", text, re.MULTILINE))


def vet(folder: Path, *packages: str) -> subprocess.CompletedProcess[str]:
    command = [str(go(Cache(cache_root(os.environ)))), "vet", *packages]
    env = os.environ | GO_ENVIRONMENT
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(params=GO_MODULES, ids=lambda module: module.folder.name)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An example in a folder of its own, which has the SDK where the repository has it."""
    module: GoModule = request.param
    folder = tmp_path / "examples" / module.folder.name
    shutil.copytree(module.folder, folder)
    shutil.copytree(ROOT / "sdk" / "go", tmp_path / "sdk" / "go")
    return folder


@pytest.mark.cli
def test_go_vet_has_nothing_to_say(example: Path) -> None:
    programs = {name: texts["go"] for name, texts in json.loads(TRANSLATED.read_text("utf-8")).items()}
    assert programs
    for name, program in programs.items():
        (example / name).mkdir()
        (example / name / "main.go").write_text(program)
    done = vet(example, "./...", f"{INFO['modulePath']}/...")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    (example / "wrong").mkdir()
    (example / "wrong" / "main.go").write_text(WRONG)
    done = vet(example, "./...")
    assert done.returncode != 0
    assert "fmt.Printf format %d has arg" in done.stderr


def test_the_module_is_the_one_that_the_schema_names() -> None:
    text = (ROOT / "sdk" / "go" / "go.mod").read_text()
    assert text.startswith(f"module {INFO['modulePath']}\n")
    package = INFO["importBasePath"].removeprefix(f"{INFO['modulePath']}/")
    assert (ROOT / "sdk" / "go" / package / "init.go").exists()


def test_the_module_asks_for_the_pulumi_that_it_is_vetted_with() -> None:
    # With an older one than 3.274 it does not compile, which no test would see.
    modules = (GoModule(ROOT / "sdk" / "go", ""), *GO_MODULES)
    assert {versions(module.gomod)[SDK] for module in modules} == {f"v{pulumi_cli.MODULES[0].sdk_version}"}


@pytest.mark.parametrize("module", GO_MODULES, ids=lambda module: module.folder.name)
def test_an_example_asks_for_this_release(module: GoModule) -> None:
    assert versions(module.gomod)[INFO["modulePath"]] == f"v{__version__}"


@pytest.mark.parametrize("module", GO_MODULES, ids=lambda module: module.folder.name)
def test_an_example_shares_the_versions_of_the_cli_so_that_they_are_compiled_once(module: GoModule) -> None:
    own, cli = versions(module.gomod), versions(pulumi_cli.MODULES[0].gomod)
    differ = {name for name in own.keys() & cli.keys() if own[name] != cli[name]}
    assert len(own.keys() & cli.keys()) > 50
    assert differ <= {"go.mongodb.org/mongo-driver"}, (
        "go get MODULE@VERSION of tools/cli/go.mod; this one is not compiled"
    )
