"""Programs of several streams, on the plugin and on the dynamic provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import pytest

from tests.e2e.programs import Inputs
from tests.pulumi import Project

Options = Mapping[str, Mapping[str, Any]]
"""Options of resources, by resource, as YAML names them."""


class Way(Protocol):
    """How a stack declares streams. The address of the backend is in its configuration."""

    def write(self, project: Project, streams: Mapping[str, Inputs], options: Options | None = None) -> None:
        """Write a program with these streams, by the names of the resources."""


class Plugin:
    """A YAML program."""

    def write(self, project: Project, streams: Mapping[str, Inputs], options: Options | None = None) -> None:
        given = options or {}
        resources = {
            name: {"type": "replicator:index:Stream", "properties": dict(inputs), "options": dict(given.get(name, {}))}
            for name, inputs in streams.items()
        }
        project.write_yaml({"resources": resources})


class Dynamic:
    """A Python program."""

    def write(self, project: Project, streams: Mapping[str, Inputs], options: Options | None = None) -> None:
        lines = ["import pulumi", "from replicator import dynamic"]
        for name, inputs in streams.items():
            opts = f"pulumi.ResourceOptions(**{_snake((options or {}).get(name, {}))!r})"
            lines.append(f"dynamic.Stream({name!r}, {opts}, **{_snake(inputs)!r})")
        project.write_python("\n".join(lines))


def _snake(given: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): value for key, value in given.items()}


WAYS: Mapping[str, Way] = {"plugin": Plugin(), "dynamic": Dynamic()}
LONG = ["plugin", pytest.param("dynamic", marks=pytest.mark.proof)]
"""The ways for stories of many operations. Each starts Python twice on the second, whose life has tests of its own."""


def orders(project: Project, key: str, **changes: Any) -> dict[str, Any]:
    """Return inputs of a stream with ends of its own, which `key` tells apart. A property given as None is left out."""
    inputs = {
        "backend": "memory",
        "name": f"{project.name}-{key}",
        "source": {"kind": "postgres", "uri": f"postgres://db.example/{project.name}-{key}"},
        "destination": {"kind": "kafka", "uri": f"kafka://broker.example:9092/{project.name}/{key}"},
        **changes,
    }
    return {key: value for key, value in inputs.items() if value is not None}
