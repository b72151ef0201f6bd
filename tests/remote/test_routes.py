from __future__ import annotations

import inspect
from typing import Any

import pytest
from replicator.remote.client import RemoteReplicator
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
