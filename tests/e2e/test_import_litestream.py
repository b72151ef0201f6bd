"""All databases of an agent, which no resource manages, taken into a stack at once: nothing is copied anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.agent.support import command
from tests.e2e.conftest import Make
from tests.e2e.litestream import BUCKET, World
from tests.e2e.memory import EFFECTS
from tests.engines import add_rows
from tests.languages import prepare
from tests.pulumi import Project

pytestmark = pytest.mark.engine

ADOPTED = """
access-key-id: ${{SHOP_ACCESS_KEY_ID}}
secret-access-key: ${{SHOP_SECRET_ACCESS_KEY}}
dbs:
  - path: {folder}/{names[0]}.db
    replica: {{type: s3, bucket: {bucket}, path: "{names[0]}", endpoint: "{endpoint}", sync-interval: 1s}}
  - path: {folder}/{names[1]}.db
    replica: {{type: s3, bucket: {bucket}, path: "{names[1]}", endpoint: "{endpoint}", sync-interval: 1s}}
"""


def _adopt(here: World, names: list[str], make_project: Make, folder: Path) -> list[str]:
    """The agent adopts the databases of a litestream.yml, so that no resource was ever declared for them."""
    config = folder / "litestream.yml"
    text = ADOPTED.format(folder=here.host.folder, bucket=BUCKET, endpoint=here.s3.endpoint, names=names)
    config.write_text(text)
    arguments = ("agent", "adopt", str(config), "--yes", "--socket", str(here.host.socket))
    done = command(*arguments, env=here.host.environment)
    assert done.returncode == 0, done.stderr
    return []


def _give_up(here: World, names: list[str], make_project: Make, folder: Path) -> list[str]:
    """A stack made the streams, and lost its state."""
    lost = make_project("lost")
    lost.configure("replicator:litestream", {"address": here.host.address})
    streams = {name: here.inputs(name, checkpointInterval="2s") for name in names}
    resources = {name: {"type": "replicator:index:Stream", "properties": inputs} for name, inputs in streams.items()}
    lost.write_yaml({"resources": resources})
    lost.up("--skip-preview")
    lost.run("stack", "rm", lost.stack, "--yes", "--force")
    return ["--managed"]


def _yaml(project: Project, made: Path) -> dict[str, Any]:
    resources: dict[str, Any] = yaml.safe_load((made / "Pulumi.yaml").read_text())["resources"]
    project.write_yaml({"resources": resources})
    return {name: item["properties"] for name, item in resources.items()}


def _python(project: Project, made: Path) -> None:
    project.write_python((made / "__main__.py").read_text())
    prepare(project)


def _change(project: Project) -> None:
    """Change the program, so that the next update claims the streams."""
    program = project.folder / "__main__.py"
    if program.exists():
        program.write_text(program.read_text().replace("\n)", "\n    wait_for='caught_up',\n)"))
        return
    document = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())
    for item in document["resources"].values():
        item["properties"]["waitFor"] = "caught_up"
    project.write_yaml({"resources": document["resources"]})


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("language", "begin"), [("yaml", _adopt), ("python", _give_up)])
def test_all_databases_of_an_agent(language: str, begin: Any, here: World, make_project: Make, tmp_path: Path) -> None:
    names = [f"{language}-a", f"{language}-b"]
    databases = [here.database(name) for name in names]
    arguments = begin(here, names, make_project, tmp_path)
    for name in names:
        here.caught_up(name)
    old = {name: here.content(name) for name in names}
    assert {name: here.restored(name) for name in names} == old
    keys = {name: here.keys(name) for name in names}
    before = effects(here)

    project = make_project(f"taken-{language}")
    project.configure("replicator:litestream", {"address": here.host.address})
    out = project.folder / "made"
    said = here.command("import", "--out", str(out), "--language", language, *arguments)
    assert "2 streams" in said
    (_yaml if language == "yaml" else _python)(project, out)
    words = ("--generate-code=false", "--protect=false", "--yes", "--stack", project.stack)
    imported = project.run("import", "--file", str(out / "import.json"), *words)
    owned = bool(arguments)
    assert ("the next update takes ownership" in imported.text) == owned
    ran = project.preview()
    assert [ran.done(name) for name in names] == [["update" if owned else "same"]] * 2
    assert effects(here) == before
    assert {name: here.restored(name) for name in names} == old
    assert all(set(keys[name]) <= set(here.keys(name)) for name in names), "nothing began anew"

    _change(project)
    ran = project.up("--skip-preview")
    assert [ran.done(name) for name in names] == [["update"]] * 2
    for name, database in zip(names, databases, strict=True):
        found = here.find(name)
        assert found and found.stream.owner
        assert found.stream.owner.urn == f"urn:pulumi:dev::{project.name}::replicator:index:Stream::{name}"
        add_rows(database, 10)
        here.caught_up(name)
        assert len(here.keys(name)) > len(keys[name])
        assert here.restored(name) == here.content(name) != old[name]
    project.preview("--expect-no-changes")
    project.destroy("--skip-preview")
    assert here.names() == []
    assert {name: here.restored(name) for name in names} == {name: here.content(name) for name in names}


def effects(here: World) -> dict[str, int]:
    """What was done to streams of the agent so far."""
    calls = here.ask(lambda agent: agent.info()).calls
    return {method: calls[method] for method in EFFECTS}
