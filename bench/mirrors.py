"""A hundred mirrors on the real CLI and two real Kafka clusters, over bare loops of the same calls of Kafka Connect."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench import connect_plugin, floor_plugin
from bench.bare_connect import BareConnect
from bench.goals import GOALS
from bench.measure import Result, judge
from bench.stacks import Stack, program, stack
from tests.kafka import plain
from tests.pulumi import SCRIPTS
from tools.kafka.pair import Pair, running_pair

DEFAULT_AT_ONCE = 8
"""The CLI's own parallelism on two cores. It is given, so that the numbers mean the same on every machine."""
MORE_AT_ONCE = 16

_HEAP = "2g"
_LIMIT = 60.0  # seconds for what the brokers do before the clock starts
_RECORDS = 10  # in each topic
_LONG_AGO = 1_700_000_000_000  # milliseconds


def mirrors(folder: Path, laps: int, count: int) -> list[Result]:
    """Up, refresh and destroy of mirrors, `laps` times, and as often an up with more at once."""
    nothing = floor_plugin.install(folder / "nothing")
    plugin = floor_plugin.install(folder / "bare", connect_plugin.__name__)
    with running_pair(folder / "kafka", worker_heap=_HEAP) as pair:
        topics = _make_topics(pair, count)
        written = program({"kafkaMirror": {"address": pair.west.connect}}, (_mirror(pair, topic) for topic in topics))
        floor, beside, value = (
            Stack(stack(folder / name, plugins, written), count)
            for name, plugins in (("floor", nothing), ("beside", plugin), ("value", SCRIPTS))
        )
        floor.fill()
        return _measured(laps, pair, topics, floor, beside, value)


def _measured(laps: int, pair: Pair, topics: list[str], floor: Stack, beside: Stack, value: Stack) -> list[Result]:
    """Measure over bare loops, and over the plugin that makes their calls.

    :param floor: with the plugin that does nothing.
    :param beside: with the plugin that makes the bare calls.
    """
    bare = BareConnect(pair.west.connect)
    values: dict[str, list[float]] = defaultdict(list)
    floors: dict[str, list[float]] = defaultdict(list)
    value.run("up")  # warms the worker, and makes the topics of the destination
    configs = bare.configs()
    if len(configs) != value.count:
        raise RuntimeError(f"there are {len(configs)} connectors for {value.count} streams")
    value.run("destroy")
    _tell(beside, pair, configs)
    for _ in range(laps):
        for name, at_once in (("connect_100", DEFAULT_AT_ONCE), ("connect_100_16", MORE_AT_ONCE)):
            floors[name].append(bare.create(configs, at_once))
            bare.wait_copied(configs)
            forgotten = bare.delete(configs, at_once)
            floors[f"{name}_plugin"].append(beside.run("up", "--parallel", str(at_once)))
            beside.expect_full()
            bare.wait_copied(configs)
            if at_once == DEFAULT_AT_ONCE:
                floors["connect_100_noop_plugin"].append(beside.run("refresh"))
            dropped = beside.run("destroy", "--parallel", str(at_once))
            values[name].append(value.run("up", "--parallel", str(at_once)))
            value.expect_full()
            bare.wait_copied(configs)
            if at_once == DEFAULT_AT_ONCE:
                floors["connect_100_noop"].append(floor.run("refresh") + bare.look(dict.fromkeys(topics, 1), _at(pair)))
                values["connect_100_noop"].append(value.run("refresh"))
            removed = value.run("destroy", "--parallel", str(at_once))
            if left := bare.configs():
                raise RuntimeError(f"destroy left {len(left)} connectors")
            if at_once == DEFAULT_AT_ONCE:
                floors["connect_100_destroy"].append(forgotten)
                values["connect_100_destroy"].append(removed)
                floors["connect_100_destroy_plugin"].append(dropped)
    values |= {f"{name}_plugin": found for name, found in values.items()}
    return [judge(GOALS[name], values[name], floors[name]) for name in values]


def _tell(beside: Stack, pair: Pair, configs: Mapping[str, Mapping[str, str]]) -> None:
    """Give the plugin that makes the bare calls the configurations that ours has posted."""
    found = {config["topics"].replace("\\", ""): {**config, "name": name} for name, config in configs.items()}
    path = beside.project.folder / "mirrors.json"
    path.write_text(json.dumps({"url": pair.west.connect, "bootstrap": _at(pair), "configs": found}))
    beside.project.environment = {connect_plugin.SETTINGS: str(path)}


def _make_topics(pair: Pair, count: int) -> list[str]:
    """Topics of the source with records of long ago, so nothing may be deleted by time."""
    client = plain(_at(pair))
    names = [f"topic-{number:04}" for number in range(count)]
    wanted = [NewTopic(name, 1, 1, config={"retention.ms": "-1"}) for name in names]
    admin = AdminClient(dict(client))  # what it was asked for ends with it
    for made in admin.create_topics(wanted).values():
        made.result(_LIMIT)
    producer = Producer(dict(client))
    for name in names:
        for number in range(_RECORDS):
            producer.produce(name, b"%d" % number, timestamp=_LONG_AGO)
    if left := producer.flush(_LIMIT):
        raise RuntimeError(f"the source did not take {left} records")
    return names


def _mirror(pair: Pair, topic: str) -> dict[str, Any]:
    return {
        "backend": "kafka-mirror",
        "source": {"kind": "kafka", "uri": f"kafka://{_at(pair)}"},
        "destination": {"kind": "kafka", "uri": f"kafka://{pair.west.bootstrap}"},
        "include": [topic],
        "options": {"replication.factor": 1},
    }


def _at(pair: Pair) -> str:
    return pair.east.bootstrap
