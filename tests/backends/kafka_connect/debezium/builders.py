"""Declarations of streams of PostgreSQL tables, as the tables of tests take them."""

from __future__ import annotations

from typing import Any

from replicator.model import Stream

URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"
SOURCE = {"kind": "postgres", "uri": "postgres://db.example/shop", "authRef": "env://PG_SHOP_*"}
DESTINATION = {"kind": "kafka", "uri": "kafka://west:9092"}


def declare(**changes: Any) -> Stream:
    """A stream of the table `public.orders`, from camelCase properties; `source` and `destination` are merged in."""
    given = {"name": "orders", "backend": "debezium", "include": ["public.orders"], "owner": {"urn": URN}, **changes}
    given["source"] = {key: value for key, value in (SOURCE | changes.get("source", {})).items() if value is not None}
    given["destination"] = DESTINATION | changes.get("destination", {})
    return Stream.model_validate(given)
