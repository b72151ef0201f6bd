"""The two ways from Pulumi to the life cycle, behind one interface, and a small engine that drives either of them.

`Plugin` speaks to the servicer over gRPC, `Dynamic` to the dynamic provider as its host does. The engine does what
Pulumi's does with one resource: Check, Diff, Create, Update or replace, and for a refresh Read and the Diff after it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc.aio
import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.dynamic import Config, ConfigureRequest
from pulumi.runtime import rpc
from replicator.diagnostics import Diagnostics, Level
from replicator.dynamic.provider import TROUBLE, URN, StreamProvider
from replicator.errors import ReplicatorError
from replicator.lifecycle import connections
from replicator.plugin._proto import pb
from replicator.property_values import UNKNOWN

from tests.lifecycle.builders import Watched
from tests.plugin import builders

Values = dict[str, Any]
Told = set[tuple[str, str]]


class Refused(Exception):
    """The provider refused; the text is what the person reads."""


@dataclass
class State:
    """What Pulumi keeps of a resource."""

    id: str
    inputs: Values
    outputs: Values
    trouble: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """The answer of Diff."""

    changed: bool
    replaces: tuple[str, ...] = ()
    deletes_first: bool = False


class Face(Protocol):
    """One way to the life cycle. Every call may raise `Refused`."""

    async def check(self, urn: str, new: Values, old: Values) -> Values:
        """The checked inputs."""

    async def diff(self, urn: str, state: State, new: Values) -> Difference:
        """What differs between the state and the new inputs."""

    async def preview(self, urn: str, state: State | None, new: Values) -> None:
        """What is called of a create or an update in a preview."""

    async def create(self, urn: str, new: Values) -> State:
        """The state of what was made."""

    async def update(self, urn: str, state: State, new: Values) -> State:
        """The state of what was changed."""

    async def read(self, urn: str, state: State) -> State | None:
        """The state as it is now."""

    async def delete(self, urn: str, state: State) -> None:
        """Remove it."""

    def told(self) -> Told:
        """The messages since the last call of this, each with its level."""


class Plugin:
    """The plugin's servicer behind a gRPC server."""

    def __init__(self, provider: builders.Provider) -> None:
        self._provider = provider

    async def check(self, urn: str, new: Values, old: Values) -> Values:
        inputs, failures = await self._provider.check(new, old, urn)
        if failures:
            raise Refused("\n".join(failures))
        return inputs

    async def diff(self, urn: str, state: State, new: Values) -> Difference:
        answer = await self._provider.diff(state.inputs, new, urn, state=state.outputs)
        changed = answer.changes == pb.DiffResponse.DIFF_SOME
        return Difference(changed, tuple(answer.replaces), answer.deleteBeforeReplace)

    async def preview(self, urn: str, state: State | None, new: Values) -> None:
        try:
            if state is None:
                await self._provider.create(new, urn=urn, preview=True)
            else:
                await self._provider.update(state.id, state.inputs, state.outputs, new, urn=urn, preview=True)
        except grpc.aio.AioRpcError as error:
            raise Refused(error.details()) from None

    async def create(self, urn: str, new: Values) -> State:
        try:
            id, outputs = await self._provider.create(new, urn=urn)
        except grpc.aio.AioRpcError as error:
            return _unwell(error)
        return State(id, new, outputs)

    async def update(self, urn: str, state: State, new: Values) -> State:
        try:
            outputs = await self._provider.update(state.id, state.inputs, state.outputs, new, urn=urn)
        except grpc.aio.AioRpcError as error:
            unwell = _unwell(error)
            return State(state.id, state.inputs, unwell.outputs, unwell.trouble)  # so Pulumi: the old inputs stay
        return State(state.id, new, outputs)

    async def read(self, urn: str, state: State) -> State | None:
        try:
            id, inputs, outputs = await self._provider.read(state.id, state.inputs, state.outputs, urn)
        except grpc.aio.AioRpcError as error:
            return _unwell(error)
        return State(id, inputs, outputs) if id else None

    async def delete(self, urn: str, state: State) -> None:
        try:
            await self._provider.delete(state.id, state.outputs, urn)
        except grpc.aio.AioRpcError as error:
            raise Refused(error.details()) from None

    def told(self) -> Told:
        logs = self._provider.engine.logs
        found = {(severity, text) for severity, text, _ in logs}
        logs.clear()
        self._provider.servicer.engine._warned.clear()
        return found


def _unwell(error: grpc.aio.AioRpcError) -> State:
    """A resource that is there and not well; any other error is a refusal."""
    if "grpc-status-details-bin" not in dict(error.trailing_metadata() or ()):
        raise Refused(error.details()) from None
    id, outputs, inputs, reasons = builders.init_failure(error, cut_off=None)
    return State(id, inputs, outputs, tuple(reasons))


class Heard(Diagnostics):
    """Keeps what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str, str]] = []

    async def send(self, level: Level, message: str, urn: str, *, ephemeral: bool = False) -> None:
        if not ephemeral:
            self.told.append((level.name, message, urn))


class Dynamic:
    """The dynamic provider, called as its host calls it: in a thread, with values that came over the wire."""

    def __init__(self, provider: StreamProvider) -> None:
        self._provider = provider
        self._heard = provider._messages = Heard()  # type: ignore[assignment]

    async def check(self, urn: str, new: Values, old: Values) -> Values:
        result = await self._call(self._provider.check, wire(old), wire({**new, URN: urn}))
        if result.failures:
            assert all(failure.property == "" for failure in result.failures)
            raise Refused("\n".join(failure.reason for failure in result.failures))
        return dict(result.inputs)

    async def diff(self, urn: str, state: State, new: Values) -> Difference:
        result = await self._call(self._provider.diff, state.id, wire(state.outputs), wire(new))
        # True means "again", of an unwell stream or an output; where an input differs, Pulumi is left to find what.
        changed = result.changes is None or (result.changes is True and not state.trouble)
        return Difference(changed, tuple(result.replaces or ()), bool(result.delete_before_replace))

    async def preview(self, urn: str, state: State | None, new: Values) -> None:
        """The host calls nothing."""

    async def create(self, urn: str, new: Values) -> State:
        made = await self._call(self._provider.create, wire(new))
        return self._state(made.id, new, made.outs)

    async def update(self, urn: str, state: State, new: Values) -> State:
        made = await self._call(self._provider.update, state.id, wire(state.outputs), wire(new))
        return self._state(state.id, new, made.outs)

    async def read(self, urn: str, state: State) -> State | None:
        found = await self._call(self._provider.read, state.id, wire(state.outputs))
        return self._state(found.id, found.inputs or state.inputs, found.outs) if found.id else None

    async def delete(self, urn: str, state: State) -> None:
        await self._call(self._provider.delete, state.id, wire(state.outputs))

    def told(self) -> Told:
        found = {(level, text) for level, text, _ in self._heard.told}
        self._heard.told.clear()
        self._heard._warned.clear()
        return found

    def _state(self, id: str, inputs: Values, outputs: Values) -> State:
        return State(id, inputs, outputs, tuple(outputs[TROUBLE]))

    async def _call(self, method: Any, *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(method, *arguments)
        except ReplicatorError as error:
            raise Refused(str(error)) from None


def wire(values: Values) -> Values:
    """Values as they come over the wire: every number is a float, and the unknown is Pulumi's word for it."""
    struct = struct_pb2.Struct()
    struct.update(_spelt(values))
    found: Values = json_format.MessageToDict(struct)
    return found


def _spelt(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spelt(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelt(item) for item in value]
    return rpc.UNKNOWN if value is UNKNOWN else value


_addresses = itertools.count()


def configured(memory: Watched, patch: pytest.MonkeyPatch, settings: Mapping[str, str] | None = None) -> StreamProvider:
    """A dynamic provider with a configuration of its own, whose connections lead to `memory`."""
    patch.setattr(connections, "open_replicator", lambda kind, address, settings: memory)
    raw = {"replicator:memory": f'{{"address": "unix:///mem/{next(_addresses)}"}}', **(settings or {})}
    provider = StreamProvider()
    provider.configure(ConfigureRequest(Config(raw, "shop")))
    return provider


@asynccontextmanager
async def plugin(memory: Watched, patch: pytest.MonkeyPatch) -> AsyncIterator[Face]:
    async with builders.serving(memory) as provider:
        yield Plugin(provider)


@asynccontextmanager
async def dynamic(memory: Watched, patch: pytest.MonkeyPatch) -> AsyncIterator[Face]:
    yield Dynamic(configured(memory, patch))


FACES = {"plugin": plugin, "dynamic": dynamic}

PREVIEW, UP, REFRESH, DESTROY = "preview", "up", "refresh", "destroy"
CODE = re.compile(r"RPL-[A-Z]+-[A-Z]+")


@dataclass
class Answer:
    """What one command came to.

    :param did: to the resource: create, same, update, replace, delete.
    :param refused: the codes of the errors; empty where it was done.
    :param told: messages of a preview.
    """

    did: str
    refused: frozenset[str] = frozenset()
    told: Told = field(default_factory=set)


class Stack:
    """One resource, driven through a face."""

    def __init__(self, face: Face, urn: str) -> None:
        self.face = face
        self.urn = urn
        self.state: State | None = None

    async def run(self, command: str, program: Values) -> Answer:
        """Run one command of the CLI. What was told is kept for a preview, since `up` is told other things."""
        self.face.told()
        try:
            did = await getattr(self, f"_{command}")(program)
        except Refused as error:
            return Answer("refused", frozenset(CODE.findall(str(error))))
        return Answer(did, told=self.face.told() if command == PREVIEW else set())

    async def _preview(self, program: Values) -> str:
        did, new = await self._plan(program)
        if did in ("create", "replace"):
            await self.face.preview(self.urn, None, new)
        elif did == "update":
            await self.face.preview(self.urn, self.state, new)
        return did

    async def _up(self, program: Values) -> str:
        did, new = await self._plan(program)
        if did == "replace":
            await self._destroy(program)
        if did in ("create", "replace"):
            self.state = await self.face.create(self.urn, new)
        elif self.state is not None and did == "update":
            self.state = await self.face.update(self.urn, self.state, new)
        elif self.state is not None:
            self.state.inputs = new
        return did

    async def _plan(self, program: Values) -> tuple[str, Values]:
        """What is to be done, and the checked inputs. A replacement is checked once more, as a new resource."""
        if self.state is None:
            return "create", await self.face.check(self.urn, program, {})
        new = await self.face.check(self.urn, program, self.state.inputs)
        difference = await self.face.diff(self.urn, self.state, new)
        if difference.replaces:
            assert difference.changed
            assert difference.deletes_first
            return "replace", await self.face.check(self.urn, program, {})
        # With nothing to change, an unwell resource is updated all the same.
        return "update" if difference.changed or self.state.trouble else "same", new

    async def _refresh(self, program: Values) -> str:
        assert self.state is not None
        read = await self.face.read(self.urn, self.state)
        declared, self.state = self.state.inputs, read
        if read is None:
            return "delete"
        return "update" if (await self.face.diff(self.urn, read, declared)).changed else "same"

    async def _destroy(self, program: Values) -> str:
        assert self.state is not None
        await self.face.delete(self.urn, self.state)
        self.state = None
        return "delete"
