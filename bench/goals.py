"""What is measured, over which floor, and how much more it may cost. README.md shows the same table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of the table.

    :param title: what is measured, for a person.
    :param floor: what it is compared with.
    :param most: the highest ratio of value to floor that is good.
    :param unit: of value and floor.
    """

    name: str
    title: str
    floor: str
    most: float
    unit: str = "s"


_NOTHING = "a plugin that does nothing"
_NOTHING_AND_BARE = "a plugin that does nothing, and a bare loop"
_BARE = "a plugin that makes the bare calls"

GOALS: Mapping[str, Goal] = {
    goal.name: goal
    for goal in (
        Goal("spawn_to_port", "start of the plugin, to its port line", "import of grpc and protobuf", 1.3),
        Goal("installed_to_port", "start of the plugin from its tarball", "its start from the wheel", 1.2),
        Goal("up_200", "first up of 200 streams, 50 ms a backend call", _NOTHING, 1.3),
        Goal("preview_200", "preview of 200 streams, nothing to do", _NOTHING, 1.1),
        Goal("refresh_200", "refresh of 200 streams, 50 ms a backend call", _NOTHING, 1.2),
        Goal("destroy_200", "destroy of 200 streams, 50 ms a backend call", _NOTHING, 1.3),
        Goal("preview_1000", "preview of 1,000 streams, nothing to do", _NOTHING, 1.15),
        Goal("plugin_rss", "memory of the plugin, 1,000 streams", "120 MB", 1.0, "MB"),
        Goal("agent_100", "100 databases made by an agent, 8 at once", "litestream's own calls", 2.2),
        Goal("agent_1000", "100 databases more where an agent has 1,000", "where it has 100", 1.3),
        Goal("memory_10000", "100 streams more where a memory backend has 10,000", "where it has 100", 1.3),
        Goal("connect_100", "first up of 100 mirrors, 8 at once", "the same POSTs in a bare loop, until RUNNING", 1.35),
        Goal("connect_100_16", "first up of 100 mirrors, 16 at once", "the same in a bare loop", 1.5),
        Goal("connect_100_destroy", "destroy of 100 mirrors, 8 at once", "stop all, forget all, delete all", 1.3),
        Goal("connect_100_noop", "refresh of 100 mirrors", "a plugin that does nothing, and a bare status loop", 1.2),
        Goal("connect_100_plugin", "first up of 100 mirrors, 8 at once", _BARE, 1.15),
        Goal("connect_100_16_plugin", "first up of 100 mirrors, 16 at once", _BARE, 1.15),
        Goal("connect_100_destroy_plugin", "destroy of 100 mirrors, 8 at once", _BARE, 1.15),
        Goal("connect_100_noop_plugin", "refresh of 100 mirrors", _BARE, 1.15),
        Goal("debezium_20", "first up of 20 streams of a table, 8 at once", _NOTHING_AND_BARE, 1.3),
        Goal("debezium_20_destroy", "destroy of 20 streams of a table, 8 at once", _NOTHING_AND_BARE, 1.3),
        Goal("debezium_20_noop", "refresh of 20 streams of a table", _NOTHING_AND_BARE, 1.2),
        Goal("debezium_first_row", "first up of one stream, to the first row in its topic", _NOTHING_AND_BARE, 1.2),
    )
}
