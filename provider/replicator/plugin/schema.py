"""The Pulumi schema, generated from the models: `python -m replicator.plugin.schema` prints schema.json.

A resource or function is one row of `RESOURCES` or `FUNCTIONS`. The rows determine the types, and docstrings the
descriptions. The schema has no version: the plugin fills in its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from replicator.backends import REGISTRY, Backend
from replicator.capabilities import TABLE
from replicator.lifecycle.check import FOLDER_KIND
from replicator.lifecycle.config import ProviderConfig, Setting, all_settings
from replicator.lifecycle.function_types import (
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
    StreamReport,
    StreamStatuses,
)
from replicator.model import EndpointKind, Model, Stream, StreamStatus
from replicator.plugin.schema_examples import example
from replicator.plugin.schema_types import Types, docs_of
from replicator.replicator import ReplayPlan

PACKAGE = "replicator"


STREAM_IMPORT = """\
## Import

The id is `<backend>/<region or "default">/<name>`. An import changes nothing at the engine.

```sh
$ pulumi import replicator:index:Stream orders litestream/us-east/orders
```
"""


REPLAY_RUN_TEXT = """\
The run has an idempotency key, made from the resource's URN and its inputs. A run that was cut off, by a crash or by
^C, is joined by the next `pulumi up` and never begun twice. Each change of an input is another run; `triggers` are
there to ask for one. A run that failed stays failed: correct the cause and change `triggers`. Removing the resource
undoes nothing.

The preview says what the run would do, and refuses a start that is no longer retained.

## Import

The id is that of the stream, and the run's key after it: `<backend>/<region or "default">/<name>/<key>`.

```sh
$ pulumi import replicator:index:ReplayRun restored litestream/us-east/orders/<key>
```
"""


class StreamOutputs(Stream):
    """The outputs of a stream: its inputs with defaults filled in, and what the engine reported.

    :param status: what the engine told at the last update or refresh; `getStreamStatus` tells what holds now.
    :param engine_objects: what was made at the engine for this stream.
    :param owner_token: identifies this resource to the engine, kept so that a rename keeps the stream.
    :param owner_urn: URN of the resource that the engine's record names as the owner. An alias or a stack rename makes
        an update, which writes the new one.
    """

    backend: str
    status: StreamStatus | None = None
    engine_objects: dict[str, Any] | None = None
    owner_token: str | None = None
    owner_urn: str | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the package.

    :param filled: inputs that Check fills in if the program omits them.
    :param replacing: inputs whose change requires a replacement.
    :param hidden: fields of the models that are not properties.
    :param secret: outputs that Pulumi keeps out of diffs, and encrypts in the state.
    :param text: Markdown that follows the docstring of `inputs` and the example in the documentation.
    """

    inputs: type[Model]
    outputs: type[Model]
    filled: frozenset[str]
    replacing: frozenset[str]
    hidden: frozenset[str]
    secret: frozenset[str]
    text: str


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the package.

    :param plain: SDKs also get the form with plain values, which does not wait for the resources that it depends on.
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
        replacing=frozenset({"name", "backend"}),
        hidden=frozenset({"owner"}),
        secret=frozenset({"ownerToken"}),
        text=STREAM_IMPORT,
    ),
    "ReplayRun": Resource(
        ReplayRunInputs,
        ReplayRunOutputs,
        filled=frozenset(),
        replacing=frozenset({"stream", "start", "method", "target", "triggers"}),
        hidden=frozenset(),
        secret=frozenset(),
        text=REPLAY_RUN_TEXT,
    ),
}

FUNCTIONS: Mapping[str, Function] = {
    "getCapabilities": Function(
        GetCapabilitiesArgs, AllCapabilities, "What each backend can do, as its release knows it. It asks no engine."
    ),
    "getStreamStatus": Function(
        GetStreamStatusArgs,
        StreamReport,
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

_README = """\
# Replicator

Cross-region replication streams as code. This package declares them; the plugin that manages them comes with the Python
package `replicator-provider`. Name the folder that holds it in `Pulumi.yaml`, and Pulumi starts it without a download:

```yaml
plugins: {providers: [{name: replicator, path: .venv/bin}]}
```
"""

_GO_MODULE = "github.com/pulumi-replicator/pulumi-replicator/sdk/go"

# For `Stream.exists`, generated code calls functions that Pulumi's SDKs have since 3.269.
_LANGUAGES = {
    "go": {
        "importBasePath": f"{_GO_MODULE}/{PACKAGE}",
        "modulePath": _GO_MODULE,
        "generateResourceContainerTypes": True,
        "respectSchemaVersion": True,
    },
    "nodejs": {
        "packageName": "@pulumi-replicator/replicator",
        "packageDescription": "Cross-region replication streams as code.",
        "readme": _README,
        "dependencies": {"@pulumi/pulumi": "^3.269.0"},
        "typescriptVersion": "^5.9.0",
        "respectSchemaVersion": True,
    },
    "python": {
        "packageName": "pulumi_replicator",
        "pyproject": {"enabled": True},
        "readme": _README,
        "requires": {"pulumi": ">=3.269.0,<4.0.0"},
        "pythonRequires": ">=3.10",
        "inputTypes": "classes-and-dicts",
        "respectSchemaVersion": True,
    },
}


def build_schema() -> dict[str, Any]:
    """Return the schema as plain JSON values, deterministically."""
    types = Types(PACKAGE)
    resources = {f"{PACKAGE}:index:{name}": _resource(types, name, row) for name, row in sorted(RESOURCES.items())}
    functions = {f"{PACKAGE}:index:{name}": _function(types, name, row) for name, row in sorted(FUNCTIONS.items())}
    configuration = _configuration(types)
    return {
        "name": PACKAGE,
        "displayName": "Replicator",
        "description": "Cross-region replication streams as code.",
        "keywords": ["pulumi", PACKAGE, "replication", "category/database", "kind/native"],
        "license": "Apache-2.0",
        "config": {"variables": _as_text(configuration, types.found())},
        "provider": {
            "description": "Where the streams are managed. Nothing connects before it is needed.",
            "inputProperties": configuration,
        },
        "types": _with_folder_kind(types.found()),
        "resources": resources,
        "functions": functions,
        "language": _LANGUAGES,
    }


def _with_folder_kind(types: Mapping[str, Any]) -> dict[str, Any]:
    """Add the word for folders that Check turns into the kind `s3`, so that SDKs accept it."""
    token = f"{PACKAGE}:index:{EndpointKind.__name__}"
    word = {
        "name": "File",
        "value": FOLDER_KIND,
        "description": "a folder on the agent's host, `file:///absolute/path`: another word for `s3` with such a uri.",
    }
    return {**types, token: {**types[token], "enum": [*types[token]["enum"], word]}}


def render() -> str:
    """Return the text of schema.json."""
    return json.dumps(build_schema(), indent=2) + "\n"


def _resource(types: Types, name: str, row: Resource) -> dict[str, Any]:
    inputs = types.properties(row.inputs, hidden=row.hidden, defaults=True)
    for replacing in row.replacing & inputs.keys():
        inputs[replacing]["willReplaceOnChanges"] = True
    if "backend" in inputs:
        inputs["backend"] = {
            **types.known_words("Backend", "The backends of this release.", _backends()),
            **{key: value for key, value in inputs["backend"].items() if key != "type"},
        }
    outputs = types.properties(row.outputs, hidden=row.hidden)
    for secret in row.secret:
        outputs[secret]["secret"] = True
    return {
        "description": _paragraphs(docs_of(row.inputs).text, example(name), row.text),
        "properties": outputs,
        "required": sorted(types.always(row.outputs)),
        "inputProperties": inputs,
        "requiredInputs": sorted(set(types.needed(row.inputs)) - row.filled),
    }


def _backends() -> dict[str, str]:
    """Return the backends, each with the kinds that it replicates."""
    found = {}
    for row in TABLE.values():
        every = len(row.pairs) == len(EndpointKind) ** 2
        moves = ["any kind to any other"] if every else sorted(f"{one} to {other}" for one, other in row.pairs)
        found[row.backend] = f"Moves {', '.join(moves)}." + ("" if row.automatic else " It is chosen by name alone.")
    return found


def _function(types: Types, name: str, row: Function) -> dict[str, Any]:
    return {
        "description": _paragraphs(row.text, example(name)),
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


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(text.strip() for text in texts if text)


def _configuration(types: Types) -> dict[str, Any]:
    blocks = {backend.config_key: _block(types, backend) for backend in REGISTRY.values()}
    preflight = types.properties(ProviderConfig, hidden=frozenset({"backends", "origin"}))
    found = dict(sorted((blocks | preflight).items()))
    for key, item in found.items():
        item["description"] += f" Left out, it is read from the environment variable `{all_settings()[key].variable}`"
        item["description"] += (
            f"; without both it is {default}." if (default := _default_of(all_settings()[key])) else "."
        )
    return found


def _default_of(setting: Setting) -> str | None:
    """Return a setting's default, in words."""
    if setting.backend is None:
        return f"`{ProviderConfig.model_fields[setting.key].default.value}`"
    return "the agent on this machine" if REGISTRY[setting.backend].default_address else None


def _as_text(properties: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same with enums as strings: an SDK reads a variable of another type as JSON, which a bare word is not.

    SDKs get only the environment variables of words: they would read that of an object as the object.
    """
    found = dict(properties)
    for name, item in properties.items():
        values = types.get(item.get("$ref", "").removeprefix("#/types/"), {}).get("enum")
        if values:
            words = ", ".join(f"`{each['value']}`" for each in values)
            found[name] = {
                "type": "string",
                "description": f"{item['description']} One of {words}.",
                "defaultInfo": {"environment": [all_settings()[name].variable]},
            }
    return found


def _block(types: Types, backend: Backend) -> dict[str, Any]:
    text = f"Where streams of the backend `{backend.kind}` are managed: one address, or one for each region."
    return {**types.of(backend.settings), "description": text}


if __name__ == "__main__":
    print(render(), end="")
