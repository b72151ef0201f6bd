"""Makes sdk/ from schema.json, and the programs in its descriptions from the YAML ones, with Pulumi's own generators.

    python tools/sdks.py [build]

With `build` it only builds the generator: seconds after the Pulumi CLI, minutes without it; once, see pulumi_cli.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from replicator.plugin.packaged import schema_text
from replicator.plugin.schema import render
from replicator.plugin.schema_examples import TRANSLATED, sources

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone
from tools.gobuild import BuildError, Cache, GoModule, cache_root, complete, say

ROOT = Path(__file__).resolve().parents[1]
MODULE = GoModule(ROOT / "tools" / "sdk", "some seconds after the Pulumi CLI, 4 minutes without it")
FIXED = MODULE.folder / "fixed"
"""Files of the SDKs that no schema decides: what the Go SDK is locked to."""

PYPROJECT = {
    "[project]\n": '[project]\n  license = "Apache-2.0"\n',
    '  [project.license]\n    text = "Apache-2.0"\n': "",
    'requires = ["setuptools>=61.0"]': 'requires = ["setuptools>=77.0"]',
}
"""What is replaced in pyproject.toml: setuptools stops reading the old form of a licence in February 2027."""

_CALLED = re.compile(
    r"(\w+)\.ApplyT\(func\(\1 \S+\) \(\S+, error\) \{\s+"
    r"return (?:[\w.]+\()?\1\.(\w+)(?:\.\([\[\]\w.]+\))?\)?, nil\s+\}\)\.\([\w.]+\)"
)
_APPLIED = re.compile(r"(\w+)\.apply\(\1 => \1\.(\w+)\)")


def generator(cache: Cache) -> Path:
    """The program that makes SDKs, built where it is missing. Raises BuildError."""
    if not complete(cache.folder(MODULE), MODULE.files):
        with cache.locked():
            cache.build(MODULE, cache.go(MODULE.go_line))
    return cache.folder(MODULE) / MODULE.files[0]


def write_sdks(program: Path, folder: Path) -> None:
    """Write the SDK of each language below a folder."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as schema:
        schema.write(schema_text())
        schema.flush()
        _run([str(program), "sdks", schema.name, str(folder)])
    shutil.copytree(FIXED, folder, dirs_exist_ok=True)
    python = folder / "python"
    shutil.copyfile(python / "pulumi_replicator" / "README.md", python / "README.md")  # where pyproject.toml has it
    project = (python / "pyproject.toml").read_text()
    for old, new in PYPROJECT.items():
        if project.count(old) != 1:
            raise BuildError(
                f"the generated pyproject.toml does not have {old!r} once; change PYPROJECT in tools/sdks.py"
            )
        project = project.replace(old, new)
    (python / "pyproject.toml").write_text(project)


def translated(program: Path) -> str:
    """The text of translated.json: the YAML programs in the other languages.

    Pulumi's generators take a property that is a list or an enum out of an output by a function, which in Go does not
    even compile; a person writes the accessor that the output has.
    """
    programs = {name: pcl(yaml.safe_load(text)) for name, text in sources().items()}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as schema:
        schema.write(schema_text())
        schema.flush()
        made = json.loads(_run([str(program), "programs", schema.name], json.dumps(programs)))
    for texts in made.values():
        texts["go"] = _CALLED.sub(r"\1.\2()", texts["go"])
        texts["typescript"] = _APPLIED.sub(r"\1.\2", texts["typescript"])
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def pcl(program: Mapping[str, Any]) -> str:
    """A YAML program in Pulumi's configuration language, which its generators read. `${…}` is the same in both.

    Raises ValueError for what the examples do without: configuration, options, other functions.
    """
    _only(program, "resources", "variables", "outputs")
    return "".join([*_resources(program), *_variables(program), *_outputs(program)])


def _resources(program: Mapping[str, Any]) -> Iterator[str]:
    for name, resource in program.get("resources", {}).items():
        _only(resource, "type", "properties")
        body = "".join(f"{key} = {_pcl(value)}\n" for key, value in resource["properties"].items())
        yield f"resource {json.dumps(name)} {json.dumps(resource['type'])} {{\n{body}}}\n"


def _variables(program: Mapping[str, Any]) -> Iterator[str]:
    for name, variable in program.get("variables", {}).items():
        _only(variable, "fn::invoke")
        _only(variable["fn::invoke"], "function", "arguments")
        call = variable["fn::invoke"]
        yield f"{name} = invoke({json.dumps(call['function'])}, {_pcl(call.get('arguments', {}))})\n"


def _outputs(program: Mapping[str, Any]) -> Iterator[str]:
    for name, value in program.get("outputs", {}).items():
        yield f"output {json.dumps(name)} {{\nvalue = {_pcl(value)}\n}}\n"


def _pcl(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_pcl(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_pcl, value)) + "]"
    return json.dumps(value)


def _only(given: Mapping[str, Any], *known: str) -> None:
    if left := set(given) - set(known):
        raise ValueError(f"an example has {', '.join(sorted(left))}, which is not translated")


def _run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"the SDKs were not made: {done.stderr.strip()}")
    return done.stdout


def write(program: Path) -> None:
    """Write the translated examples, the schema that shows them, and the SDKs."""
    schema = ROOT / "schema.json"
    schema.write_text(render(), "utf-8")
    TRANSLATED.write_text(translated(program), "utf-8")
    schema.write_text(render(), "utf-8")
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".sdk-") as temp:
        made = Path(temp, "sdk")
        write_sdks(program, made)
        shutil.rmtree(ROOT / "sdk", ignore_errors=True)
        made.rename(ROOT / "sdk")


def main(arguments: list[str]) -> int:
    try:
        program = generator(Cache(cache_root(os.environ)))
        if arguments != ["build"]:
            write(program)
    except BuildError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
