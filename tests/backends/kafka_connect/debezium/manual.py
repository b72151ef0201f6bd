"""Connectors as a person creates them, with everything in the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from tests.backends.kafka_connect.debezium.debezium_env import OPTIONS, PASSWORD, DebeziumEnv
from tests.waiting import wait_until

CONVERTERS = {key: str(value).lower() if value is False else str(value) for key, value in OPTIONS.items()}


def manual(bed: DebeziumEnv, name: str, **changes: str) -> dict[str, str]:
    """A configuration as a person writes it, with the password in it."""
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "database.hostname": bed.server.host,
        "database.port": str(bed.server.port),
        "database.dbname": bed.database,
        "database.user": bed.role,
        "database.password": PASSWORD,
        "topic.prefix": name,
        "slot.name": f"by_hand_{name.replace('-', '_')}",
        "publication.autocreate.mode": "disabled",
        "decimal.handling.mode": "string",
        "max.batch.size": "1000",
        "topic.creation.default.partitions": "1",
        **CONVERTERS,
        **changes,
    }


@contextmanager
def by_hand(bed: DebeziumEnv, config: dict[str, str], name: str | None = None) -> Iterator[str]:
    """A connector that no stream made, until the end of the block."""
    name = name or config["topic.prefix"]
    with closing(bed.rest()) as rest:
        rest.put(f"/connectors/{name}/config", json=config).raise_for_status()
        try:
            yield name
        finally:
            rest.delete(f"/connectors/{name}")
            drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s"
            wanted = config.get("slot.name", "debezium")

            def dropped() -> bool:
                found = bed.sql("SELECT active FROM pg_replication_slots WHERE slot_name = %s", wanted)
                return not found or (not found[0][0] and bool(bed.sql(drop, wanted)))

            wait_until(dropped, "its slot is dropped", timeout=40)
