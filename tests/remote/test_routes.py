from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import replicator.remote
from replicator.remote.client import RemoteReplicator
from replicator.remote.openapi import build_document
from replicator.remote.routes import OPERATIONS, Operation
from replicator.replicator import Replicator


def seam() -> dict[str, inspect.Signature]:
    methods = inspect.getmembers(Replicator, inspect.iscoroutinefunction)
    return {name: inspect.signature(method) for name, method in methods if name != "aclose"}


def test_the_table_has_a_row_for_each_method_of_the_seam() -> None:
    assert sorted(row.method for row in OPERATIONS) == sorted(seam())


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.method)
def test_a_row_takes_the_arguments_and_defaults_of_its_method(row: Operation[Any]) -> None:
    parameters = dict(seam()[row.method].parameters)
    del parameters["self"]
    fields = row.body.model_fields if row.body else {}
    assert row.in_path | set(fields) == set(parameters)
    for name, info in fields.items():
        default = parameters[name].default
        assert info.is_required() == (default is inspect.Parameter.empty)
        if not info.is_required():
            assert info.default == default


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.method)
def test_the_client_has_the_signature_of_the_seam(row: Operation[Any]) -> None:
    assert inspect.signature(getattr(RemoteReplicator, row.method)) == seam()[row.method]


def test_no_two_rows_share_verb_and_path() -> None:
    assert len({(row.verb, row.path) for row in OPERATIONS}) == len(OPERATIONS)


def test_the_committed_document_is_fresh() -> None:
    committed = Path(replicator.remote.__file__).with_name("openapi.json").read_text()
    assert json.loads(committed) == build_document(), "python -m replicator.remote.openapi writes it"


def test_the_document_names_each_operation_once_and_its_references_resolve() -> None:
    document = build_document()
    operations = [entry["operationId"] for path in document["paths"].values() for entry in path.values()]
    assert sorted(operations) == sorted(["info", "ask", *(row.method for row in OPERATIONS)])
    references = _references(document)
    assert references
    for reference in references:
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(_references, node.values()))
    if isinstance(node, list):
        return set().union(*map(_references, node))
    return set()
