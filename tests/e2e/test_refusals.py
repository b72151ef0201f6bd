"""What is wrong is refused in a preview, in words, and never with the value: it may be a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from replicator.capabilities import LITESTREAM, Cell, Feature, No
from replicator.model import Mode

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory
from tests.e2e.programs import PYTHON, stream, yaml_program
from tests.pulumi import Project, Ran

SECRET = "hunter2-Zq"
MACHINE_WORDS = ("<nil>", "map[", "rpc error", "Traceback", "RPL-PLUGIN", "pydantic", "<class")

SQLITE = {"kind": "sqlite", "uri": "sqlite:///var/lib/shop/shop.db"}
S3 = {"kind": "s3", "uri": "s3://replicas/shop"}


def reason(cell: Cell) -> str:
    """Why the capability table says no."""
    assert isinstance(cell, No)
    return cell.reason


@dataclass(frozen=True)
class Refusal:
    """Inputs, and every reason that is given for them."""

    inputs: Mapping[str, Any]
    reasons: tuple[str, ...]


REFUSALS = {
    "a password in a URI": Refusal(
        {"source": {"kind": "postgres", "uri": f"postgres://app:{SECRET}@db.example/shop"}},
        (
            "source.uri: holds a secret, which would stand in the state; name it with authRef instead"
            " [RPL-STREAM-INVALID]",
        ),
    ),
    "a password in a query": Refusal(
        {"source": {"kind": "postgres", "uri": f"postgres://db.example/shop?sslpassword={SECRET}"}},
        (
            "source.uri: holds a secret, which would stand in the state; name it with authRef instead"
            " [RPL-STREAM-INVALID]",
        ),
    ),
    "another scheme, with a password": Refusal(
        {"source": {"kind": "postgres", "uri": f"mysql://app:{SECRET}@db.example/shop"}},
        (
            "source.uri: an endpoint of kind postgres has a uri such as postgres://… or postgresql://…"
            " [RPL-STREAM-INVALID]",
        ),
    ),
    "all that is wrong, at once": Refusal(
        {"checkpointInterval": "soon", "options": {"threads": 4, "password": SECRET}, "name": "Shop!"},
        (
            "name: must begin with a to z, and hold a to z, 0 to 9 and - alone, 48 characters at most "
            "[RPL-STREAM-INVALID]",
            'checkpointInterval: is not a duration; write one such as "10s" or "1m30s" [RPL-STREAM-INVALID]',
            "options.threads: is not an option of memory; it takes fail [RPL-CAP-UNSUPPORTED]",
            "options.password: looks like a secret, which would stand in the state; use authRef [RPL-STREAM-INVALID]",
        ),
    ),
    "a secret where a reference belongs": Refusal(
        {"destination": {"kind": "kafka", "uri": "kafka://broker.example:9092/x", "authRef": SECRET}},
        ("destination.authRef: ",),
    ),
    "what litestream cannot do": Refusal(
        {"backend": "litestream", "source": SQLITE, "destination": S3, "mode": "cdc", "filter": "total > 10"},
        (
            f"mode: {reason(LITESTREAM.routes[0].modes[Mode.CDC])} [RPL-CAP-UNSUPPORTED]",
            f"filter: {reason(LITESTREAM.routes[0].features[Feature.FILTER])} [RPL-CAP-UNSUPPORTED]",
        ),
    ),
    "a pair that litestream does not move": Refusal(
        {"backend": "litestream"},
        ("backend: litestream does not move postgres to kafka; it moves sqlite → s3 [RPL-CAP-UNSUPPORTED]",),
    ),
    "a backend that has to be named": Refusal(
        {"backend": None},
        (
            "backend: the configuration names memory, which a stream has to ask for by name; set backend"
            " [RPL-CAP-UNSUPPORTED]",
        ),
    ),
}


@pytest.fixture(scope="module")
def project(make_project: Make) -> Project:
    return make_project("refusals")


def told(ran: Ran) -> list[str]:
    """The reasons that the CLI shows under Diagnostics, of the stream `main`."""
    shown = ran.text.partition("Diagnostics:")[2].splitlines()
    start = "error: replicator:index:Stream resource 'main' has a problem: "
    return [line.strip().removeprefix(start) for line in shown if line.strip().startswith(start)]


def assert_readable(ran: Ran) -> None:
    """Words for people in all that the CLI shows, and no secret."""
    assert not [word for word in (*MACHINE_WORDS, SECRET) if word in ran.text], ran.text


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_in_preview(case: str, project: Project, memory: Memory) -> None:
    refusal, effects = REFUSALS[case], memory.effects()
    project.write_yaml(yaml_program(memory.address, stream(project, **refusal.inputs)))
    ran = project.preview(check=False)
    assert ran.code == 1, ran.text
    assert_readable(ran)
    reasons = told(ran)
    assert len(reasons) == len(refusal.reasons), ran.text
    for expected in refusal.reasons:
        assert [line for line in reasons if line.startswith(expected)], f"{expected!r} is not in:\n{ran.text}"
    assert memory.effects() == effects


def test_up_refuses_the_same_and_stores_no_secret(project: Project, memory: Memory) -> None:
    refusal = REFUSALS["a password in a URI"]
    project.write_yaml(yaml_program(memory.address, stream(project, **refusal.inputs)))
    ran = project.up("--skip-preview", check=False)
    assert ran.code == 1, ran.text
    assert_readable(ran)
    assert project.state is not None
    files = [path for path in project.state.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_python_is_told_what_the_yaml_host_checks_itself(memory: Memory, make_project: Make) -> None:
    project = make_project("refusals-python")
    project.configure("replicator:memory", {"address": memory.address})
    wrong = stream(project, mode="sideways", soruce=1, waitFor="ready", include="orders")
    project.write_python(PYTHON.format(inputs=wrong))
    ran = project.preview(check=False)
    assert ran.code == 1, ran.text
    assert_readable(ran)
    assert sorted(told(ran)) == [
        "include: must be a list [RPL-STREAM-INVALID]",
        "mode: must be one of 'cdc', 'snapshot' or 'snapshot_then_cdc' [RPL-STREAM-INVALID]",
        "soruce: is not known here; did you mean source? [RPL-STREAM-INVALID]",
        "waitFor: must be one of 'none', 'running' or 'caught_up' [RPL-STREAM-INVALID]",
    ]


def test_what_is_unknown_passes_in_preview(memory: Memory, make_project: Make) -> None:
    project = make_project("unknown")
    second = stream(project, source={"kind": "kafka", "uri": "kafka://broker.example/${main.status.name}"})
    second["destination"] = {"kind": "s3", "uri": "s3://${main.name}/x"}
    program = yaml_program(memory.address, stream(project))
    program["resources"]["second"] = {**program["resources"]["main"], "properties": second}
    project.write_yaml(program)
    ran = project.up()
    assert ran.done("second") == ["create"]
    made = project.resources()["second"]["inputs"]
    first = project.resources()["main"]["inputs"]["name"]
    assert made["source"]["uri"] == f"kafka://broker.example/{first}"
    found = memory.find(made["name"])
    assert found
    assert found.stream.destination.uri == f"s3://{first}/x"
