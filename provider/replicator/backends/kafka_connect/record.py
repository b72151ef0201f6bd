"""The record of a stream, stored in its connector's configuration. Connect accepts keys that no connector knows.

`replicator.stream` has the form of release 0.1, so that release still reads it. `replicator.record` names the version
and the backend, and holds what that release does not know; without it, the record is of release 0.1. Such a record is
rewritten only with another change of the connector's configuration, because each change restarts the tasks.

Connect resolves every `${…}` with its config providers, so `$` is written as its JSON escape.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError

from replicator.backends.kafka.positions import Offsets, read
from replicator.errors import RecordUnreadable, ReplayRefused
from replicator.model import OF_THE_PROGRAM, Checkpoint, Model, Stream
from replicator.replicator import ReplayProgress, ReplayState

KEY = "replicator.stream"
HEADER = "replicator.record"
RECORD_KEYS = frozenset({KEY, HEADER})
VERSION = 2
_SINCE_2 = ("drainBeforeDelete", "bookmarks", "onDelete")  # properties of a stream that release 0.1 refuses to read
PART_OF = "replicator.part-of"
"""Key in a stream's auxiliary connectors: the name of the stream."""

KEPT_REPLAYS = 20
CONFIG_LIMIT = 512 * 1024
"""Maximum bytes of a connector's configuration, as Connect writes it. Its producer accepts 1 MiB, and a task's
configuration is one record too, which also names each partition."""
UNFINISHED = "its creation is incomplete: the start position is not set; run pulumi up to finish it"
_LONG_START = 256  # maximum characters of a start that is kept in full


class ReplayRecord(Model):
    """A replay.

    :param start: the next offsets that it sets, as a checkpoint's text.
    :param until: the next offsets at the time of the request, as a checkpoint's text; past them, it is done.
    :param applied: the engine's offsets have been set back.
    """

    progress: ReplayProgress
    start: str
    until: str
    applied: bool = False

    def outlined(self) -> ReplayRecord:
        """Return an ended replay without its details for each partition."""
        start = self.progress.start
        if start.lsn is not None and len(start.lsn) > _LONG_START:
            start = start.model_copy(update={"lsn": _digest(start.lsn)})
        progress = self.progress.model_copy(update={"start": start, "resolved": None})
        return self.model_copy(update={"progress": progress, "start": "", "until": ""})

    def began_at(self, start: Checkpoint) -> bool:
        """Tell whether it was requested with this start."""
        known = self.progress.start
        if start.lsn is not None and known.lsn == _digest(start.lsn):
            start = start.model_copy(update={"lsn": known.lsn})
        return known == start


class Header(Model):
    """The writer of a record, and what release 0.1 does not know.

    :param stream: the properties of the stream that release 0.1 does not know.
    :param starts: as `StreamRecord.starts`.
    """

    model_config = ConfigDict(extra="ignore")

    version: int
    backend: str
    stream: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda value: not value)
    starts: str | None = Field(default=None, exclude_if=lambda value: value is None)


class StreamRecord(Model):
    """A stream as the engine's side has recorded it.

    :param stream: the declaration with its owner, without secrets.
    :param source_cluster: id of the cluster that its offsets belong to; `None` if unknown.
    :param destination_cluster: id of the cluster that it writes to; `None` if unknown.
    :param topics_cluster: id of the Kafka cluster that has its topics, if the destination is no Kafka cluster.
    :param side: the end on whose cluster the workers are, as detected or declared, whatever its connectors are now.
    :param topics: topic ids of the source when it was created or last changed: another id is another topic.
    :param creating: its start position is not set yet.
    :param replays: replays by key, the oldest first.
    :param starts: the stream's start, as a checkpoint's text, without partitions that started at 0; `None` if unknown.
    :param details: what the backend alone knows of it, as its recipe writes it.
    :param kept: the settings of an adopted connector that stay as they are, whatever the declaration makes of them.
    """

    stream: Stream
    source_cluster: str | None = None
    destination_cluster: str | None = None
    topics_cluster: str | None = Field(default=None, exclude_if=lambda value: value is None)
    side: Literal["source", "destination"] = "destination"
    topics: dict[str, str] = Field(default_factory=dict)
    creating: bool = Field(default=False, validation_alias="making", serialization_alias="making")
    replays: tuple[ReplayRecord, ...] = Field(default=(), validation_alias="rewinds", serialization_alias="rewinds")
    starts: str | None = None
    details: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda value: not value)
    kept: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)

    @classmethod
    def read(cls, config: Mapping[str, str], backend: str) -> Self | None:
        """Return the record in a connector's configuration, in its current form; `None` if it has none.

        Raise `RecordUnreadable` if it is damaged, or of a later version or another backend.
        """
        if not RECORD_KEYS & config.keys():
            return None
        header = _read_header(config)
        if header.backend != backend:
            raise RecordUnreadable(
                f"its record is of the backend {header.backend}", fix="choose another name for this stream"
            )
        try:
            found = json.loads(config[KEY])
            found["stream"] |= header.stream
            record = cls.model_validate_json(json.dumps(found))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise RecordUnreadable(f"its record cannot be read: {KEY}: {_reason(error)}", fix=_repair(KEY)) from None
        return record.model_copy(update={"stream": record.stream.recorded(), "starts": header.starts})

    @property
    def start_offsets(self) -> Offsets:
        """Return the stream's start, without partitions that started at 0; also empty if unknown."""
        return read(self.starts) if self.starts else {}

    def replay_record(self, key: str) -> ReplayRecord | None:
        """Return the replay that has this key."""
        return next((replay_record for replay_record in self.replays if replay_record.progress.key == key), None)

    def with_replay(self, changed: ReplayRecord) -> Self:
        """Return the record with one replay replaced."""
        key = changed.progress.key
        replays = tuple(
            changed if replay_record.progress.key == key else replay_record for replay_record in self.replays
        )
        return self.model_copy(update={"replays": replays})

    def fitted(self, config: Mapping[str, str], backend: str) -> Self | None:
        """Return the record, with ended replays shortened, oldest first, until Connect can write it.

        Return `None` if Connect cannot write it even then.

        :param config: of the connector, with any record.
        """
        fitting, ended = (
            self,
            [replay_record for replay_record in self.replays[:-1] if replay_record.progress.finished_at is not None],
        )
        while _size({**config, **fitting.keys(backend)}) > CONFIG_LIMIT:
            if not ended:
                return None
            fitting = fitting.with_replay(ended.pop(0).outlined())
        return fitting

    def cut_off(self) -> ReplayRecord | None:
        """Return the recorded replay that is neither applied nor given up."""
        open_ = (
            replay_record
            for replay_record in self.replays
            if not replay_record.applied and replay_record.progress.finished_at is None
        )
        return next(open_, None)

    def keys(self, backend: str) -> dict[str, str]:
        """Return the record as keys of a connector's configuration."""
        recorded = self.model_copy(update={"stream": self.stream.recorded()})
        wire = recorded.model_dump(
            mode="json", exclude_none=True, exclude={"stream": set(OF_THE_PROGRAM), "starts": True}
        )
        later = {name: wire["stream"].pop(name) for name in _SINCE_2 if name in wire["stream"]}
        header = Header(version=VERSION, backend=backend, stream=later, starts=self.starts)
        return {KEY: _text(wire), HEADER: _text(header.wire())}


def given_up(replay_record: ReplayRecord, why: str) -> ReplayRecord:
    """Return a replay as failed."""
    failed = {"state": ReplayState.FAILED, "finished_at": now(), "error": why}
    return replay_record.model_copy(update={"progress": replay_record.progress.model_copy(update=failed)})


def now() -> datetime:
    """Return the time in whole milliseconds, as records hold it."""
    at = datetime.now(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def is_another(was: str | None, now: str | None, *, same_place: bool) -> bool:
    """Tell whether an end is another one, by its identity, or by its address if that is unknown."""
    return was != now if was and now else not same_place


def refuse_unfinished(record: StreamRecord) -> None:
    """Raise `ReplayRefused` if the stream's start position is not set yet."""
    if record.creating:
        raise ReplayRefused(UNFINISHED, stream=record.stream.name, fix="run pulumi up, which finishes it")


def _size(config: Mapping[str, str]) -> int:
    return len(json.dumps({"properties": dict(config)}, separators=(",", ":")))


def _digest(lsn: str) -> str:
    return f"sha256:{hashlib.sha256(lsn.encode()).hexdigest()}"


def _repair(key: str) -> str:
    return (
        f"restore the value of {key} in the connector's configuration, or upgrade replicator-provider if a later "
        "release wrote it. Delete the connector only to remove the stream"
    )


def recorded_backend(config: Mapping[str, str]) -> str | None:
    """Return the backend that wrote the record in a connector's configuration; `None` if that is unreadable."""
    try:
        return _read_header(config).backend
    except RecordUnreadable:
        return None


def _read_header(config: Mapping[str, str]) -> Header:
    if HEADER not in config:
        return Header(version=1, backend=_FIRST_BACKEND)
    try:
        header = Header.model_validate_json(config[HEADER])
    except ValidationError as error:
        raise RecordUnreadable(f"its record cannot be read: {HEADER}: {_reason(error)}", fix=_repair(HEADER)) from None
    if header.version > VERSION:
        raise RecordUnreadable(
            f"its record has version {header.version}, and this release reads up to version {VERSION}",
            fix="upgrade replicator-provider",
        )
    return header


_FIRST_BACKEND = "kafka-mirror"
"""The only backend of release 0.1 that kept records here."""


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return f"no {error} in it" if isinstance(error, KeyError) else "it is not a JSON object of this form"


def _text(wire: Mapping[str, Any]) -> str:
    return json.dumps(wire, separators=(",", ":"), sort_keys=True).replace("$", "\\u0024")
