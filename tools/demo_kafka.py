"""The main job of kafka-mirror, narrated: a topic that goes on, mirrored by `pulumi up`, watched, paused, replayed.

Two real clusters, each a broker and a Connect worker, live in one temporary folder and on 127.0.0.1, and are gone at
the end.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Producer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone

from tests.kafka import Record, consume, make_topic, plain
from tools.kafka.jars import collect
from tools.kafka.pair import Pair, running_pair
from tools.stage import Stage, Writer, find_cli, lag, note, say, show

TOPIC = "orders"
COPY = f"us-east.{TOPIC}"
PARTITIONS = 2


class Orders(Writer):
    """A program that produces orders to a topic."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__()
        self._settings = {**plain(bootstrap), "linger.ms": 0}

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], object]]:
        producer = Producer(self._settings)

        def write(number: int) -> None:
            value = json.dumps({"item": "tea", "at": time.time()})
            producer.produce(TOPIC, key=f"order-{number}", value=value, headers={"shop": b"\x00\xff"})
            producer.flush(10)

        yield write


class Demo(Stage):
    """One run in one folder."""

    def __init__(self, folder: Path, pair: Pair, cli: Path) -> None:
        super().__init__(folder, cli)
        self.pair = pair
        self.options = ("--backend", "kafka-mirror", "--address", pair.west.connect)

    def now(self) -> dict[str, Any]:
        return self.status(TOPIC, *self.options)

    # --- the program -------------------------------------------------------------------------------------------------

    def declare(self, *, destination: str | None = None, **more: Any) -> None:
        """Write Pulumi.yaml."""
        stream = {
            "name": TOPIC,
            "source": {"kind": "kafka", "region": "us-east", "uri": f"kafka://{self.pair.east.bootstrap}"},
            "destination": {
                "kind": "kafka",
                "region": "us-west",
                "uri": f"kafka://{destination or self.pair.west.bootstrap}",
            },
            "include": [TOPIC],
            "options": {"replication.factor": 1},
            **more,
        }
        status = {"function": "replicator:index:getStreamStatus", "arguments": {"stream": "${orders.id}"}}
        program = {
            "resources": {
                "connect": {
                    "type": "pulumi:providers:replicator",
                    "properties": {"kafkaMirror": {"address": self.pair.west.connect}},
                    "defaultProvider": True,
                },
                "orders": {"type": "replicator:index:Stream", "properties": stream},
            },
            "variables": {"now": {"fn::invoke": status}},
            "outputs": {
                "state": "${now.state}",
                "lagRecords": "${now.lagEvents}",
                "lagSeconds": "${now.lagSeconds}",
                "checkpoint": "${now.lastCheckpoint.lsn}",
            },
        }
        self.write("shop", program)

    # --- the story ---------------------------------------------------------------------------------------------------

    def tell(self, writer: Writer) -> None:
        say(f"A shop in us-east produces to the topic {TOPIC}, some 40 records a second.")
        writer.write()
        say("The program declares a mirror to us-west. What would happen?")
        self.declare()
        self.pulumi("stack", "init", "dev")
        show(self.pulumi("preview"))
        say("Create it, and wait until what the source held then is at the destination. The lag is an output.")
        self.declare(waitFor="caught_up")
        show(self.pulumi("up", "--yes", "--skip-preview"))
        say("The shop keeps writing. The lag, once a second:")
        self.watch(writer, 3)
        self.pause_and_resume(writer)
        self.replay()
        self.loop()
        self.remove()

    def watch(self, writer: Writer, seconds: int) -> None:
        for _ in range(seconds):
            time.sleep(1)
            now = self.now()
            note(f"{writer.orders:5d} orders   state {now['state']}   lag {now.get('lagEvents')} records, {lag(now)}")

    def pause_and_resume(self, writer: Writer) -> None:
        say("Pause it in code. The preview says what that costs.")
        self.declare(desiredState="paused")
        show(self.pulumi("up", "--yes"))
        say("The shop keeps writing, and the lag grows.")
        self.watch(writer, 3)
        writer.rest()
        say(f"Resume. It continues where it stopped, and all {writer.orders} orders arrive.")
        self.declare(waitFor="caught_up")
        show(self.pulumi("up", "--yes", "--skip-preview"))
        self.compare(self.source())

    def replay(self) -> None:
        start = ",".join(str(len(records) // 2) for records in self.source())
        say("What would a replay of the newer half do?")
        self.caught_up()
        words = ("replay", TOPIC, "--lsn", f"{TOPIC}={start}")
        plan = self.replicator(*words, "--plan", *self.options)
        show(plan)
        planned = re.search(r"It emits ([0-9]+) events", plan)
        assert planned
        say("Run it:")
        show(self.replicator(*words, "--yes", *self.options).removeprefix(plan))
        self.caught_up()
        source = self.source()
        half = [records[len(records) // 2 :] for records in source]
        self.compare([first + again for first, again in zip(source, half, strict=True)])
        twice = sum(map(len, half))
        note(f"{twice} records are there twice, the plan said {planned[1]}")
        if twice != int(planned[1]):
            sys.exit("the plan was wrong")

    def loop(self) -> None:
        say("A mistake: the destination is the source's own cluster. The preview refuses it:")
        self.declare(destination=self.pair.east.bootstrap)
        show(self.pulumi("preview", check=False))
        self.declare()

    def remove(self) -> None:
        say("Remove it. Only the topics and their records stay.")
        show(self.pulumi("destroy", "--yes", "--skip-preview"))
        connectors = httpx.get(f"{self.pair.west.connect}/connectors", trust_env=False).json()
        kept = len(consume(plain(self.pair.west.bootstrap), COPY))
        note(f"{kept} records in {COPY}; connectors: {connectors or 'none'}")
        if connectors:
            sys.exit("something is left that should not be")

    # --- the data ----------------------------------------------------------------------------------------------------

    def caught_up(self) -> None:
        deadline = time.monotonic() + 30
        while (now := self.now()).get("lagEvents") != 0 or now["state"] != "running":
            if time.monotonic() > deadline:
                sys.exit(f"the stream did not catch up: {now}")
            time.sleep(0.2)

    def source(self) -> list[list[Record]]:
        return by_partition(consume(plain(self.pair.east.bootstrap), TOPIC))

    def compare(self, wanted: list[list[Record]]) -> None:
        """End the demo where the destination does not hold these records, in this order."""
        found = by_partition(consume(plain(self.pair.west.bootstrap), COPY))
        same = found == wanted
        note(
            f"{sum(map(len, found))} records in {COPY}: keys, values, headers and times are "
            f"{'the same' if same else 'NOT THE SAME'}"
        )
        if not same:
            sys.exit("the destination does not hold what it should")


def by_partition(records: list[Record]) -> list[list[Record]]:
    """Each partition's records in their order."""
    return [[record for record in records if record.partition == number] for number in range(PARTITIONS)]


def main() -> None:
    """Set up, tell the story, clean up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cli = find_cli()
    collect("runtime")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="replicator-demo-") as name:
        folder = Path(name)
        say("Start two Kafka clusters, us-east and us-west, each a broker and a Connect worker.")
        with running_pair(folder / "kafka") as pair:
            make_topic(plain(pair.east.bootstrap), TOPIC, partitions=PARTITIONS)
            demo = Demo(folder, pair, cli)
            writer = Orders(pair.east.bootstrap)
            writer.start()
            try:
                demo.tell(writer)
            finally:
                writer.end()
    say(f"Done in {time.monotonic() - began:.0f} s. Nothing is left running.")


if __name__ == "__main__":
    main()
