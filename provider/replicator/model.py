"""The words of the project as types: streams, endpoints, checkpoints and status. No I/O.

On every wire and in every record the names are camelCase (`checkpointInterval`), in Python snake_case. A value that the
engine cannot tell is `None`.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import durationpy
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

_UNITS = {
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}


# Checked before durationpy reads a text: durationpy takes anything between two parts, and has months of 30 days.
_DURATION = re.compile(r"[+-]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|[smhdw]))+)")


def parse_duration(text: str) -> timedelta:
    """Return the duration in a text such as `10s` or `1m30s`: numbers, each with a unit, and nothing between them.

    Units are those of Go, `d` (24 hours) and `w`. The result may be zero or negative. Raise ValueError.
    """
    try:
        if _DURATION.fullmatch(text):
            found: timedelta = durationpy.from_str(text)
            return found
    except durationpy.DurationError:
        pass  # it is longer than a timedelta can be
    raise ValueError('is not a duration; write one such as "10s" or "1m30s"')


def parse_duration_of_0_1(text: str) -> timedelta:
    """Return the duration that release 0.1 read in a text, such as 15 seconds in `10s - 5s`. Raise ValueError."""
    found: timedelta = durationpy.from_str(text)
    return found


def _read_duration(value: object) -> object:
    return value if isinstance(value, timedelta) else parse_duration(value if isinstance(value, str) else "")


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta():
        raise ValueError("must be longer than zero")
    return value


def format_duration(value: timedelta) -> str:
    """`90 seconds` as `1m30s`, to the microsecond."""
    left, text = value, ""
    for unit, size in _UNITS.items():
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def format_time(value: datetime) -> str:
    """An instant as RFC 3339 in UTC with milliseconds, as status and plans print it."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def slug(text: str, prefix: str, limit: int | None = None) -> str:
    """Return a text as part of a stream's name.

    :param prefix: what is put before one that does not begin with a letter.
    :param limit: characters, without the prefix.
    """
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].rstrip("-")
    return words if words[:1].isalpha() else f"{prefix}-{words}".rstrip("-")


def format_size(count: int) -> str:
    """A number of bytes: `1.4 MB`."""
    value, units = float(count), ["B", "kB", "MB", "GB"]
    while value >= 1000 and units[1:]:
        value /= 1000
        del units[0]
    return f"{value:.1f} {units[0]}" if units[0] != "B" else f"{count} B"


def format_upload(done: int | None, total: int) -> str:
    """Return the progress of an upload: `12.0 MB of 60.0 MB`."""
    return f"uploading {format_size(total)}" if done is None else f"{format_size(done)} of {format_size(total)}"


def _written_out(value: object) -> object:
    """A bare number is refused: `20260131` would be read as seconds since 1970."""
    if not isinstance(value, datetime) and not (isinstance(value, str) and ":" in value):
        raise ValueError('needs a date, a time and a time zone, as in "2026-01-31T12:00:00Z"')
    return value


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError('needs a time zone, as in "2026-01-31T12:00:00Z"')
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is before the year 1 or after the year 9999 in UTC") from None
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)  # what the wire carries


Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration, json_schema_input_type=str),
    AfterValidator(_positive),
    PlainSerializer(format_duration, return_type=str),
]
Instant = Annotated[
    datetime,
    BeforeValidator(_written_out, json_schema_input_type=str),
    AfterValidator(_aware),
    PlainSerializer(format_time, return_type=str),
]
Flag = Annotated[bool, Strict()]
NAME_LIMIT = 48
"""Characters of a stream's name."""
STREAM_NAME = rf"^[a-z][a-z0-9-]{{0,{NAME_LIMIT - 1}}}$"
StreamName = Annotated[str, StringConstraints(pattern=STREAM_NAME)]
BOOKMARK_NAME = r"^[a-z][a-z0-9-]{0,23}$"
BookmarkName = Annotated[str, StringConstraints(pattern=BOOKMARK_NAME)]
TEXT_LIMIT = 2000
"""Characters of an input that is a text."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_LIMIT)]
LSN_LIMIT = 65_536
"""Characters. A mirror's position has an offset for each partition of each topic."""
Lsn = Annotated[str, StringConstraints(min_length=1, max_length=LSN_LIMIT)]
REGION = r"^[a-z0-9][a-z0-9-]{0,31}$"


class Model(BaseModel):
    """Frozen, strict about unknown fields, camelCase on the wire."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,
    )

    def wire(self) -> dict[str, Any]:
        """The model as plain JSON values with camelCase names; unset optional fields are left out."""
        return self.model_dump(mode="json", exclude_none=True)


End = Literal["source", "destination"]
"""An end of a stream."""


class EndpointKind(StrEnum):
    """The kind of an endpoint of a stream.

    :param postgres: a PostgreSQL database.
    :param sqlite: an SQLite file on an agent's host, `sqlite:///absolute/path`.
    :param base: the folder of a Base server on an agent's host, `base:///absolute/path`.
    :param s3: a prefix in S3 or in a store that speaks it, `s3://bucket/prefix?region=…`; or a folder, `file:///absolute/path`.
    :param nats: a NATS server.
    :param kafka: a Kafka cluster.
    """

    POSTGRES = "postgres"
    SQLITE = "sqlite"
    BASE = "base"
    S3 = "s3"
    NATS = "nats"
    KAFKA = "kafka"


SCHEMES: dict[EndpointKind, tuple[str, ...]] = {
    EndpointKind.POSTGRES: ("postgres", "postgresql"),
    EndpointKind.SQLITE: ("sqlite",),
    EndpointKind.BASE: ("base",),
    EndpointKind.S3: ("s3", "file"),
    EndpointKind.NATS: ("nats", "tls"),
    EndpointKind.KAFKA: ("kafka",),
}


class Mode(StrEnum):
    """The data to move: the changes, a snapshot, or a snapshot and then the changes.

    :param cdc: the changes, without a copy before them.
    :param snapshot: one copy, and no more.
    :param snapshot_then_cdc: a copy, and then every change.
    """

    CDC = "cdc"
    SNAPSHOT = "snapshot"
    SNAPSHOT_THEN_CDC = "snapshot_then_cdc"


class Conflict(StrEnum):
    """The side that wins if both hold a version of the same record.

    :param last_writer_wins: the version that was written later.
    :param source_wins: that of the source.
    :param dest_wins: that of the destination.
    :param manual_review: neither; a person decides.
    """

    LAST_WRITER_WINS = "last_writer_wins"
    SOURCE_WINS = "source_wins"
    DEST_WINS = "dest_wins"
    MANUAL_REVIEW = "manual_review"


class DesiredState(StrEnum):
    """The desired state of the stream.

    :param running: it moves data.
    :param paused: it stands still and keeps its checkpoint.
    """

    RUNNING = "running"
    PAUSED = "paused"


class WaitFor(StrEnum):
    """The condition that a create or update waits for.

    :param none: nothing but that the engine has taken the change.
    :param running: that the stream moves data.
    :param caught_up: that all that was committed at the source when the wait began is at the destination.
    """

    NONE = "none"
    RUNNING = "running"
    CAUGHT_UP = "caught_up"


class Drain(StrEnum):
    """The handling of changes that are not at the destination yet when the stream is deleted.

    :param flush: it uploads them, and fails where that fails.
    :param wait: it waits until everything that was committed when it began is at the destination.
    :param skip: it leaves them out.
    """

    FLUSH = "flush"
    WAIT = "wait"
    SKIP = "skip"


class OnDelete(StrEnum):
    """What a delete of the stream leaves at its source.

    :param remove: nothing.
    :param keepBookmark: the position that it has reached, from which a later stream of the same name can continue. The
        source keeps every change from there on until that stream takes the bookmark, or the bookmark is dropped.
    """

    REMOVE = "remove"
    KEEP_BOOKMARK = "keepBookmark"


class StreamState(StrEnum):
    """The state of a stream, taken from its worst part.

    :param running: it moves data.
    :param paused: it stands still, because it was asked to.
    :param failed: it cannot continue; `lastError` says why.
    :param catching_up: it moves data, and is behind.
    :param snapshot: it makes a copy.
    """

    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"
    CATCHING_UP = "catching_up"
    SNAPSHOT = "snapshot"


_SECRET_QUERY = re.compile(
    r"(?i)[?&][^=&#]*(pass(word|wd|phrase)|pwd|secret|token|(access|api|private)[-_]?key|credential|signature)[^=&#]*="
)


_SHAPES = {
    "sqlite": r"sqlite:///[^?#]+$",
    "s3": r"s3://[^/?#]+/[^/?#]",
    "file": r"file:///[^/?#]",
    "base": r"base:///.",
}
URI_EXAMPLES = {
    "sqlite": "sqlite:///var/lib/app/app.db (an absolute path)",
    "s3": "s3://bucket/prefix?region=eu-central-1 (a prefix of its own in the bucket)",
    "file": "file:///var/backups/app (an absolute path)",
    "base": "base:///var/lib/base (an absolute path)",
}


class Endpoint(Model):
    """One end of a stream.

    :param kind: what it is.
    :param uri: where it is. It never holds a password; `authRef` names the secret.
    :param region: a word for the place (`us-east`); it chooses the agent or cluster that manages the stream. Another
        region of the source replaces the stream; for `kafka-mirror`, another one of the destination.
    :param auth_ref: a reference to the secret that the engine uses (`env://NAME_*`, `file:///path`, `dir:///path`).
    :param admin_auth_ref: a reference to another role, for objects that we make.
    """

    kind: EndpointKind
    uri: Text
    region: Annotated[str, StringConstraints(pattern=REGION)] | None = None
    auth_ref: Text | None = None
    admin_auth_ref: Text | None = None

    @model_validator(mode="after")
    def _check_uri(self) -> Self:
        scheme, separator, _ = self.uri.partition("://")
        allowed = SCHEMES[self.kind]
        if not separator or scheme not in allowed:
            if self.kind is EndpointKind.S3 and scheme in ("http", "https"):
                raise ValueError(
                    f"uri: is a web address; write {URI_EXAMPLES['s3']}, with another store's as endpoint="
                )
            expected = " or ".join(f"{word}://…" for word in allowed)
            raise ValueError(f"uri: an endpoint of kind {self.kind} has a uri such as {expected}")
        try:
            parts = urlsplit(self.uri)
            password = parts.password
        except ValueError as error:
            raise ValueError("uri: cannot be read as a URI") from error
        if password is not None or _SECRET_QUERY.search(self.uri):
            raise ValueError("uri: holds a secret, which would stand in the state; name it with authRef instead")
        if any(ord(char) < 32 for char in self.uri):
            raise ValueError("uri: holds a control character")
        if (shape := _SHAPES.get(scheme)) and not re.match(shape, self.uri):
            names_no_prefix = scheme == "s3" and bool(parts.netloc) and not parts.path.strip("/")
            problem = "names a bucket and no prefix; write" if names_no_prefix else "must look like"
            raise ValueError(f"uri: {problem} {URI_EXAMPLES[scheme]}")
        return self


class Checkpoint(Model):
    """A position in a stream.

    :param lsn: the source's own ordering token, as the backend writes it (its documentation page says how).
    :param wall: the time at the source that belongs to it.
    """

    lsn: Lsn | None = None
    wall: Instant | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if self.lsn is None and self.wall is None:
            raise ValueError("needs lsn or wall")
        return self


StartFrom = Literal["earliest", "latest"] | Checkpoint


_DIGEST = "sha256:"


def token_digest(token: str) -> str:
    """Return the digest of an owner's token, as records hold it. A digest is returned as it is."""
    return token if token.startswith(_DIGEST) else _DIGEST + hashlib.sha256(token.encode()).hexdigest()


class Owner(Model):
    """The resource that manages a stream. `backends.ownership` holds the rules.

    The token decides, because a URN changes when a stack or a resource is renamed. A state keeps the token. A record
    keeps its digest, so that who reads a record cannot act as the owner. Records of release 0.1 hold the token.

    :param urn: the resource's URN.
    :param token: from a caller, the proof that its state holds: the token, or after an import the digest that the
        record had. In a record, the digest of the token.
    :param issue: the token that the record is to hold from now on. Not recorded.
    :param claim: the caller's state holds the stream's id, so it may claim a record that names no owner. Not recorded.
    :param manager: the identity of what managed the stream when the state was written (`Replicator.identity`). Not
        recorded.
    """

    urn: str
    token: str | None = None
    issue: str | None = Field(default=None, exclude_if=lambda value: value is None)
    claim: bool = Field(default=False, exclude_if=lambda value: not value)
    manager: str | None = Field(default=None, exclude_if=lambda value: value is None)

    def owns(self, record: Owner) -> bool:
        """Return whether this caller holds the token of the owner in the record."""
        mine = {token_digest(token) for token in (self.token, self.issue) if token is not None}
        return record.token is not None and token_digest(record.token) in mine


def _no_duplicates(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


Patterns = Annotated[tuple[Text, ...], AfterValidator(_no_duplicates)]
Bookmarks = Annotated[tuple[BookmarkName, ...], AfterValidator(_no_duplicates)]


class Stream(Model):
    """A replication stream from a source to a destination.

    :param name: its name at the engine; left out, one is made from project, stack and resource, or as
        `pulumi:autonaming` says. A change replaces it.
    :param source: where the data comes from.
    :param destination: where it goes. One stream writes there, and nothing else.
    :param backend: the engine's backend; left out, the only one that fits. A change replaces the stream.
    :param mode: the changes, a copy, or a copy and then the changes.
    :param include: what is replicated (tables, topics, files); globs in which `*` does not cross `.` or `/`.
    :param exclude: what is left out of that.
    :param filter: which records pass: an SQL predicate or a JSONPath, as the backend says.
    :param conflict: which side wins where both hold a version of a record.
    :param checkpoint_interval: time between checkpoints, such as `"10s"`; left out, the engine's own.
    :param desired_state: whether it should move data. A pause by another user shows as a change of this.
    :param start_from: where a new stream begins.
    :param wait_for: what a create or update waits for.
    :param deletion_protection: refuse to delete it.
    :param purge_destination: a delete also deletes what it wrote to the destination.
    :param drain_before_delete: what a delete does with changes that are not at the destination yet; `skip` is for a
        destination that is gone. The delete goes by what the last update recorded.
    :param bookmarks: names of positions from which a replay can start. A name that you add marks the position of that
        update, and the source keeps every change from there on. One that you remove is dropped.
    :param on_delete: what a delete leaves at the source. The delete goes by what the last update recorded.
    :param options: the engine's own settings, for what has no property here. Text that spells a value is that value.
    """

    name: StreamName
    source: Endpoint
    destination: Endpoint
    backend: str | None = None
    mode: Mode = Mode.SNAPSHOT_THEN_CDC
    include: Patterns = ()
    exclude: Patterns = ()
    filter: Text | None = None
    conflict: Conflict = Conflict.SOURCE_WINS
    checkpoint_interval: Duration | None = None
    desired_state: DesiredState = DesiredState.RUNNING
    start_from: StartFrom | None = None
    wait_for: WaitFor = WaitFor.NONE
    deletion_protection: Flag = False
    purge_destination: Flag = False
    drain_before_delete: Drain = Field(default=Drain.FLUSH, exclude_if=lambda value: value is Drain.FLUSH)
    bookmarks: Bookmarks = Field(default=(), exclude_if=lambda value: not value)
    on_delete: OnDelete = Field(default=OnDelete.REMOVE, exclude_if=lambda value: value is OnDelete.REMOVE)
    options: dict[str, Any] = Field(default_factory=dict)
    owner: Owner | None = None

    def recorded(self) -> Stream:
        """Return the stream as a record holds it: without what only the program needs, and with the token's digest."""
        return self.sealed().model_copy(update=OF_THE_PROGRAM)

    def sealed(self) -> Stream:
        """Return the stream with the digest in the place of the owner's token."""
        owner = self.owner and Owner(urn=self.owner.urn, token=self.owner.token and token_digest(self.owner.token))
        return self.model_copy(update={"owner": owner})


OF_THE_PROGRAM = {name: Stream.model_fields[name].default for name in ("wait_for", "deletion_protection")}
"""Properties that no engine acts on, with their defaults."""


class StreamStatus(Model):
    """The status of a stream as the engine reports it. Every number that it cannot report is `None`.

    :param last_event: time of the last change that was seen at the source.
    :param last_checkpoint: the position up to which everything is at the destination.
    :param lag_seconds: age of the oldest change that is not at the destination yet, in seconds.
    :param lag_events: changes that are not at the destination yet; the unit is the backend's.
    :param bytes_replicated: bytes written to the destination.
    :param events_replicated: changes written to the destination; the unit is the backend's.
    :param errors_last_hour: failures seen within the last 3,600 seconds.
    :param last_error: the newest failure, or what the stream waits for; quoted from the engine and redacted.
    :param uploaded_bytes: bytes at the destination of the file that is uploaded now, where it is large enough to be
        uploaded in parts.
    :param upload_total_bytes: the size of that file in bytes.
    """

    name: str
    state: StreamState
    last_event: Instant | None = None
    last_checkpoint: Checkpoint | None = None
    lag_seconds: float | None = None
    lag_events: int | None = None
    bytes_replicated: int | None = None
    events_replicated: int | None = None
    errors_last_hour: int | None = None
    last_error: str | None = None
    uploaded_bytes: int | None = Field(default=None, exclude_if=lambda value: value is None)
    upload_total_bytes: int | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def upload(self) -> str:
        """Return the progress of the current upload, for a person: `12.0 MB of 60.0 MB`; empty where none is seen."""
        if self.upload_total_bytes is None:
            return ""
        return format_upload(self.uploaded_bytes, self.upload_total_bytes)
