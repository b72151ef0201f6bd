"""The Pulumi schema, made from the models: `python -m replicator.plugin.schema` prints what schema.json holds.

A resource or function is one row of `RESOURCES` or `FUNCTIONS`. Types follow from what the rows use, descriptions from
the docstrings. The version is left out: the plugin fills in its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from replicator.backends import REGISTRY, Backend
from replicator.lifecycle.config import BackendConfig, ProviderConfig
from replicator.lifecycle.diff import REPLACING
from replicator.lifecycle.shapes import (
    AllCapabilities,
    GetCapabilitiesArgs,
    GetStreamStatusArgs,
    GetStreamStatusesArgs,
    ListedStreams,
    ListStreamsArgs,
    PlanReplayArgs,
    ReplayArgs,
    ReplayResult,
    ReplayRunInputs,
    ReplayRunOutputs,
    StreamStatuses,
)
from replicator.model import Model, Stream, StreamStatus
from replicator.plugin.schema_examples import REPLAY_RUN_TEXT, STREAM_EXAMPLES
from replicator.plugin.schema_types import Types, docs_of
from replicator.replicator import ReplayPlan

PACKAGE = "replicator"


class StreamOutputs(Stream):
    """What the state holds of a stream: its inputs with defaults filled in, and what the engine told.

    :param status: what the engine told at the last update or refresh; `getStreamStatus` tells what holds now.
    :param engine_objects: what was made at the engine for this stream.
    :param owner_token: identifies this resource to the engine, kept so that a rename keeps the stream.
    """

    backend: str
    status: StreamStatus | None = None
    engine_objects: dict[str, Any] | None = None
    owner_token: str | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the package.

    :param filled: inputs that Check fills in where a person leaves them out.
    :param replacing: inputs whose change makes another resource.
    :param hidden: fields of the models that are no properties.
    :param text: what the documentation says after the docstring of `inputs`, in Markdown.
    """

    inputs: type[Model]
    outputs: type[Model]
    filled: frozenset[str]
    replacing: frozenset[str]
    hidden: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the package.

    :param plain: SDKs also get the form that takes plain values, which does not wait for the resources it depends on.
    """

    inputs: type[Model]
    outputs: type[Model]
    text: str
    plain: bool = True


RESOURCES: Mapping[str, Resource] = {
    "Stream": Resource(
        Stream,
        StreamOutputs,
        filled=frozenset({"name", "backend"}),
        replacing=REPLACING,
        hidden=frozenset({"owner"}),
        text=STREAM_EXAMPLES,
    ),
    "ReplayRun": Resource(
        ReplayRunInputs,
        ReplayRunOutputs,
        filled=frozenset(),
        replacing=frozenset({"stream", "start", "method", "target", "triggers"}),
        hidden=frozenset(),
        text=REPLAY_RUN_TEXT,
    ),
}

FUNCTIONS: Mapping[str, Function] = {
    "getCapabilities": Function(
        GetCapabilitiesArgs, AllCapabilities, "What each backend can do, as its release knows it. It asks no engine."
    ),
    "getStreamStatus": Function(
        GetStreamStatusArgs,
        StreamStatus,
        "What the engine tells about a stream now. Outputs of the resource are as old as the last update or refresh.",
    ),
    "getStreamStatuses": Function(
        GetStreamStatusesArgs,
        StreamStatuses,
        "What the engines tell about several streams now, with one listing for each engine. A stream that is not "
        "there, or whose engine does not answer, is in `failures` and hides no other.",
    ),
    "listStreams": Function(
        ListStreamsArgs,
        ListedStreams,
        "Every stream that the engines hold, whoever made it, with the entry that imports it into a program. It fails "
        "where one engine does not answer: a list with gaps would look whole.",
    ),
    "planReplay": Function(PlanReplayArgs, ReplayPlan, "What a replay would do. It changes nothing."),
    "replay": Function(
        ReplayArgs,
        ReplayResult,
        "Sends the changes since a position or a time once more, or makes a copy as of then, and waits until that is "
        "done. It runs once for one `idempotencyKey`. In a preview it changes nothing and returns the plan.",
        plain=False,
    ),
}

_LANGUAGES = {
    "go": {"generateResourceContainerTypes": True, "respectSchemaVersion": True},
    "nodejs": {
        "packageName": "pulumi-replicator",
        "dependencies": {"@pulumi/pulumi": "^3.206.0"},
        "respectSchemaVersion": True,
    },
    "python": {
        "packageName": "pulumi_replicator",
        "pyproject": {"enabled": True},
        "requires": {"pulumi": ">=3.206.0,<4.0.0"},
        "inputTypes": "classes-and-dicts",
        "respectSchemaVersion": True,
    },
}


def build_schema() -> dict[str, Any]:
    """The schema as plain JSON values, the same each time."""
    types = Types(PACKAGE)
    resources = {f"{PACKAGE}:index:{name}": _resource(types, row) for name, row in sorted(RESOURCES.items())}
    functions = {f"{PACKAGE}:index:{name}": _function(types, row) for name, row in sorted(FUNCTIONS.items())}
    configuration = _configuration(types)
    return {
        "name": PACKAGE,
        "displayName": "Replicator",
        "description": "Cross-region replication streams as code.",
        "keywords": ["pulumi", PACKAGE, "replication", "category/database", "kind/native"],
        "license": "Apache-2.0",
        "config": {"variables": configuration},
        "provider": {
            "description": "Where the streams are managed. Nothing connects before it is needed.",
            "inputProperties": configuration,
        },
        "types": types.found(),
        "resources": resources,
        "functions": functions,
        "language": _LANGUAGES,
    }


def render() -> str:
    """The text of schema.json."""
    return json.dumps(build_schema(), indent=2) + "\n"


def _resource(types: Types, row: Resource) -> dict[str, Any]:
    inputs = types.properties(row.inputs, hidden=row.hidden, defaults=True)
    for name in row.replacing & inputs.keys():
        inputs[name]["willReplaceOnChanges"] = True
    return {
        "description": f"{docs_of(row.inputs).text}\n\n{row.text}",
        "properties": types.properties(row.outputs, hidden=row.hidden),
        "required": sorted(types.always(row.outputs)),
        "inputProperties": inputs,
        "requiredInputs": sorted(set(types.needed(row.inputs)) - row.filled),
    }


def _function(types: Types, row: Function) -> dict[str, Any]:
    return {
        "description": row.text,
        "inputs": {
            "type": "object",
            "properties": types.properties(row.inputs, defaults=True),
            "required": sorted(types.needed(row.inputs)),
        },
        "outputs": {
            "description": docs_of(row.outputs).text,
            "type": "object",
            "properties": types.properties(row.outputs),
            "required": sorted(types.always(row.outputs)),
        },
        **({} if row.plain else {"plain": False}),
    }


def _configuration(types: Types) -> dict[str, Any]:
    blocks = {backend.config_key: _block(types, backend) for backend in REGISTRY.values()}
    preflight = types.properties(ProviderConfig, hidden=frozenset({"backends"}), defaults=True)
    return dict(sorted((blocks | preflight).items()))


def _block(types: Types, backend: Backend) -> dict[str, Any]:
    text = f"Where streams of the backend `{backend.kind}` are managed: one address, or one for each region."
    if backend.default_address:
        text += " Left out: the agent on this machine."
    return {**types.of(BackendConfig), "description": text}


if __name__ == "__main__":
    print(render(), end="")
