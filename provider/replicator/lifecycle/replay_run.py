"""A replay as a resource: it runs once for its inputs, and an interrupted wait joins the same run again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import ValidationError

from replicator.diagnostics import Diagnostics
from replicator.errors import (
    AgentUnreachable,
    EngineUnavailable,
    InvalidStream,
    ReplayFailed,
    ReplayNotFound,
    ReplicatorError,
    StreamNotFound,
    WaitCancelled,
    WaitTimeout,
)
from replicator.lifecycle.check import NameRule
from replicator.lifecycle.config import Preflight
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.diff import Change, Kind
from replicator.lifecycle.failure import failures_of, read_inputs
from replicator.lifecycle.function_types import ReplayRunInputs
from replicator.lifecycle.replay import plan_replay, run_replay
from replicator.lifecycle.resource import LAST_LOOK, Applied, Values
from replicator.lifecycle.wait import Limits
from replicator.property_values import drop_unknown, path_text, strip
from replicator.replicator import ReplayPlan, ReplayProgress, ReplayState

_FAILED_FIX = "correct the cause, then change triggers, which makes a new run with a new key"


def run_key(urn: str, inputs: ReplayRunInputs) -> str:
    """Return the idempotency key of a run, which is the same for the same resource and inputs."""
    text = json.dumps([urn, inputs.wire()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class ReplayRunResource:
    """Check, diff and the effects of a declared replay.

    :param messages: returns the current receiver of messages to the user.
    """

    stables: ClassVar[tuple[str, ...]] = ()
    removed_first: ClassVar[bool] = False

    def __init__(self, connections: Connections, messages: Callable[[], Diagnostics]) -> None:
        self._connections = connections
        self._messages = messages

    async def check(
        self, urn: str, old: Values, new: Values, naming: NameRule | None = None
    ) -> tuple[Values, list[str]]:
        """Return the program's inputs, and their errors."""
        new = {key: value for key, value in new.items() if strip(value) is not None}
        known, holes = drop_unknown(new)
        unknown = {str(path[0]) for path in holes}
        try:
            inputs = ReplayRunInputs.model_validate(strip(known))
            StreamId.parse(inputs.stream)
        except ValidationError as error:
            failures = failures_of(error, ReplayRunInputs, InvalidStream.code)
            return new, [str(item) for item in failures if item.path.partition(".")[0] not in unknown]
        except InvalidStream as error:
            return new, [f"stream: {error.message} [{error.code}]"]
        return new, []

    async def diff(self, urn: str, id: str, old_inputs: Values, outputs: Values, new: Values) -> list[Change]:
        """Return the differences. Any difference is a new run."""
        known, holes = drop_unknown(new)
        unknown = {str(path[0]): path_text(path) for path in holes}
        whole = {key: value for key, value in known.items() if key not in unknown}
        before, after = _normal(old_inputs), _normal(strip(whole))
        changes = [Change(path, Kind.UPDATE, replaces=True) for path in unknown.values()]
        for key in dict.fromkeys([*before, *after]):
            if key not in unknown and before.get(key) != after.get(key):
                kind = Kind.UPDATE if key in before and key in after else Kind.ADD if key in after else Kind.DELETE
                changes.append(Change(key, kind, replaces=True))
        return changes

    async def preview_create(self, urn: str, inputs: Values) -> Values:
        """Report the plan of the run. Refuse what would certainly fail. Changes nothing."""
        known, holes = drop_unknown(inputs)
        if not holes and self._connections.config.preflight is not Preflight.OFF:
            wanted = _inputs(strip(known))
            try:
                await self._say_plan(urn, wanted)
            except (AgentUnreachable, EngineUnavailable, StreamNotFound) as error:
                await self._messages().warn_once(urn, f"this preview could not plan the replay: {error.message}")
        return inputs

    async def _say_plan(self, urn: str, wanted: ReplayRunInputs) -> None:
        at, key = StreamId.parse(wanted.stream), run_key(urn, wanted)
        try:
            found = await self._connections.replicator(at).get_replay(at.name, key)
        except ReplayNotFound:
            plan = await plan_replay(self._connections, at, wanted.start, wanted.method, wanted.target)
            for text in _sentences(plan):
                await self._messages().info(text, urn)
            if plan.duplicates:
                await self._messages().warn_once(
                    urn, "replay: the destination gets records again that it holds already"
                )
        else:
            await self._messages().info(f"this replay has begun before and is {found.state.value}; it is joined", urn)

    async def create(self, urn: str, inputs: Values, limits: Limits) -> Applied:
        """Run the replay, or join the run with this key, and wait until it ends."""
        return await self._run(urn, inputs, run_key(urn, _inputs(strip(inputs))), limits)

    async def preview_update(self, urn: str, id: str, old_inputs: Values, old: Values, new: Values) -> Values:
        """Return the outputs before an update, which happens only after an interrupted wait."""
        await self._messages().warn_once(urn, "the wait for this replay was cut off; this update waits again")
        return {**old, **new}

    async def update(self, urn: str, old_inputs: Values, old: Values, new: Values, limits: Limits) -> Applied:
        """Wait again.

        :param old: the outputs in the state.
        """
        return await self._run(urn, new, str(old["key"]), limits)

    async def _run(self, urn: str, inputs: Values, key: str, limits: Limits) -> Applied:
        wanted = _inputs(strip(inputs))
        at = StreamId.parse(wanted.stream)
        try:
            done = await run_replay(
                self._connections,
                at,
                wanted.start,
                key=key,
                method=wanted.method,
                target=wanted.target,
                limits=limits,
                progress=lambda text: self._messages().status(text, urn),
            )
        except ReplayFailed as error:
            raise ReplayFailed(error.message, stream=at.name, fix=_FAILED_FIX) from None
        except (WaitCancelled, WaitTimeout) as error:
            return await self._look_back(at, key, inputs, error)
        return _applied(at, done, inputs)

    async def _look_back(self, at: StreamId, key: str, inputs: Values, error: WaitCancelled | WaitTimeout) -> Applied:
        """Return the run after an interrupted wait, to keep it in the state; raise the error if it has not started."""
        try:
            async with asyncio.timeout(LAST_LOOK):
                begun = await self._connections.replicator(at).get_replay(at.name, key)
        except (TimeoutError, ReplicatorError):
            raise error from None
        return replace(_applied(at, begun, inputs), trouble=(str(error),), cut_off=True)

    async def read(self, urn: str, id: str, old_inputs: Values, old: Values) -> Applied | None:
        """Return the record of the run. If the engine has forgotten it, the state's own record stays."""
        stream, _, key = id.rpartition("/")
        at = StreamId.parse(stream)
        try:
            found = await self._connections.replicator(at).get_replay(at.name, key)
        except (ReplayNotFound, StreamNotFound):
            return Applied(id, old_inputs, old) if old else None
        inputs = old_inputs or _declared(at, found)
        failed = (f"the replay failed: {found.error or 'the engine gives no reason'}",)
        return replace(_applied(at, found, inputs), trouble=failed if found.state is ReplayState.FAILED else ())

    async def delete(self, urn: str, id: str, state: Values, limits: Limits) -> None:
        """Do nothing: replayed data stays."""


def _inputs(values: Mapping[str, Any]) -> ReplayRunInputs:
    return read_inputs(ReplayRunInputs, values)


def _normal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return known values in the model's form, with defaults, so that an explicit default is not a change."""
    stand_in = {"stream": "?", "start": {"lsn": "?"}}
    form = _inputs({**stand_in, **values}).wire()
    return {key: value for key, value in form.items() if key in values or key not in stand_in}


def _sentences(plan: ReplayPlan) -> list[str]:
    where = plan.resolved.lsn or (plan.resolved.wall and plan.resolved.wall.isoformat()) or "its start"
    return [f"replay by {plan.method.value} from {where}: {effect}" for effect in plan.effects]


def _applied(at: StreamId, run: ReplayProgress, inputs: Values) -> Applied:
    names = ("key", "method", "state", "resolved", "events", "bytes", "startedAt", "finishedAt", "message")
    wire = run.wire()
    outputs = {**inputs, **{name: wire[name] for name in names if name in wire}}
    return Applied(f"{at}/{run.key}", inputs, outputs)


def _declared(at: StreamId, run: ReplayProgress) -> Values:
    """Return the inputs of an imported run."""
    wire = run.wire()
    return {"stream": str(at), **{key: wire[key] for key in ("start", "method", "target") if wire.get(key) is not None}}
