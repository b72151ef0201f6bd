"""The OpenAPI document of the seam, from the table of operations: `python -m replicator.remote.openapi`."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from replicator.errors import BY_CODE
from replicator.remote.routes import (
    ACCEPTED,
    GONE,
    INFO_PATH,
    OPERATION_PATH,
    OPERATIONS,
    PREFER_HEADER,
    PROTOCOL,
    PROTOCOL_HEADER,
    Accepted,
    Fault,
    Info,
    Operation,
)
from replicator.remote.wire_errors import STATUS

_SCHEMA = "#/components/schemas/{model}"
_PREFER = {"$ref": f"#/components/parameters/{PREFER_HEADER}"}
_ACCEPTED = {"$ref": "#/components/responses/Accepted"}
_FAULT = {"$ref": "#/components/responses/Fault"}
_HEADER = {"$ref": f"#/components/headers/{PROTOCOL_HEADER}"}

Json = dict[str, Any]


def build_document() -> Json:
    """The document, as OpenAPI 3.1."""
    wanted: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        *((row.method, "serialization", row.adapter) for row in OPERATIONS),
        *((row.method, "validation", TypeAdapter(row.body)) for row in OPERATIONS if row.body),
        ("fault", "serialization", TypeAdapter(Fault)),
        ("info", "serialization", TypeAdapter(Info)),
        ("accepted", "serialization", TypeAdapter(Accepted)),
    ]
    schemas, definitions = TypeAdapter.json_schemas(wanted, ref_template=_SCHEMA)
    answer = _answer("Who answers, and how often each operation was called.", schemas["info", "serialization"])
    paths: Json = {
        INFO_PATH: {"get": {"operationId": "info", "responses": _responses(answer)}},
        OPERATION_PATH: {"get": _describe_asking()},
    }
    for row in OPERATIONS:
        answer = _answer(
            "It is done." if row.result is type(None) else "The answer.", schemas[row.method, "serialization"]
        )
        entry = _describe(row, answer, schemas.get((row.method, "validation")))
        paths.setdefault(_template(row), {})[row.verb.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Replicator",
            "version": str(PROTOCOL),
            "description": "The replicators of an agent, over HTTP on its Unix socket.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "headers": {
                PROTOCOL_HEADER: {
                    "description": "The protocol that the agent speaks. A request that names another is refused.",
                    "required": True,
                    "schema": {"const": str(PROTOCOL)},
                }
            },
            "parameters": {
                PREFER_HEADER: {
                    "name": PREFER_HEADER,
                    "in": "header",
                    "description": "`respond-async, wait=10`: the agent answers after 10 s that it goes on (HTTP 202). "
                    "Left out, the answer comes when the operation has ended.",
                    "schema": {"type": "string"},
                }
            },
            "responses": {
                "Accepted": _answer(
                    f"The operation goes on; its answer is at {OPERATION_PATH}.", schemas["accepted", "serialization"]
                ),
                "Fault": _answer(_describe_faults(), schemas["fault", "serialization"]),
            },
            "schemas": definitions["$defs"],
        },
    }


def _describe(row: Operation[Any], answer: Json, body: Json | None) -> Json:
    names = re.findall(r"{(\w+)}", _template(row))
    entry: Json = {
        "operationId": row.method,
        "summary": row.summary,
        "parameters": [_in_path(name) for name in names] + [_PREFER],
    }
    if body is not None:
        entry["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return entry | {"responses": _responses(answer) | {str(ACCEPTED): _ACCEPTED}}


def _describe_asking() -> Json:
    return {
        "operationId": "ask",
        "summary": "The answer to an operation that goes on.",
        "parameters": [_in_path("operation"), _PREFER],
        "responses": {
            "200": {"description": "The answer of the operation.", "headers": {PROTOCOL_HEADER: _HEADER}},
            str(ACCEPTED): _ACCEPTED,
            str(GONE): {"description": "The agent was restarted. Send the first request again, which is safe."},
            "default": _FAULT,
        },
    }


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _template(row: Operation[Any]) -> str:
    return row.path.replace(":path}", "}")


def _responses(answer: Json) -> Json:
    return {"200": answer, "default": _FAULT}


def _answer(description: str, schema: Json) -> Json:
    return {
        "description": description,
        "headers": {PROTOCOL_HEADER: _HEADER},
        "content": {"application/json": {"schema": schema}},
    }


def _describe_faults() -> str:
    rows = (f"{code} (HTTP {STATUS[error.category]})" for code, error in sorted(BY_CODE.items()))
    return "An error. The code says which: " + ", ".join(rows) + "."


if __name__ == "__main__":
    json.dump(build_document(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
