"""Pulumi output types for the models of status and replay.

Times are RFC 3339 in UTC. Unknown values are `None`.
"""

from __future__ import annotations

from typing import Any

import pulumi


@pulumi.output_type
class Checkpoint(dict[str, Any]):
    """A position: the source's own ordering token, and the time at the source that belongs to it."""

    lsn: str | None
    wall: str | None


@pulumi.output_type
class StreamStatus(dict[str, Any]):
    """The engine's report of a stream."""

    name: str
    state: str
    last_event: str | None = pulumi.property("lastEvent")
    last_checkpoint: Checkpoint | None = pulumi.property("lastCheckpoint")
    lag_seconds: float | None = pulumi.property("lagSeconds")
    lag_events: int | None = pulumi.property("lagEvents")
    bytes_replicated: int | None = pulumi.property("bytesReplicated")
    events_replicated: int | None = pulumi.property("eventsReplicated")
    errors_last_hour: int | None = pulumi.property("errorsLastHour")
    last_error: str | None = pulumi.property("lastError")
    uploaded_bytes: int | None = pulumi.property("uploadedBytes")
    upload_total_bytes: int | None = pulumi.property("uploadTotalBytes")


@pulumi.output_type
class Finding(dict[str, Any]):
    """A finding about a stream. `severity` is `error`, `warning` or `info`; `code` is stable."""

    severity: str
    code: str
    message: str
    property: str | None
    fix: str | None


@pulumi.output_type
class StreamReport(dict[str, Any]):
    """The status of a stream, and findings about it. Pulumi's output types inherit no fields."""

    name: str
    state: str
    last_event: str | None = pulumi.property("lastEvent")
    last_checkpoint: Checkpoint | None = pulumi.property("lastCheckpoint")
    lag_seconds: float | None = pulumi.property("lagSeconds")
    lag_events: int | None = pulumi.property("lagEvents")
    bytes_replicated: int | None = pulumi.property("bytesReplicated")
    events_replicated: int | None = pulumi.property("eventsReplicated")
    errors_last_hour: int | None = pulumi.property("errorsLastHour")
    last_error: str | None = pulumi.property("lastError")
    uploaded_bytes: int | None = pulumi.property("uploadedBytes")
    upload_total_bytes: int | None = pulumi.property("uploadTotalBytes")
    findings: list[Finding]


@pulumi.output_type
class ReplayResult(dict[str, Any]):
    """The plan of a replay in a preview (`state` is `planned`), otherwise its record."""

    stream: str
    key: str
    state: str
    method: str
    start: Checkpoint
    resolved: Checkpoint | None
    target: str | None
    events: int | None
    bytes: int | None
    effects: list[str] | None
    message: str | None
    error: str | None
