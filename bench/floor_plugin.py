"""A plugin that does nothing, as fast as Python can: what a provider costs before it does anything.

It answers every call that an operation makes with what it was given, and with constant outputs as large as those of a
stream, since the CLI takes longer for a larger state: no backend, no models, nothing of `replicator`. `install` writes
the script that the Pulumi CLI starts.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc.aio
from google.protobuf.empty_pb2 import Empty

_VERSION = "0.2.0"  # without one, the CLI starts another process to ask for it
_SIGNATURE, _SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"  # of a secret
OUTPUTS: dict[str, Any] = {
    "conflict": "source_wins",
    "deletionProtection": False,
    "desiredState": "running",
    "engineObjects": {},
    "exclude": [],
    "include": [],
    "mode": "snapshot_then_cdc",
    "options": {},
    "ownerUrn": "urn:pulumi:dev::shop::replicator:index:Stream::orders",
    "ownerToken": {_SIGNATURE: _SECRET, "value": "0123456789abcdef0123456789abcdef"},
    "purgeDestination": False,
    "status": {
        "errorsLastHour": 0,
        "eventsReplicated": 1234,
        "lagEvents": 0,
        "lagSeconds": 0,
        "lastCheckpoint": {"lsn": "1234", "wall": "2026-01-31T12:00:00.000Z"},
        "lastEvent": "2026-01-31T12:00:00.000Z",
        "name": "a-project-and-a-stack-and-a-stream-0123abc",
        "state": "running",
    },
    "waitFor": "none",
}
_MESSAGE_LIMIT = 400 * 1024 * 1024  # bytes


def _load_protocol() -> tuple[Any, Any, Any]:
    """Pulumi's generated modules without the rest of its SDK, which would double the start."""
    spec = find_spec("pulumi")
    assert spec is not None and spec.submodule_search_locations
    root = spec.submodule_search_locations[0]
    names = ("pulumi", "pulumi.runtime", "pulumi.runtime.proto")
    for name in names:
        package = ModuleType(name)
        package.__path__ = ["/".join([root, *name.split(".")[1:]])]
        sys.modules[name] = package
    try:
        from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc
    finally:
        for name in names:
            del sys.modules[name]
    return provider_pb2, provider_pb2_grpc, plugin_pb2


pb, pb_grpc, plugin_pb2 = _load_protocol()


class Nothing(pb_grpc.ResourceProviderServicer):  # type: ignore[misc, name-defined]
    """Every resource is what its inputs say."""

    async def Handshake(self, request: Any, context: Any) -> Any:
        return pb.ProviderHandshakeResponse(accept_secrets=True, accept_resources=True, accept_outputs=True)

    async def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=_VERSION)

    async def GetSchema(self, request: Any, context: Any) -> Any:
        schema = (Path(__file__).parents[1] / "schema.json").read_text()
        return pb.GetSchemaResponse(schema=f'{{"version": "{_VERSION}", {schema.lstrip()[1:]}')

    async def CheckConfig(self, request: Any, context: Any) -> Any:
        return pb.CheckResponse(inputs=request.news)

    async def DiffConfig(self, request: Any, context: Any) -> Any:
        return self._compare(request)

    async def Configure(self, request: Any, context: Any) -> Any:
        return pb.ConfigureResponse(acceptSecrets=True, supportsPreview=True, acceptResources=True, acceptOutputs=True)

    async def Check(self, request: Any, context: Any) -> Any:
        return pb.CheckResponse(inputs=request.news)

    async def Diff(self, request: Any, context: Any) -> Any:
        return self._compare(request)

    def _compare(self, request: Any) -> Any:
        same = request.old_inputs == request.news
        return pb.DiffResponse(changes=pb.DiffResponse.DIFF_NONE if same else pb.DiffResponse.DIFF_SOME)

    async def Create(self, request: Any, context: Any) -> Any:
        if request.preview:
            return pb.CreateResponse(properties=request.properties)
        request.properties.update(OUTPUTS)
        return pb.CreateResponse(id=request.urn.rpartition("::")[2], properties=request.properties)

    async def Update(self, request: Any, context: Any) -> Any:
        return pb.UpdateResponse(properties=request.news)

    async def Read(self, request: Any, context: Any) -> Any:
        return pb.ReadResponse(id=request.id, inputs=request.inputs, properties=request.properties)

    async def Delete(self, request: Any, context: Any) -> Any:
        return Empty()

    async def Cancel(self, request: Any, context: Any) -> Any:
        return Empty()


async def serve(servicer: Nothing) -> None:
    """Print the port and serve until the engine sends SIGINT."""
    limits = [("grpc.max_receive_message_length", _MESSAGE_LIMIT), ("grpc.max_send_message_length", _MESSAGE_LIMIT)]
    server = grpc.aio.server(options=limits)
    pb_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(1.0)


def main() -> None:
    asyncio.run(serve(Nothing()))


def install(folder: Path, module: str = __name__) -> Path:
    """Write the script `pulumi-resource-replicator` into `folder`, which is given back.

    :param module: whose `main` serves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "pulumi-resource-replicator"
    # Imported, not run, so that Python keeps its bytecode: the real plugin is imported too.
    lines = (
        f"#!{sys.executable}",
        "import sys",
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})",
        f"from {module} import main",
        "main()",
    )
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)
    return folder
