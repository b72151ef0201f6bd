"""The interface of every backend: small, async, and the same in process and over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol

from pydantic import Field

from replicator.errors import BY_CODE, InvalidStream, ReplicatorError
from replicator.model import Checkpoint, Endpoint, Instant, Model, Owner, Stream, StreamState, StreamStatus, Text


class Severity(StrEnum):
    """The severity of a finding.

    :param error: a change would fail.
    :param warning: it asks for attention.
    :param info: it is good to know.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Finding(Model):
    """A finding of a check of the live source and destination, before a change or with a status.

    :param severity: how much it matters.
    :param code: stable, for programs.
    :param message: what was found.
    :param property: the input that it is about.
    :param fix: what to do next.
    """

    severity: Severity
    code: str
    message: str
    property: str | None = None
    fix: str | None = None

    @classmethod
    def of(cls, error: ReplicatorError, severity: Severity) -> Finding:
        """Return the finding that a change would fail with this error."""
        return cls(severity=severity, code=error.code, message=error.message, property=error.property, fix=error.fix)

    def error(self, stream: str) -> ReplicatorError:
        """Return the error with which the change would fail."""
        found = BY_CODE.get(self.code, InvalidStream)
        return found(self.message, stream=stream, property=self.property, fix=self.fix)


class ReplayMethod(StrEnum):
    """The method of a replay.

    :param auto: the least harmful method that is exact; the plan names it.
    :param copy: the data as of the start is written to `target`.
    :param reseed: a whole copy under another prefix of the destination, and the changes after it.
    :param log_rewind: the changes since the start are read from the source and emitted once more.
    :param sink_rewind: the destination reads again from the start.
    :param resnapshot: a new snapshot into the destination as it is.
    """

    AUTO = "auto"
    COPY = "copy"
    RESEED = "reseed"
    LOG_REWIND = "log_rewind"
    SINK_REWIND = "sink_rewind"
    RESNAPSHOT = "resnapshot"


class ReplayPlan(Model):
    """The effect of a replay, resolved against what is retained now.

    :param method: the method that would run; never auto.
    :param start: the position that was asked for.
    :param resolved: the position at which it would really start.
    :param target: where a copy goes; `None` for other methods.
    :param events: changes that would be emitted, in the backend's unit.
    :param bytes: bytes that would be read.
    :param duplicates: whether the destination would get records again that it holds already.
    :param earliest: the earliest position that is retained.
    :param latest: the newest position that is retained.
    :param effects: what would happen, in sentences, the most harmful first.
    """

    stream: str
    method: ReplayMethod
    start: Checkpoint
    resolved: Checkpoint
    target: str | None = None
    events: int | None = None
    bytes: int | None = None
    duplicates: bool = False
    earliest: Checkpoint | None = None
    latest: Checkpoint | None = None
    effects: tuple[str, ...] = ()


class ReplayState(StrEnum):
    """The state of a replay.

    :param running: it has begun.
    :param done: it finished.
    :param failed: it did not finish.
    """

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ReplayProgress(Model):
    """The engine side's record of one replay, kept under its idempotency key.

    :param error: why it failed; while it is running, why it does not continue by itself.
    """

    key: str
    stream: str
    state: ReplayState
    method: ReplayMethod
    start: Checkpoint
    resolved: Checkpoint | None = None
    target: str | None = None
    events: int | None = None
    bytes: int | None = None
    started_at: Instant
    finished_at: Instant | None = None
    error: str | None = None
    message: str | None = None


class Description(Model):
    """One stream as the engine's side holds it: the declaration, its status, and the objects that were made for it.

    :param declaration: the stream as the record has it; `None` where the record cannot be read: the status is failed,
        and the first finding says why.
    :param findings: what else is worth knowing, such as a record that cannot be read.
    :param source_end: where the source ends, by part of it such as a partition; empty where the backend counts events
        instead (`events_replicated`), or cannot see the source.
    :param reached: up to where each of these parts is at the destination.
    """

    declaration: Stream | None = Field(alias="stream")
    status: StreamStatus
    engine_objects: dict[str, Any] = Field(default_factory=dict)
    source_end: dict[str, int] = Field(default_factory=dict)
    reached: dict[str, int] = Field(default_factory=dict)
    findings: tuple[Finding, ...] = Field(default=(), exclude_if=lambda value: not value)

    @property
    def name(self) -> str:
        """Return the stream's name."""
        return self.status.name

    @classmethod
    def unreadable(cls, name: str, error: ReplicatorError) -> Description:
        """Return the description of a stream whose record cannot be read."""
        status = StreamStatus(name=name, state=StreamState.FAILED, last_error=error.message)
        return cls(stream=None, status=status, findings=(Finding.of(error, Severity.ERROR),))

    @property
    def stream(self) -> Stream:
        """Return the declaration; raise `RecordUnreadable` if the record cannot be read."""
        if self.declaration is None:
            raise self.findings[0].error(self.name)
        return self.declaration


class Adoption(Model):
    """What is taken over from another manager of the same engine.

    :param known: the stream is here already, so there is nothing to take over.
    :param objects: how many objects the destination holds; `None` where the backend cannot tell.
    :param newest: the newest position there; `None` where there is none.
    """

    known: bool
    objects: int | None = None
    newest: Checkpoint | None = None


class Takeover(Model):
    """A destination that another agent wrote to, and what a takeover begins there.

    :param former: the id of the agent that claims it; `None` where none does.
    :param ours: the agent that answers claims it already, without a stream.
    :param host: the host of the former agent, as its claim says; so are `stream`, `owner` and `claimed_at`.
    :param own_stream: the stream of the agent that answers, if it wrote there before and lost the destination.
    :param newest: the newest position that is there; `None` where nothing is.
    :param next_prefix: where the next stream writes. What is there stays, and can be restored.
    :param same: whether the given database has the content of the newest position; `None` if none was given.
    """

    former: str | None = None
    ours: bool = False
    host: str | None = None
    stream: str | None = None
    owner: str | None = None
    claimed_at: Instant | None = None
    own_stream: str | None = None
    newest: Checkpoint | None = None
    next_prefix: str
    same: bool | None = None


class Unmanaged(Model):
    """What runs at an engine, could be a stream of the backend, and is none.

    :param name: its name at the engine.
    :param what: its kind in the engine's own words, such as `PostgresConnector`.
    :param state: the state that the engine reports, in its own words.
    """

    name: str
    what: str
    state: str


LOG_LINES = 1000
"""The most lines of one answer of `log`."""

LOG_BYTES = 256 * 1024
"""The most bytes of UTF-8 in the lines of one answer of `log`."""


class LogLines(Model):
    """A part of the engine's log of one stream, redacted.

    :param lines: as they are in the engine's log, oldest first; at most `LOG_LINES` lines and `LOG_BYTES` bytes.
    :param cursor: where the part ends, for the next call. Only the backend can read it.
    :param gap: why lines between the given cursor and the first line may be missing; `None` if none are.
    :param note: what else to know about the log, such as why the stream has no process; `None` if nothing.
    """

    lines: tuple[str, ...]
    cursor: Text
    gap: str | None = None
    note: str | None = None


class EndHints(Model):
    """What the engine's configuration cannot tell of one end of a stream; each overrides what it tells.

    :param uri: as in `Endpoint`.
    :param region: as in `Endpoint`.
    :param auth_ref: the login of the provider's own connections. What runs at the engine keeps its login.
    :param admin_auth_ref: as in `Endpoint`.
    """

    uri: str | None = None
    region: str | None = None
    auth_ref: str | None = None
    admin_auth_ref: str | None = None


class Proposal(Model):
    """A stream that would stand for something that runs at an engine, for `adopt_stream`.

    :param stream: the declaration.
    :param kept: the names of settings that the declaration does not say, and that stay as they are.
    :param findings: what the declaration does not say of it.
    :param effects: what the adoption does, and what the stream does later, as clauses.
    """

    stream: Stream
    kept: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    effects: tuple[str, ...] = ()


class Replicator(Protocol):
    """One backend. Methods raise the errors of `replicator.errors`; a missing stream is `StreamNotFound`.

    If `owner` is given, it must be the owner in the engine's record. The check and the effect are atomic.
    """

    kind: str

    async def upsert_stream(self, stream: Stream) -> None:
        """Create or change a stream. Idempotent; a partially created stream is finished."""

    async def adopt_stream(self, stream: Stream, *, dry_run: bool = False) -> Adoption:
        """Create a stream from what another manager of the engine left; its data at the destination stays in use.

        Only this method may write to a place that holds data without a record. No resource owns the stream: an import
        claims it. With `dry_run`, change nothing, and raise what would be raised, except if the other manager still
        runs. Idempotent.
        """

    async def look_at_destination(self, destination: Endpoint, database: Endpoint | None = None) -> Takeover:
        """Return what `take_over` would replace and begin. Changes nothing.

        :param database: is compared with the newest point at the destination; that restores a copy, and removes it.
        :raises Unsupported: nothing claims destinations of this backend.
        """

    async def take_over(self, destination: Endpoint, former: str | None) -> None:
        """Take a destination over from an agent that is gone, for the next stream that its owner declares there.

        The claim is replaced atomically, and only if it is still that of `former`. Idempotent.

        :raises DestinationInUse: the claim has changed, or a stream of this agent has the destination.
        :raises Unsupported: nothing claims destinations of this backend.
        """

    async def unmanaged(self) -> list[Unmanaged]:
        """Return what runs at the engine without being a stream, and may be adopted, by name; from one listing."""

    async def propose(self, name: str, source: EndHints, destination: EndHints) -> Proposal:
        """Return the stream for something that runs at the engine under a name, as it runs. Changes nothing.

        :raises StreamNotFound: nothing has the name.
        :raises Unsupported: no stream can stand for it, or the backend has nothing that could be adopted by name.
        """

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        """Remove the stream and its replication state. Removing a missing stream succeeds.

        Return False if the owner's token is stale: the stream has another owner now, and is unchanged.
        """

    async def list_streams(self) -> list[Stream]:
        """Return every stream with a record on the engine's side."""

    async def get_status(self, name: str) -> StreamStatus:
        """Return the status of one stream, measured now."""

    async def log(self, name: str, *, after: str | None = None, lines: int = 100) -> LogLines:
        """Return the last lines of the engine's log about a stream, and no line about another stream.

        :param after: the cursor of an earlier answer. Return the first lines after it then. If the log was begun anew
            since, return the first lines that there are.
        :param lines: how many lines at most, 0 to `LOG_LINES`.
        :raises Unsupported: the engine tells no log.
        """

    async def pause(self, name: str) -> None:
        """Stop moving data and keep the checkpoint. Idempotent."""

    async def resume(self, name: str) -> None:
        """Resume from the checkpoint without loss, or refuse. Idempotent."""

    async def replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        key: str,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayProgress:
        """Start a replay, or return the record of the one with this key. It never runs twice for one key."""

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        """Return the record of a replay; raise `ReplayNotFound` if it does not exist."""

    async def list_replays(self, name: str) -> list[ReplayProgress]:
        """Return the records of a stream's replays that are kept, the newest first."""

    async def plan_replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayPlan:
        """Return the effects of `replay`. Changes nothing; raises what `replay` would raise."""

    async def preflight(self, stream: Stream) -> list[Finding]:
        """Check the live source and destination. Changes nothing."""

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        """Return descriptions of the named streams (default: all) from one listing, without those that do not exist."""

    async def overview(self) -> list[Description]:
        """Return every stream from the engine's own listing alone: values that need a request per stream are `None`.

        The state is that of the engine's objects. A running stream may be catching up, or have lost records.
        """

    async def identity(self) -> str | None:
        """Return what distinguishes this engine from another one at the same address; `None` if nothing does."""

    async def aclose(self) -> None:
        """Close connections. The streams keep running."""
