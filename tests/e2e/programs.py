"""Programs that declare one stream, `main`, in YAML and in Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from tests.e2e.memory import Memory
from tests.pulumi import Project

Inputs = Mapping[str, Any]

OUTPUTS = {"id": "${main.id}", "state": "${main.status.state}"}
NOW = {"now": "${now.state}", "events": "${now.eventsReplicated}"}


def stream(project: Project, **changes: Any) -> dict[str, Any]:
    """Inputs of a stream with a destination of the project's own. A property given as None is left out."""
    inputs = {
        "backend": "memory",
        "source": {"kind": "postgres", "uri": "postgres://db.example/shop"},
        "destination": {"kind": "kafka", "uri": f"kafka://broker.example:9092/{project.name}"},
        **changes,
    }
    return {key: value for key, value in inputs.items() if value is not None}


def invoke(function: str, **arguments: Any) -> dict[str, Any]:
    """A function call in YAML, with the program's own provider."""
    token = f"replicator:index:{function}"
    return {"fn::invoke": {"function": token, "arguments": arguments, "options": {"provider": "${provider}"}}}


def yaml_program(
    address: str,
    inputs: Inputs,
    *,
    options: Mapping[str, Any] | None = None,
    outputs: Mapping[str, str] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A YAML program whose stream has a provider of its own."""
    return {
        "variables": dict(variables or {}),
        "resources": {
            "provider": {"type": "pulumi:providers:replicator", "properties": {"memory": {"address": address}}},
            "main": {
                "type": "replicator:index:Stream",
                "properties": dict(inputs),
                "options": {"provider": "${provider}", **(options or {})},
            },
        },
        "outputs": dict(OUTPUTS if outputs is None else outputs),
    }


PYTHON = '''
import pulumi


class Stream(pulumi.CustomResource):
    """A stream without a generated SDK."""

    status: pulumi.Output[dict]

    def __init__(self, name, inputs):
        super().__init__("replicator:index:Stream", name, {{"status": None, **inputs}})


main = Stream("main", {inputs!r})
now = pulumi.runtime.invoke_output("replicator:index:getStreamStatus", {{"stream": main.id}})
pulumi.export("id", main.id)
pulumi.export("state", main.status["state"])
pulumi.export("now", now["state"])
pulumi.export("events", now["eventsReplicated"])
'''


DYNAMIC = """
import pulumi
from replicator import dynamic

main = dynamic.Stream("main", **{inputs!r})
now = dynamic.get_stream_status(main.id)
pulumi.export("id", main.id)
pulumi.export("state", main.status.state)
pulumi.export("now", now.state)
pulumi.export("events", now.events_replicated)
"""


class Language(Protocol):
    """How one language declares the stream, and exports its id and its status: stored and asked for now."""

    def prepare(self, project: Project, memory: Memory) -> None:
        """Once, when the stack is there."""

    def write(self, project: Project, memory: Memory, inputs: Inputs) -> None:
        """Write the program."""


class Yaml:
    """A provider of the program's own."""

    def prepare(self, project: Project, memory: Memory) -> None:
        pass

    def write(self, project: Project, memory: Memory, inputs: Inputs) -> None:
        now = {"now": invoke("getStreamStatus", stream="${main.id}")}
        project.write_yaml(yaml_program(memory.address, inputs, outputs={**OUTPUTS, **NOW}, variables=now))


class Python:
    """The default provider, with its address in the stack's configuration."""

    def prepare(self, project: Project, memory: Memory) -> None:
        project.configure("replicator:memory", {"address": memory.address})

    def write(self, project: Project, memory: Memory, inputs: Inputs) -> None:
        project.write_python(PYTHON.format(inputs=inputs))


class Dynamic:
    """The dynamic provider, with its address in the same place."""

    def prepare(self, project: Project, memory: Memory) -> None:
        project.configure("replicator:memory", {"address": memory.address})

    def write(self, project: Project, memory: Memory, inputs: Inputs) -> None:
        arguments = {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): inputs[key] for key in inputs}
        project.write_python(DYNAMIC.format(inputs=arguments))


LANGUAGES: Mapping[str, Language] = {"yaml": Yaml(), "python": Python()}
