"""What the functions take and give. The schema is made from these."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from replicator.model import Checkpoint, Model, Text
from replicator.replicator import ReplayMethod, ReplayPlan, ReplayProgress


class GetStreamStatusArgs(Model):
    """Which stream to ask about.

    :param stream: the stream's id, `<backend>/<region or "default">/<name>`.
    """

    stream: Text


class PlanReplayArgs(Model):
    """A replay that is only planned.

    :param stream: the stream's id, `<backend>/<region or "default">/<name>`.
    :param start: the position or time to replay from.
    :param method: how to replay.
    :param target: where a copy goes; for the methods that write one.
    """

    stream: Text
    start: Checkpoint
    method: ReplayMethod = ReplayMethod.AUTO
    target: Text | None = None


class ReplayArgs(PlanReplayArgs):
    """A replay that is run once for its key.

    :param idempotency_key: names this replay. The same key never runs twice: it returns what the first run came to.
    """

    idempotency_key: Text


class ReplayOutcomeState(StrEnum):
    """What came of a replay; `planned` is the answer of a preview, which changes nothing."""

    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ReplayResult(Model):
    """The plan of a replay in a preview, its record otherwise; the same shape for both.

    :param stream: the stream's name.
    :param key: the idempotency key.
    :param method: the method that would run or ran.
    :param start: the position that was asked for.
    :param resolved: the position at which it really starts.
    :param target: where a copy goes.
    :param events: changes that are emitted, in the backend's unit.
    :param bytes: bytes that are read.
    :param effects: what would happen, in sentences, the most harmful first; in a preview.
    :param message: what the engine says about the run.
    :param error: why it failed, quoted from the engine and redacted.
    """

    stream: str
    key: str
    state: ReplayOutcomeState
    method: ReplayMethod
    start: Checkpoint
    resolved: Checkpoint | None = None
    target: str | None = None
    events: int | None = None
    bytes: int | None = None
    effects: tuple[str, ...] | None = None
    message: str | None = None
    error: str | None = None

    @classmethod
    def from_plan(cls, plan: ReplayPlan, key: str) -> Self:
        """What a replay with this key would do."""
        return cls(
            stream=plan.stream,
            key=key,
            state=ReplayOutcomeState.PLANNED,
            method=plan.method,
            start=plan.start,
            resolved=plan.resolved,
            target=plan.target,
            events=plan.events,
            bytes=plan.bytes,
            effects=plan.effects,
        )

    @classmethod
    def from_progress(cls, progress: ReplayProgress) -> Self:
        """What the engine's side has recorded of a replay."""
        return cls(
            stream=progress.stream,
            key=progress.key,
            state=ReplayOutcomeState(progress.state.value),
            method=progress.method,
            start=progress.start,
            resolved=progress.resolved,
            target=progress.target,
            events=progress.events,
            bytes=progress.bytes,
            message=progress.message,
            error=progress.error,
        )
