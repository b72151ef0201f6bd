"""The Node SDK, its example and the TypeScript programs in the schema pass the compiler.

The SDK is compiled without an error before it is in `node_modules`; here programs are checked against it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from replicator import __version__
from replicator.plugin.schema import build_schema
from replicator.plugin.schema_examples import TRANSLATED

from tests.engines import find_engine
from tools.gobuild import Cache, cache_root
from tools.languages import NODE_PACKAGE, ROOT, node_modules

SDK = ROOT / "sdk" / "nodejs"
EXAMPLES = [path.parent for path in sorted(ROOT.glob("examples/*/package.json"))]
WRONG = """\
import * as replicator from "@pulumi-replicator/replicator";

export const args: replicator.GetStreamStatusArgs = { stream: 1 };
"""
SATISFIED = """
const { satisfies } = require("semver");
for (const [name, range] of Object.entries(JSON.parse(process.argv[1]))) {
    const version = require(`./node_modules/${name}/package.json`).version;
    if (!satisfies(version, range)) { console.log(`${name} ${version} is not ${range}`); }
}
"""


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.name)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An example in a folder of its own, with the packages that it needs."""
    find_engine("npm")
    source: Path = request.param
    folder = shutil.copytree(source, tmp_path / source.name)
    (folder / "node_modules").symlink_to(node_modules(Cache(cache_root(os.environ))))
    return folder


def node(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(find_engine("node")), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def needed(folder: Path) -> dict[str, str]:
    package = json.loads((folder / "package.json").read_text())
    return {**package["dependencies"], **package["devDependencies"]}


@pytest.mark.cli
def test_the_compiler_refuses_the_wrong_program_and_no_other(example: Path) -> None:
    config: dict[str, Any] = json.loads((example / "tsconfig.json").read_text())
    programs = {name: texts["typescript"] for name, texts in json.loads(TRANSLATED.read_text("utf-8")).items()}
    assert programs
    for name, program in {**programs, "wrong": WRONG}.items():
        (example / f"{name}.ts").write_text(program)
    config["files"] += [f"{name}.ts" for name in (*programs, "wrong")]
    (example / "tsconfig.json").write_text(json.dumps(config))
    done = node(example, "node_modules/typescript/bin/tsc", "--noEmit", "--pretty", "false")
    errors = re.findall(r"^(\S.*?)\(\d+,\d+\): error (TS\d+)", done.stdout, re.MULTILINE)
    assert errors == [("wrong.ts", "TS2322")], done.stdout + done.stderr


@pytest.mark.cli
def test_what_is_installed_is_what_the_packages_ask_for(example: Path) -> None:
    ranges = {**needed(SDK), **needed(example)}
    done = node(example, "-e", SATISFIED, json.dumps(ranges))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert node(example, "-e", SATISFIED, '{"typescript": "<5"}').stdout.startswith("typescript 5.")


def test_the_package_is_the_one_that_the_schema_names() -> None:
    package = json.loads((SDK / "package.json").read_text())
    assert package["name"] == NODE_PACKAGE == build_schema()["language"]["nodejs"]["packageName"]
    assert package["version"] == __version__
