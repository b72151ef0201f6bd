"""docs/moving.md on the real programs: what ran before goes on as a stream, and back again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from tests.e2e.conftest import Make
from tests.e2e.kafka import World, arrives, orders
from tests.e2e.litestream import World as Databases
from tests.e2e.litestream import world
from tests.e2e.pages import Block, Shell, blocks
from tests.engines import add_rows, find_engine, s3_server
from tests.kafka import Record, consume, make_topic, plain, produce, wait_running
from tests.pulumi import ROOT
from tests.waiting import wait_until
from tools.kafka.cluster import Worker
from tools.kafka.pair import Pair
from tools.kafka.process import JavaProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PAGE = blocks(ROOT / "docs" / "moving.md")
NAMES, *_ = PAGE
CONNECTORS, DEDICATED = "MirrorMaker 2 in a Kafka Connect cluster", "MirrorMaker 2 in dedicated mode"
LITESTREAM, BACK = "A litestream of your own", "Back out again"
SMALL = """
replication.factor = 1
offset-syncs.topic.replication.factor = 1
checkpoints.topic.replication.factor = 1
config.storage.replication.factor = 1
offset.storage.replication.factor = 1
status.storage.replication.factor = 1
emit.heartbeats.enabled = false
emit.checkpoints.enabled = false
"""
"""What clusters of one broker need of a dedicated MirrorMaker 2, and what leaves other tests' clusters as they are."""


def section(name: str, *kinds: str) -> list[Block]:
    return [block for block in PAGE if block.section == name and block.kind in kinds]


def only(name: str, kind: str) -> str:
    (block,) = section(name, kind)
    return block.text


MIRROR_BACK = [block for block in section(BACK, "console") if "bills" in block.text]


@pytest.fixture(scope="module")
def here(kafka: Pair) -> World:
    return World(kafka)


@pytest.fixture(scope="module")
def worker(here: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A Connect cluster that no other test has: the page shows all that is in it."""
    with Worker(tmp_path_factory.mktemp("worker"), here.west.bootstrap, group="moving") as made:
        yield made


@pytest.fixture(scope="module")
def places(here: World, worker: Worker) -> dict[str, str]:
    return {
        "b1.dc1.example:9092": here.east.bootstrap,
        "b1.dc2.example:9092": here.west.bootstrap,
        "http://w1.dc2.example:8083": worker.url,
    }


@pytest.fixture
def s3_world(tmp_path: Path) -> Iterator[Databases]:
    """A host with an agent whose policy grants what the page's file names."""
    with s3_server(tmp_path / "s3") as s3:
        s3.make_bucket("backups")
        with world(s3) as made:
            made.grant(s3.url("backups", "shop").partition("&")[0])
            yield made


def numbered(first: int, end: int, *partitions: int) -> list[Record]:
    """Records one after the other in some partitions."""
    made = orders(first, end)
    return [
        Record(item.key, item.value, item.headers, item.timestamp, partitions[place % len(partitions)])
        for place, item in enumerate(made)
    ]


def numbered_by_partition(first: int, end: int) -> list[Record]:
    """The same of two partitions, as a reader has them."""
    return sorted(numbered(first, end, 0, 1), key=lambda item: item.partition)


def topic(here: World, name: str, partitions: int, records: list[Record]) -> None:
    make_topic(plain(here.east.bootstrap), name, partitions=partitions, **{"retention.ms": "-1"})
    produce(plain(here.east.bootstrap), name, records)


def copied(here: World, name: str) -> list[Record]:
    try:
        return consume(plain(here.west.bootstrap), f"dc1.{name}")
    except (KafkaException, KeyError):
        return []


def test_connectors_are_adopted_and_given_back(
    here: World, worker: Worker, places: dict[str, str], make_project: Make
) -> None:
    shell = Shell(make_project("mirrors", stack="page"), places)
    for block in PAGE:
        if block.kind == "python":
            (shell.project.folder / "positions.py").write_text(block.text)
    topic(here, "bills.paid", 2, numbered(0, 6, 0, 1))
    topic(here, "invoices.all", 1, numbered(0, 4, 0))
    connector = json.loads(shell.real(only(CONNECTORS, "json")))
    with worker.client() as rest:

        def create(name: str, topics: str) -> None:
            rest.post(
                "/connectors", json={"name": name, "config": {**connector["config"], "topics": topics}}
            ).raise_for_status()
            wait_running(rest, name)

        create("bills", connector["config"]["topics"])
        arrives(here.west.bootstrap, "dc1.bills.paid", numbered_by_partition(0, 6))
        shell.follow([NAMES])
        for block in section(CONNECTORS, "console", "yaml"):
            if "Bills_Mirror/stop" in block.text:
                create("Bills_Mirror", "invoices.all")
                arrives(here.west.bootstrap, "dc1.invoices.all", orders(0, 4))
            shell.follow([block])
        produce(plain(here.east.bootstrap), "bills.paid", numbered(6, 8, 0, 1))
        arrives(here.west.bootstrap, "dc1.bills.paid", numbered_by_partition(0, 8))

        shell.follow(MIRROR_BACK)
        wait_running(rest, "bills")
        produce(plain(here.east.bootstrap), "bills.paid", numbered(8, 10, 0, 1))
        arrives(here.west.bootstrap, "dc1.bills.paid", numbered_by_partition(0, 10))
        rest.delete("/connectors/bills").raise_for_status()


@pytest.mark.proof
def test_a_dedicated_mirror_maker_hands_its_position_over(
    here: World, worker: Worker, places: dict[str, str], make_project: Make, tmp_path: Path
) -> None:
    shell = Shell(make_project("mail", stack="page"), places)
    topic(here, "mail.sent", 3, numbered(0, 6, 0, 1))
    file = tmp_path / "connect-mirror-maker.properties"
    file.write_text(shell.real(only(DEDICATED, "properties")) + SMALL)
    dedicated = JavaProcess(tmp_path, "dedicated", ["org.apache.kafka.connect.mirror.MirrorMaker", str(file)])
    dedicated.launch()
    try:
        wait_until(lambda: len(copied(here, "mail.sent")) == 6, "the dedicated one copies", timeout=90)
        produce(plain(here.east.bootstrap), "mail.sent", numbered(6, 20, 0, 1))
        wait_until(lambda: len(copied(here, "mail.sent")) == 20, "it copies what comes", timeout=30)
    finally:
        dedicated.stop()
    produce(plain(here.east.bootstrap), "mail.sent", numbered(20, 24, 0, 1, 2))
    shell.follow([NAMES])
    (shell.project.folder / "positions.py").write_text(only(DEDICATED, "python"))
    shell.follow(section(DEDICATED, "console", "yaml"))
    found = copied(here, "mail.sent")
    assert sorted(item.key or b"" for item in found) == sorted(item.key or b"" for item in orders(0, 24))

    kept = [
        replace(block, text=block.text.replace("mirrors", "mail").replace("bills", "mail")) for block in MIRROR_BACK
    ]
    shell.follow(kept)
    produce(plain(here.east.bootstrap), "mail.sent", numbered(24, 26, 0))
    wait_until(lambda: len(copied(here, "mail.sent")) == 26, "the connector goes on", timeout=30)
    with worker.client() as rest:
        rest.delete("/connectors/mail").raise_for_status()


def test_a_litestream_is_taken_over_and_given_back(s3_world: Databases, make_project: Make, tmp_path: Path) -> None:
    database = s3_world.database("shop")
    config = tmp_path / "litestream.yml"
    environment = {key: value for key, value in s3_world.host.environment.items() if key != "AWS_CA_BUNDLE"}
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        words = [str(find_engine("litestream")), "replicate", "-config", str(config)]
        log = (tmp_path / "litestream.log").open("ab")
        running.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
        log.close()

    def stop() -> None:
        running[-1].terminate()
        running[-1].wait(30)

    def restored(prefix: str) -> str | None:
        if not s3_world.s3.keys("backups", f"{prefix}/"):
            return None
        return s3_world.restored(prefix, bucket="backups")

    socket = s3_world.host.socket
    shell = Shell(
        make_project("shop", stack="page"),
        {
            "/etc/litestream.yml": str(config),
            "/var/lib/shop/": f"{database.parent}/",
            "https://s3.example": s3_world.s3.endpoint,
            "replicator agent adopt": f"replicator agent adopt --socket {socket}",
        },
        {
            **{key: value for key, value in environment.items() if key.startswith("SHOP_")},
            "REPLICATOR_LITESTREAM": json.dumps({"address": s3_world.host.address}),
        },
        {"systemctl disable": stop, "systemctl enable": start},
    )
    config.write_text(shell.real(only(LITESTREAM, "yml")))
    start()
    try:
        wait_until(lambda: s3_world.s3.keys("backups", "shop/"), "the service replicates")
        shell.follow(section(LITESTREAM, "console", "yaml"))
        add_rows(database, 5)
        s3_world.caught_up("shop")
        held = s3_world.content("shop")
        shell.follow(block for block in section(BACK, "console") if block not in MIRROR_BACK)
        assert restored("shop") == held
        add_rows(database, 5)
        wait_until(lambda: restored("shop-2") == s3_world.content("shop"), "it goes on", timeout=30)
        assert restored("shop") == held
    finally:
        stop()
