"""Two Kafka clusters, and what somebody sees and does there who does not use Pulumi."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from tests.agent.support import command
from tests.kafka import Patient, Record, consume, make_topic, plain, produce
from tests.pulumi import Project
from tests.waiting import wait_until
from tools.kafka.pair import Pair, Side

REGION, OTHER = "us-east", "us-west"
NOW = {"now": {"fn::invoke": {"function": "replicator:index:getStreamStatus", "arguments": {"stream": "${main.id}"}}}}
NUMBERS = {
    "state": "${now.state}",
    "lagRecords": "${now.lagEvents}",
    "lagSeconds": "${now.lagSeconds}",
    "checkpoint": "${now.lastCheckpoint.lsn}",
}


def orders(first: int, end: int) -> list[Record]:
    """Records with bytes that no text has, and times of their own."""
    return [
        Record(b"%d" % number, b"\xff\x00 %d" % number, (("shop", b"\x00\xff"),), 1_700_000_000_000 + number)
        for number in range(first, end)
    ]


class World:
    """The outside of a Pulumi project: it mirrors from east to west, by the Connect cluster of the west."""

    def __init__(self, pair: Pair) -> None:
        self.east, self.west = pair.east, pair.west
        self.address = pair.west.connect

    # --- declarations ------------------------------------------------------------------------------------------------

    def inputs(self, name: str, **changes: Any) -> dict[str, Any]:
        """A stream of the topics `NAME.…`. A property given as None is left out."""
        found = {
            "name": name,
            "source": {"kind": "kafka", "region": REGION, "uri": f"kafka://{self.east.bootstrap}"},
            "destination": {"kind": "kafka", "region": OTHER, "uri": f"kafka://{self.west.bootstrap}"},
            "include": [f"{name}.*"],
            "options": {"replication.factor": 1},
            **changes,
        }
        return {key: value for key, value in found.items() if value is not None}

    def write(
        self,
        project: Project,
        inputs: Mapping[str, Any] | None,
        *,
        block: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        outputs: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a program with the stream `main`, if inputs are given.

        :param block: `kafkaMirror` of the provider's configuration.
        :param more: further resources.
        """
        provider = {
            "type": "pulumi:providers:replicator",
            "properties": {"kafkaMirror": dict(block or {"address": self.address})},
            "defaultProvider": True,
        }
        main = {"main": {"type": "replicator:index:Stream", "properties": dict(inputs)}} if inputs else {}
        project.write_yaml(
            {
                "variables": dict(variables or {}),
                "resources": {"connect": provider, **main, **(more or {})},
                "outputs": dict(outputs or {}),
            }
        )

    # --- the engine's side -------------------------------------------------------------------------------------------

    def ask(self, verb: str, path: str, body: Any = None, *, connect: str | None = None) -> Any:
        """One call of Connect's REST interface."""
        url = f"{connect or self.address}{path}"
        with httpx.Client(transport=Patient(), timeout=30) as rest:
            answer = rest.request(verb, url, json=body).raise_for_status()
        return answer.json() if answer.content else None

    def connectors(self, name: str, *, connect: str | None = None) -> dict[str, str]:
        """The states of the connectors whose names begin so."""
        found = self.ask("GET", "/connectors?expand=status", connect=connect)
        return {each: item["status"]["connector"]["state"] for each, item in found.items() if each.startswith(name)}

    def config(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.ask("GET", f"/connectors/{name}/config")
        return found

    def command(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run `replicator` as an operator does; it has to end with one of the exit codes."""
        done = command(*arguments, "--backend", "kafka-mirror", "--address", self.address)
        assert done.returncode in codes, done.stderr
        return done.stdout

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.command("status", name, "--json", codes=(0, 1)))[0]
        return found

    def caught_up(self, name: str) -> dict[str, Any]:
        """Wait until all is at the destination."""
        found: dict[str, Any] = {}

        def reached() -> bool:
            found.clear()
            found.update(self.status(name))
            return (found["state"], found["lagEvents"]) == ("running", 0)

        wait_until(reached, f"{name} is caught up", timeout=40)
        return found

    # --- the data ----------------------------------------------------------------------------------------------------

    def topic(self, name: str, records: Sequence[Record] = (), *, at: Side | None = None) -> str:
        """A topic of the east, with records. They have times of long ago, so nothing may be deleted by time."""
        client = plain((at or self.east).bootstrap)
        make_topic(client, name, partitions=1, **{"retention.ms": "-1"})
        produce(client, name, records)
        return name

    def produce(self, topic: str, records: Sequence[Record]) -> None:
        produce(plain(self.east.bootstrap), topic, records)

    def copy(self, topic: str) -> list[Record]:
        """What the west has of a topic of the east. Raises KafkaException where there is no such topic."""
        return consume(plain(self.west.bootstrap), f"{REGION}.{topic}")

    def arrives(self, topic: str, records: Sequence[Record]) -> None:
        """Wait until the west has these records of a topic, and no others."""
        arrives(self.west.bootstrap, f"{REGION}.{topic}", records)


def arrives(bootstrap: str, topic: str, records: Sequence[Record]) -> None:
    """Wait until a topic has these records, and no others."""
    wait_until(
        lambda: consume(plain(bootstrap), topic) == list(records), f"{topic} has {len(records)} records", timeout=30
    )
