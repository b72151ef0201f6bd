"""docs/mirror-topics.md, step by step, on two real clusters: what the page shows is what is printed."""

from __future__ import annotations

import secrets

import pytest

from tests.e2e.conftest import Make
from tests.e2e.kafka import World, orders
from tests.e2e.pages import Shell, blocks
from tests.pulumi import ROOT
from tests.waiting import wait_until
from tools.kafka.cluster import add_user
from tools.kafka.pair import Pair

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PAGE = blocks(ROOT / "docs" / "mirror-topics.md")
LOGINS = "Logins and rights"


@pytest.fixture(scope="module")
def here(kafka: Pair) -> World:
    return World(kafka)


def test_the_steps(here: World, make_project: Make) -> None:
    shell = Shell(
        make_project("store", stack="page"),
        {
            "b1.east.example:9092": here.east.bootstrap,
            "b1.west.example:9092": here.west.bootstrap,
            "http://w1.west.example:8083": here.address,
        },
    )
    shell.follow([block for block in PAGE if block.section != LOGINS])
    assert len(here.copy("store.orders")) == 9
    assert here.connectors("store") == {}


def test_logins_with_the_rights_of_the_page(here: World, make_project: Make) -> None:
    password = secrets.token_urlsafe(16)
    login = here.west.secrets / "vault.properties"
    for side in (here.east, here.west):
        add_user(side.bootstrap, "vault", password)
    project = make_project("vault")
    (project.folder / "admin.properties").touch()  # the listener of the tests lets its administrator in without a login
    shell = Shell(
        project,
        {
            "$KAFKA_EAST": here.east.bootstrap,
            "$KAFKA_WEST": here.west.bootstrap,
            "b1.east.example:9094": here.east.secure_bootstrap,
            "b1.west.example:9094": here.west.secure_bootstrap,
            "/etc/kafka/mirror.properties": str(login),
            "/etc/kafka/ca.pem": str(here.east.ca),
            "User:mirror": "User:vault",
            "username=mirror": "username=vault",
            "password=…": f"password={password}",
            "--topic store.": "--topic vault.",
            "billing": "vault-billing",
            "name: store": "name: vault",
            "store.*": "vault.*",
        },
    )
    topic = here.topic("vault.orders", orders(0, 6))
    read = f"kafka-console-consumer.sh --bootstrap-server {here.east.bootstrap} --topic {topic} --group billing"
    assert shell.run(f"{read} --from-beginning --max-messages 4 > records")[0] == 0
    shell.write(next(block.text for block in PAGE if block.kind == "yaml"))
    for block in PAGE:
        if block.section == LOGINS and block.kind == "properties":
            login.write_text(shell.real(block.text))
    shell.follow(block for block in PAGE if block.section == LOGINS)
    project.configure("replicator:kafkaMirror", {"address": here.address})
    project.configure("source", "unused")
    project.configure("destination", "unused")
    made = project.up()
    assert made.said("warning") == []
    here.arrives(topic, orders(0, 6))

    def synced() -> bool:
        found = here.status("vault")
        (finding,) = [item for item in found["findings"] if item["code"] == "RPL-GROUPS-SYNC"]
        return (found["state"], finding["severity"]) == ("running", "info")

    wait_until(synced, "a checkpoint of the group is written", timeout=60)
    project.destroy("--skip-preview")
