"""From a litestream that people run themselves to a stack: adopted, imported, claimed, and nothing lost on the way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import S3Credentials, engine_environment

from tests.agent.support import command
from tests.e2e.conftest import Make
from tests.e2e.litestream import BUCKET, World
from tests.engines import add_rows, find_engine
from tests.pulumi import SCRIPTS
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

CONFIG = """
access-key-id: ${{SHOP_ACCESS_KEY_ID}}
secret-access-key: ${{SHOP_SECRET_ACCESS_KEY}}
dbs:
  - path: {folder}/theirs.db
    replica: {{type: s3, bucket: {bucket}, path: old/theirs, endpoint: "{endpoint}", sync-interval: 1s}}
"""


def restored(here: World, output: Path, txid: int | None = None) -> str:
    """What the engine itself restores from the prefix, now or as of a transaction."""
    owner = S3Credentials(here.s3.owner.access_key_id, here.s3.owner.secret_access_key)
    engine = CommandLine(find_engine("litestream"), engine_environment(owner))
    asyncio.run(engine.restore(here.s3.url(BUCKET, "old/theirs"), output, txid=txid))
    return asyncio.run(content_hash(output))


@pytest.mark.timeout(300)
def test_a_stack_takes_over_what_a_service_has_replicated(here: World, make_project: Make, tmp_path: Path) -> None:
    database = here.database("theirs")
    config = tmp_path / "litestream.yml"
    config.write_text(CONFIG.format(folder=here.host.folder, bucket=BUCKET, endpoint=here.s3.endpoint))
    service = subprocess.Popen(
        [str(find_engine("litestream")), "replicate", "-config", str(config)],
        env={key: value for key, value in here.host.environment.items() if key != "AWS_CA_BUNDLE"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: here.keys("old/theirs"), "the service replicates")
        add_rows(database, 10)
    finally:
        service.terminate()  # a last upload, and the end
        service.wait(30)
    wait_until(lambda: _is_still(here), "a busy store lists the last upload")
    old, last = here.content("theirs"), max(map(_transaction, here.keys("old/theirs")))
    assert restored(here, tmp_path / "before.db", last) == old
    add_rows(database, 10)

    adopted = command(
        "agent", "adopt", str(config), "--yes", "--socket", str(here.host.socket), env=here.host.environment
    )
    assert adopted.returncode == 0, adopted.stderr
    assert "  as env://SHOP_*" in adopted.stdout
    assert here.s3.owner.secret_access_key not in adopted.stdout

    project = make_project("adopted")
    project.configure("replicator:litestream", {"address": here.host.address})
    written = subprocess.run(
        [str(SCRIPTS / "replicator"), "import", "--address", here.host.address, "--out", "made"],
        cwd=project.folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert b"1 stream" in written.stdout
    made = project.folder / "made"
    program = yaml.safe_load((made / "Pulumi.yaml").read_text())
    project.write_yaml({"resources": program["resources"]})
    words = ("--generate-code=false", "--protect=false", "--yes", "--stack", project.stack)
    project.run("import", "--file", str(made / "import.json"), *words)
    assert project.preview("--expect-no-changes").done("theirs") == ["same"]
    keys = len(here.keys("old/theirs"))

    program["resources"]["theirs"]["properties"]["deletionProtection"] = True
    project.write_yaml({"resources": program["resources"]})
    project.up("--skip-preview")
    found = here.find("theirs")
    assert found and found.stream.owner
    assert found.stream.owner.urn == "urn:pulumi:dev::adopted::replicator:index:Stream::theirs"

    add_rows(database, 10)
    here.caught_up("theirs")
    assert len(here.keys("old/theirs")) > keys
    assert restored(here, tmp_path / "now.db") == here.content("theirs") != old
    assert restored(here, tmp_path / "then.db", last) == old
    state = json.dumps(project.deployment())
    assert here.s3.owner.secret_access_key not in state


def _is_still(here: World) -> bool:
    before = here.keys("old/theirs")
    time.sleep(1)
    return here.keys("old/theirs") == before


def _transaction(key: str) -> int:
    """The last transaction of a file."""
    return int(key.rpartition("-")[2].removesuffix(".ltx"), 16)
