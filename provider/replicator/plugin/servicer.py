"""Translation of Pulumi's provider protocol. The meaning of a call is in `lifecycle`, imported on first use."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

import grpc.aio
from google.protobuf.empty_pb2 import Empty

from replicator import __version__
from replicator.plugin._proto import pb, plugin_pb2, provider_pb2_grpc
from replicator.plugin.codec import decode, encode
from replicator.plugin.pulumi_engine import PulumiDiagnostics
from replicator.plugin.rpc import Calls, Context, abort_init_failed, rpc
from replicator.property_values import PropertyError, contains_unknown, drop_unknown, path_text, secret_paths, strip

if TYPE_CHECKING:
    from replicator.authref import Redactor
    from replicator.lifecycle.check import NameRule
    from replicator.lifecycle.connections import Connections
    from replicator.lifecycle.diff import Change
    from replicator.lifecycle.resource import Applied
    from replicator.lifecycle.wait import Limits
    from replicator.plugin.resources import Resource

GRACE = 3.0
"""Seconds in which running calls end with a resource id after a cancel; the engine kills after 5."""


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str] | None:
    """Return the gRPC status of an error; None for one that is not the provider's own."""
    from replicator.errors import Category, ReplicatorError

    if isinstance(error, PropertyError):
        return grpc.StatusCode.INVALID_ARGUMENT, str(error)
    if not isinstance(error, ReplicatorError):
        return None
    codes = {
        Category.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Category.MISSING: grpc.StatusCode.NOT_FOUND,
        Category.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
        Category.DENIED: grpc.StatusCode.PERMISSION_DENIED,
        Category.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Category.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
        Category.CANCELLED: grpc.StatusCode.CANCELLED,
        Category.FAILED: grpc.StatusCode.ABORTED,
    }
    return codes[error.category], str(error)


def _unchanged(checked: Any, news: Any) -> bool:
    """Tell whether a program's inputs equal earlier checked ones, which also hold `name` and `backend`."""
    old, new = checked.fields, news.fields
    return (
        bool(old)
        and old.keys() - new.keys() <= {"name", "backend"}
        and all(key in old and old[key] == new[key] for key in new)
    )


def _naming(request: Any) -> NameRule | None:
    """Return the rule of `pulumi:autonaming` in the stack's configuration; `None` if it is not configured."""
    if not request.HasField("autonaming"):
        return None
    from replicator.lifecycle.check import NameMode, NameRule

    word = request.autonaming.Mode.Name(request.autonaming.mode)
    return NameRule(NameMode[word], request.autonaming.proposed_name)


def _written_in(urn: str) -> str | None:
    """Return the name of the program's provider resource; `None` for the default one of the stack's configuration."""
    name = urn.rpartition("::")[2]
    return None if re.fullmatch(r"(default(_.*)?)?", name) else name


def _diff_of(changes: Collection[Change]) -> Any:
    """Return changes as Pulumi's response."""
    kinds = {"add": "ADD", "update": "UPDATE", "delete": "DELETE"}
    return pb.DiffResponse(
        changes=pb.DiffResponse.DIFF_SOME if changes else pb.DiffResponse.DIFF_NONE,
        diffs=sorted({change.root for change in changes}),
        replaces=sorted({change.root for change in changes if change.replaces}),
        detailedDiff={
            change.path: pb.PropertyDiff(
                kind=pb.PropertyDiff.Kind.Value(kinds[change.kind.value] + ("_REPLACE" if change.replaces else "")),
                inputDiff=not change.output,
            )
            for change in changes
        },
        hasDetailedDiff=True,
    )


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """One provider process. The engine calls it concurrently; nothing here blocks the loop."""

    status_of = staticmethod(status_of)

    def __init__(self, engine_address: str | None = None, connect: Callable[[str, str], Any] | None = None) -> None:
        self.calls = Calls()
        self.engine = PulumiDiagnostics(engine_address, self.redact)
        self.invokes_know_preview = False
        self._connect = connect
        self._arguments: dict[str, Any] = {}
        self._arguments_unchanged = False
        self._resource: str | None = None
        self._redactor: Redactor | None = None
        self._connections: Connections | None = None
        self._resources: dict[str, Resource] = {}

    def redact(self, text: str) -> str:
        """Remove secrets from a text. The plugin resolves none; it knows those in its configuration, and in inputs."""
        if self._redactor is None:
            return text
        from replicator.plugin.redaction import redacted

        return redacted(text, self._redactor)

    def _inputs(self, properties: Any) -> dict[str, Any]:
        """Return a resource's inputs. From now on, texts are redacted of their secrets."""
        inputs = decode(properties)
        if secret_paths(inputs):
            from replicator.plugin.redaction import redactor_of

            self._redactor = redactor_of(inputs, self._redactor)
        return inputs

    def _sealed(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return outputs with each text that contains a secret as a Secret."""
        if self._redactor is None:
            return outputs
        from replicator.plugin.redaction import sealed

        found: dict[str, Any] = sealed(outputs, self._redactor)
        return found

    def _hide(self, arguments: dict[str, Any]) -> None:
        self._redactor = None
        if secret_paths(arguments):
            from replicator.plugin.redaction import redactor_of

            self._redactor = redactor_of(arguments)

    @property
    def connections(self) -> Connections:
        """Return the connections of the provider's configuration; raise `InvalidConfig` if that is invalid."""
        if self._connections is None:
            self._connections = self._configured()
        return self._connections

    def _configured(self) -> Connections:
        from replicator.lifecycle.config import configured
        from replicator.lifecycle.connections import Connections

        return Connections(configured(self._arguments, resource=self._resource, environ=os.environ), self._connect)

    def resource(self, urn: str) -> Resource:
        """Return the resource of a URN's type; raise `InvalidStream` for a type of another release."""
        from replicator.plugin.resources import resource_of, type_of

        token = type_of(urn)
        if token not in self._resources:
            self._resources[token] = resource_of(token, self.connections, lambda: self.engine)
        return self._resources[token]

    async def _end_unwell(self, context: Context, made: Applied) -> None:
        """Abort the call if the stream exists but is unhealthy, or its wait was interrupted."""
        if made.trouble:
            reasons = [self.redact(reason) for reason in made.trouble]
            outputs = self._sealed(made.outputs)
            await abort_init_failed(context, made.id, outputs, reasons, made.inputs, refresh_first=not made.cut_off)

    def _redacted(self, value: Any) -> Any:
        """Return a result with redacted texts, which may include messages."""
        if isinstance(value, dict):
            return {key: self._redacted(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._redacted(item) for item in value]
        return self.redact(value) if isinstance(value, str) else value

    def _failures(self, reasons: Iterable[str]) -> list[Any]:
        """Return Check's failures without properties: Pulumi would quote the value of a named one."""
        return [pb.CheckFailure(property="", reason=self.redact(reason)) for reason in reasons]

    def _limits(self, request: Any) -> Limits:
        """Return the limits of a call. Take them when it starts: a cancel ends only the calls that run then."""
        from replicator.lifecycle.wait import Limits

        return Limits(request.timeout, self.calls.cancel)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._connections is not None:
            await self._connections.aclose()
        await self.engine.close()

    @rpc
    async def Handshake(self, request: Any, context: Context) -> Any:
        self.calls.reset()
        self.invokes_know_preview = request.invoke_with_preview
        await self._use_engine(request.engine_address)
        return pb.ProviderHandshakeResponse(
            accept_secrets=True, accept_resources=True, accept_outputs=True, supports_autonaming_configuration=True
        )

    @rpc
    async def Attach(self, request: Any, context: Context) -> Empty:
        await self._use_engine(request.address)
        return Empty()

    async def _use_engine(self, address: str) -> None:
        if address and address != self.engine.address:
            await self.engine.close()
            self.engine = PulumiDiagnostics(address, self.redact)

    @rpc
    async def GetPluginInfo(self, request: Empty, context: Context) -> Any:
        return plugin_pb2.PluginInfo(version=__version__)

    @rpc
    async def GetSchema(self, request: Any, context: Context) -> Any:
        from replicator.plugin.packaged import schema_text

        return pb.GetSchemaResponse(schema=schema_text())

    @rpc
    async def CheckConfig(self, request: Any, context: Context) -> Any:
        self._arguments_unchanged = request.olds == request.news
        if self._arguments_unchanged:
            return pb.CheckResponse(inputs=request.news)
        known, _ = drop_unknown(decode(request.news))
        from replicator.lifecycle.config import parse_config

        _, failures = parse_config(known, resource=_written_in(request.urn), environ=os.environ)
        return pb.CheckResponse(inputs=request.news, failures=self._failures(map(str, failures)))

    @rpc
    async def DiffConfig(self, request: Any, context: Context) -> Any:
        """Return every change as an update; `lifecycle.config_diff` has the reason and the warnings."""
        if request.old_inputs == request.news:
            return _diff_of(())
        from replicator.lifecycle.config_diff import changes, moved, warning

        old, new = strip(decode(request.old_inputs)), strip(decode(request.news))
        if not contains_unknown(new):
            for path in moved(old, new, os.environ):
                await self.engine.warn_once(request.urn, warning(path))
        return _diff_of(changes(old, new))

    @rpc
    async def Configure(self, request: Any, context: Context) -> Any:
        """Take the configuration. One that was read before is only read again when it is used, so a preview without
        changes loads no model.
        """
        arguments = decode(request.args)
        if not contains_unknown(arguments):
            self._hide(arguments)
            self._resource = _written_in(request.urn)
            earlier, self._arguments = self._connections, arguments
            self._connections, self._resources = None if self._arguments_unchanged else self._configured(), {}
            if earlier is not None:
                await earlier.aclose()
        return pb.ConfigureResponse(
            acceptSecrets=True,
            supportsPreview=True,
            acceptResources=True,
            acceptOutputs=True,
            supports_autonaming_configuration=True,
        )

    @rpc
    async def Check(self, request: Any, context: Context) -> Any:
        if _unchanged(request.olds, request.news):
            return pb.CheckResponse(inputs=request.olds)
        inputs, failures = await self.resource(request.urn).check(
            request.urn, self._inputs(request.olds), self._inputs(request.news), _naming(request)
        )
        return pb.CheckResponse(inputs=encode(inputs), failures=self._failures(failures))

    @rpc
    async def Diff(self, request: Any, context: Context) -> Any:
        recorded = request.olds.fields.get("ownerUrn")
        if request.old_inputs == request.news and (recorded is None or recorded.string_value == request.urn):
            return pb.DiffResponse(changes=pb.DiffResponse.DIFF_NONE, hasDetailedDiff=True)
        old, outputs = strip(decode(request.old_inputs)), strip(decode(request.olds))
        resource = self.resource(request.urn)
        changes = await resource.diff(request.urn, request.id, old, outputs, self._inputs(request.news))
        found = _diff_of(changes)
        found.stables.extend(resource.stables)
        found.deleteBeforeReplace = resource.removed_first  # also if replaceOnChanges makes it a replacement
        return found

    @rpc
    async def Create(self, request: Any, context: Context) -> Any:
        limits = self._limits(request)
        inputs = self._inputs(request.properties)
        if request.preview:
            outputs = await self.resource(request.urn).preview_create(request.urn, inputs)
            return pb.CreateResponse(properties=encode(self._sealed(outputs)))
        made = await self.resource(request.urn).create(request.urn, inputs, limits)
        await self._end_unwell(context, made)
        return pb.CreateResponse(id=made.id, properties=encode(self._sealed(made.outputs)))

    @rpc
    async def Update(self, request: Any, context: Context) -> Any:
        limits = self._limits(request)
        resource = self.resource(request.urn)
        old_inputs, new = strip(self._inputs(request.old_inputs)), self._inputs(request.news)
        old = decode(request.olds)
        if request.preview:
            outputs = await resource.preview_update(request.urn, request.id, old_inputs, strip(old), new)
            return pb.UpdateResponse(properties=encode(self._sealed(outputs)))
        made = await resource.update(request.urn, old_inputs, strip(old), new, limits)
        await self._end_unwell(context, made)
        return pb.UpdateResponse(properties=encode(self._sealed(made.outputs)))

    @rpc
    async def Read(self, request: Any, context: Context) -> Any:
        found = await self.resource(request.urn).read(
            request.urn, request.id, self._inputs(request.inputs), decode(request.properties)
        )
        if found is None:
            return pb.ReadResponse(id="")
        await self._end_unwell(context, found)
        properties = encode(self._sealed(found.outputs))
        return pb.ReadResponse(id=request.id, inputs=encode(found.inputs), properties=properties)

    @rpc
    async def Delete(self, request: Any, context: Context) -> Empty:
        self._inputs(request.old_inputs)
        state = strip(decode(request.properties))
        await self.resource(request.urn).delete(request.urn, request.id, state, self._limits(request))
        return Empty()

    @rpc
    async def Invoke(self, request: Any, context: Context) -> Any:
        from replicator.plugin.functions import FUNCTIONS, Invocation

        function = FUNCTIONS.get(request.tok)
        if function is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.tok} is not a function of this provider")
        arguments = decode(request.args)
        if contains_unknown(arguments):
            holes = ", ".join(path_text(path) for path in drop_unknown(arguments)[1])
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not known yet: {holes}")
        invocation = Invocation(
            connections=self.connections,
            preview=request.preview if self.invokes_know_preview else None,
            cancelled=self.calls.cancel,
            engine=self.engine,
        )
        result, failures = await function(invocation, strip(arguments))
        return pb.InvokeResponse(
            **{"return": encode(self._redacted(result) if self._redactor else result)},
            failures=[
                pb.CheckFailure(property=failure.path, reason=self.redact(f"{failure.reason} [{failure.code}]"))
                for failure in failures
            ],
        )

    async def Cancel(self, request: Empty, context: Context) -> Empty:
        """Answer at once; running calls end by themselves with the id of what they created."""
        stopping = asyncio.create_task(self.calls.cancel_all(GRACE))
        self._stopping = stopping
        return Empty()
