"""Arguments and results of the functions. The schema is generated from them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import Field

from replicator.model import (
    Checkpoint,
    Endpoint,
    EndpointKind,
    Flag,
    Instant,
    Mode,
    Model,
    StreamState,
    StreamStatus,
    Text,
)
from replicator.replicator import Finding, ReplayMethod, ReplayPlan, ReplayProgress, ReplayState


class GetStreamStatusArgs(Model):
    """The stream to query.

    :param stream: the stream's id, `<backend>/<region or "default">/<name>`.
    :param required: fail if the engine does not answer. Left out, the report then has `failure` and no other value, and
        the program continues with a warning.
    """

    stream: Text
    required: Flag = False


class GetStreamStatusesArgs(Model):
    """The streams to query.

    :param streams: ids of streams, each `<backend>/<region or "default">/<name>`.
    """

    streams: tuple[Text, ...]


class StatusFailure(Model):
    """A stream whose status could not be had.

    :param stream: its id.
    :param code: the stable code of the error: `RPL-STREAM-NOTFOUND` where the engine answered that it is not there.
    :param message: what went wrong.
    """

    stream: str
    code: str
    message: str

    @classmethod
    def of(cls, id: str, finding: Finding) -> Self:
        """Return the failure of a stream with this finding."""
        return cls(stream=id, code=finding.code, message=finding.message)


class StreamReport(StreamStatus):
    """The status of a stream, and what else is worth knowing of it.

    :param state: left out if the engine does not answer.
    :param findings: such as consumer groups whose offsets are not synced; each with a severity and a stable code.
    :param failure: why the status could not be had.
    """

    state: StreamState | None = None  # type: ignore[assignment]
    findings: tuple[Finding, ...]
    failure: StatusFailure | None = Field(default=None, exclude_if=lambda value: value is None)


class StreamStatuses(Model):
    """Status reports of several streams. One that cannot be asked about does not hide the others.

    :param statuses: the status by id.
    :param failures: the others, in the order asked for.
    :param findings: what else is worth knowing, by id; streams without a finding are left out.
    """

    statuses: dict[str, StreamStatus]
    failures: tuple[StatusFailure, ...]
    findings: dict[str, tuple[Finding, ...]]


class ListStreamsArgs(Model):
    """The streams to list.

    :param backend: one backend; left out: each that the provider's configuration has a block for.
    :param region: only streams that are managed in this region, or `default` for those without one.
    """

    backend: Text | None = None
    region: Text | None = None


class ImportEntry(Model):
    """One entry of the file that `pulumi import --file` takes.

    :param type: the type's token.
    :param name: a name for the resource in the program: the stream's own.
    :param id: the id to import.
    """

    type: str = "replicator:index:Stream"
    name: str
    id: str


class ListedStream(Model):
    """One stream as its engine holds it.

    :param id: its resource id.
    :param name: its name at the engine.
    :param backend: what manages it.
    :param source: where it reads.
    :param destination: where it writes.
    :param state: that of the engine's objects; what runs may be catching up, which `get_stream_status` tells.
    :param owner: the URN of the resource that manages it; `None` where none does.
    :param import_entry: what imports it into a program.
    """

    id: str
    name: str
    backend: str
    source: Endpoint
    destination: Endpoint
    mode: Mode
    state: StreamState
    owner: str | None = None
    import_entry: ImportEntry


class ListedStreams(Model):
    """All streams of the engines that were asked.

    :param streams: by id.
    :param failures: the streams whose record cannot be read.
    """

    streams: tuple[ListedStream, ...]
    failures: tuple[StatusFailure, ...]


class GetCapabilitiesArgs(Model):
    """The backend to describe.

    :param backend: one backend; left out: all of this release.
    """

    backend: Text | None = None


class EndpointPair(Model):
    """A kind of source and a kind of destination."""

    source: EndpointKind
    destination: EndpointKind


class Capability(Model):
    """Support for one value of a property of a stream or a replay.

    :param property: the property that asks for it; `method` is that of a replay.
    :param value: the value of the property; `None` for any.
    :param supported: whether the backend can do it; if not, it is refused in preview.
    :param note: what to know about it, or why it is not there and what would work.
    """

    property: str
    value: str | None = None
    supported: bool
    note: str | None = None


class ChangeConsequence(Model):
    """The effect that changing one property in place has on the data.

    :param property: the property's path.
    :param verdict: `safe`, `restarts`, `re-snapshots`, `loses position` or `deletes data`.
    :param text: what the preview says of it; `None` for a change that is safe.
    """

    property: str
    verdict: str
    text: str | None = None


class BackendCapabilities(Model):
    """The capabilities of one backend between some kinds of endpoints.

    :param backend: its name.
    :param capabilities: what a stream and a replay may ask for.
    :param changes: what changing a property in place does.
    :param pairs: what it moves from and to.
    :param automatic: whether it is chosen where a stream names no backend.
    :param default_interval: the checkpoint interval where a stream names none.
    :param lag_unit: what one of `lagEvents` is.
    :param pause_cost: what a pause costs while it lasts.
    :param removal: what a delete leaves at the destination.
    :param options: the keys that `options` may hold; `None` for any.
    """

    backend: str
    pairs: tuple[EndpointPair, ...]
    automatic: bool
    capabilities: tuple[Capability, ...]
    changes: tuple[ChangeConsequence, ...]
    default_interval: str
    lag_unit: str
    pause_cost: str
    removal: str
    options: tuple[str, ...] | None = None


class AllCapabilities(Model):
    """The capabilities of each backend of this release.

    :param backends: one entry a backend; more where it can do other things between other kinds of endpoints.
    """

    backends: tuple[BackendCapabilities, ...]


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


class ReplayRunInputs(PlanReplayArgs):
    """A replay as a resource: a review sees it, and `pulumi up` runs it once.

    :param triggers: any values; when one of them changes, the replay runs again.
    """

    triggers: tuple[Any, ...] = Field(default=())


class ReplayRunOutputs(ReplayRunInputs):
    """The outputs of a replay that ran.

    :param key: the idempotency key, made from the resource's URN and its inputs.
    :param state: where it stood at the last update or refresh.
    :param resolved: the position at which it really started.
    :param events: changes that were emitted, in the backend's unit.
    :param bytes: bytes that were read.
    :param started_at: when the engine began.
    :param finished_at: when it finished.
    :param message: what the engine says about the run.
    """

    key: str
    state: ReplayState
    resolved: Checkpoint | None = None
    events: int | None = None
    bytes: int | None = None
    started_at: Instant
    finished_at: Instant | None = None
    message: str | None = None


class ReplayOutcomeState(StrEnum):
    """The outcome of a replay.

    :param planned: a preview: nothing was done.
    :param running: it has begun, and continues at the engine.
    :param done: it finished.
    :param failed: it did not finish; `error` says why.
    """

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
        """Return the result of a plan, with the key of its replay."""
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
        """Return the result of a replay that the engine's side has recorded."""
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
