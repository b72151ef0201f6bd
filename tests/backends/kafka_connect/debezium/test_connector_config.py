"""The configuration of a stream's connector, as tables; no engine."""

from __future__ import annotations

import re
from typing import Any

import pytest
from replicator.backends.kafka.endpoint import kafka_endpoint
from replicator.backends.kafka_connect.debezium.connector_config import build_source, producer
from replicator.backends.kafka_connect.debezium.declarations import refusals
from replicator.backends.kafka_connect.debezium.details import DebeziumDetails, TableDetails
from replicator.backends.kafka_connect.deployed import foreign_settings
from replicator.backends.kafka_connect.record import RECORD_KEYS, StreamRecord
from replicator.backends.postgres.identifiers import Table
from replicator.backends.settings import DEFAULT_ALIASES

from tests.backends.kafka_connect.debezium.builders import declare
from tests.backends.kafka_connect.mirror.builders import connector

ORDERS, ODD = Table("public", "orders"), Table("My Schema", "Tab.le")


def config(*tables: Table, side: str = "destination", has_helpers: bool = True, **changes: Any) -> dict[str, str]:
    details = DebeziumDetails(
        claim="c", tables={str(table): TableDetails(oid=1) for table in tables or (ORDERS,)}, has_helpers=has_helpers
    )
    record = StreamRecord.model_validate({"stream": declare(**changes), "side": side, "details": details.wire()})
    settings = producer(kafka_endpoint(record.stream.destination, "destination"), DEFAULT_ALIASES)
    return build_source(record, DEFAULT_ALIASES, settings if side == "source" else {})


def test_what_stands_in_every_one() -> None:
    found = {key: value for key, value in config().items() if key not in RECORD_KEYS}
    assert found == {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "plugin.name": "pgoutput",
        "database.hostname": "db.example",
        "database.port": "5432",
        "database.dbname": "shop",
        "database.user": "${env:PG_SHOP_USERNAME}",
        "database.password": "${env:PG_SHOP_PASSWORD}",
        "slot.name": "orders",
        "publication.name": "orders",
        "publication.autocreate.mode": "disabled",
        "topic.prefix": "orders",
        "table.include.list": "(?-i:public\\.orders)",
        "snapshot.mode": "initial",
        "heartbeat.interval.ms": "10000",
        "heartbeat.action.query": found["heartbeat.action.query"],
        "signal.enabled.channels": "source",
        "signal.data.collection": "replicator.signal_orders",
        "topic.creation.default.partitions": "-1",
        "topic.creation.default.replication.factor": "-1",
    }
    assert 'INSERT INTO "replicator"."heartbeat_orders" (at, lsn)' in found["heartbeat.action.query"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "shop-orders"}, {"slot.name": "shop_orders", "topic.prefix": "shop-orders"}),
        ({"options": {"topic.prefix": "shop"}}, {"topic.prefix": "shop"}),
        ({"mode": "cdc"}, {"snapshot.mode": "no_data"}),
        (
            {"mode": "snapshot"},
            {"snapshot.mode": "initial_only", "notification.sink.topic.name": "orders.notifications"},
        ),
        ({"checkpointInterval": "1m30s"}, {"heartbeat.interval.ms": "90000"}),
        ({"options": {"poll.interval.ms": 100.0}}, {"poll.interval.ms": "100"}),
        (
            {
                "source": {
                    "uri": "postgres://app@db/shop?sslmode=verify-full&sslrootcert=/ca.pem",
                    "authRef": "env://PW",
                }
            },
            {
                "database.user": "app",
                "database.password": "${env:PW}",
                "database.sslmode": "verify-full",
                "database.sslrootcert": "/ca.pem",
            },
        ),
    ],
)
def test_what_a_property_becomes(changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert expected.items() <= config(**changes).items()


def test_without_helper_tables_it_has_no_heartbeats() -> None:
    assert not [key for key in config(has_helpers=False) if key.startswith(("heartbeat.", "signal."))]


def test_records_go_to_another_cluster_by_an_override() -> None:
    secure = {"uri": "kafka://west:9092?security.protocol=SSL"}
    assert not [key for key in config(destination=secure) if key.startswith("producer.")]
    found = config(side="source", destination=secure)
    assert found["producer.override.bootstrap.servers"] == "west:9092"
    assert found["producer.override.security.protocol"] == "SSL"


def test_a_filter_names_each_table_as_an_identifier() -> None:
    """One that matches no table filters nothing, and says nothing (seen on Debezium 3.7)."""
    found = config(ORDERS, ODD, filter="region = 'eu'")
    key = "snapshot.select.statement.overrides"
    assert found[key] == '"My Schema"."Tab.le","public"."orders"'
    assert found[f'{key}."My Schema"."Tab.le"'] == 'SELECT * FROM "My Schema"."Tab.le" WHERE (region = \'eu\')'


@pytest.mark.parametrize(
    ("include", "exclude", "sent", "held"),
    [
        ((), ("public.orders.note",), ["id", "notes", "Note"], ["note"]),
        ((), ('public.orders."Note"', "public.orders.s*"), ["id", "note"], ["Note", "secret"]),
        (("public.orders.id", "public.orders.n*"), (), ["id", "note"], ["secret", "Note"]),
        (("public.orders.id", "public.orders.n*"), ("public.orders.notes",), ["id", "note"], ["notes", "secret"]),
    ],
)
def test_the_columns_that_are_sent(
    include: tuple[str, ...], exclude: tuple[str, ...], sent: list[str], held: list[str]
) -> None:
    found = config(include=list(include) or ["public.orders"], exclude=list(exclude))["column.include.list"]
    matches = [
        [
            column
            for column in columns
            if any(re.fullmatch(part, f"public.orders.{column}") for part in found.split(","))
        ]
        for columns in (sent, held)
    ]
    assert matches == [sent, []]


def test_a_password_that_somebody_wrote_into_the_connector_is_not_shown() -> None:
    declared = config()
    there = connector("orders", "RUNNING", **{**declared, "database.password": "hunter2", "poll.interval.ms": "5"})
    assert foreign_settings(there, declared, RECORD_KEYS) == {
        "database.password": "[redacted]",
        "poll.interval.ms": "5",
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"include": ["orders"]}, ["include"]),
        ({"exclude": ["a.b.c.d"]}, ["exclude"]),
        ({"filter": "region = 'eu') OR (1 = 1"}, ["filter"]),
        ({"options": {"topic.prefix": "a b"}}, ["options.topic.prefix"]),
        ({"source": {"uri": "postgres://db/"}}, ["source.uri"]),
        ({"destination": {"authRef": "env://KAFKA_PASSWORD"}}, ["destination.authRef"]),
        ({"source": {"authRef": "env://PG_PASSWORD"}}, ["source.authRef"]),
    ],
)
def test_what_no_engine_is_needed_to_refuse(changes: dict[str, Any], expected: list[str]) -> None:
    assert [error.property for error in refusals(declare(**changes))] == expected
