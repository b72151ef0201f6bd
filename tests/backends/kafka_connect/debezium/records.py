"""Records of rows in topics, as tests of sinks write them."""

from __future__ import annotations

import json

from tests.kafka import Record

JSON = {
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "key.converter.schemas.enable": True,
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter.schemas.enable": True,
}
ID = {"field": "id", "type": "int32", "optional": False}
NOTE = {"field": "note", "type": "string", "optional": True}


def flat(id: int, note: str | None = None, *, deleted: bool = False, partition: int = 0) -> Record:
    """A record of a row, with its schema, as a JDBC source writes it."""
    key = {"schema": {"type": "struct", "fields": [ID], "optional": False}, "payload": {"id": id}}
    value = {
        "schema": {"type": "struct", "fields": [ID, NOTE], "optional": True},
        "payload": {"id": id, "note": note},
    }
    return Record(json.dumps(key).encode(), None if deleted else json.dumps(value).encode(), partition=partition)
