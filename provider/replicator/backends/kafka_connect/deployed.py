"""Streams as a Connect cluster holds them: connectors with a record, and their auxiliary connectors."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass

from replicator.backends.kafka_connect.connector import Connector
from replicator.backends.kafka_connect.record import PART_OF, RECORD_KEYS, StreamRecord, recorded_backend
from replicator.backends.kafka_connect.validation import is_secret
from replicator.errors import NotOurs, RecordUnreadable, StreamNotFound
from replicator.model import StreamState
from replicator.replicator import Description

_FREE_TEXT = re.compile(r"(?i)query|callback|auth")
"""Settings in which people write what may hold a secret."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The connectors of a stream, as configurations.

    :param main: of the connector that holds the record; it has the stream's name.
    :param others: of its other connectors, by name.
    """

    main: dict[str, str]
    others: dict[str, dict[str, str]]

    def with_record_of(self, config: Mapping[str, str]) -> Parts:
        """Return the parts with the record of a configuration, which may be of an earlier release."""
        own = {key: value for key, value in self.main.items() if key not in RECORD_KEYS}
        return Parts({**own, **{key: config[key] for key in RECORD_KEYS & config.keys()}}, self.others)


@dataclass(frozen=True, slots=True)
class DeployedStream:
    """A stream as the Connect cluster holds it.

    :param others: its connectors other than the one with the record.
    """

    connector: Connector
    record: StreamRecord
    others: tuple[Connector, ...] = ()

    @property
    def name(self) -> str:
        return self.record.stream.name

    @property
    def all(self) -> tuple[Connector, ...]:
        """Return every connector of the stream."""
        return (self.connector, *self.others)

    @property
    def trace(self) -> str | None:
        """Return the trace of the first failed connector; `None` if none failed."""
        failed = (connector for connector in self.all if connector.failed)
        return next((one.trace or "the connector failed, and Connect gives no reason" for one in failed), None)

    @property
    def state(self) -> StreamState:
        """Return the state, as far as the connectors show it."""
        if any(connector.state in ("PAUSED", "STOPPED") or connector.pausing for connector in self.all):
            return StreamState.PAUSED
        if not self.connector.running or not all(other.running or other.idle for other in self.others):
            return StreamState.CATCHING_UP
        return StreamState.RUNNING

    @property
    def standstill(self) -> str | None:
        """Return why a replay in progress is stuck; `None` if it is not."""
        if self.state is StreamState.PAUSED:
            return "the stream is paused; the replay runs when it is resumed"
        return (error := self.trace) and f"the stream failed: {error}"


@dataclass(frozen=True, slots=True)
class Listed:
    """The streams of one backend in a Connect cluster, by name.

    :param unreadable: why a record cannot be read.
    """

    streams: dict[str, DeployedStream]
    unreadable: dict[str, RecordUnreadable]

    def failures(self, names: Container[str] | None = None) -> list[Description]:
        """Return descriptions of the streams whose record cannot be read."""
        return [
            Description.unreadable(name, error)
            for name, error in self.unreadable.items()
            if names is None or name in names
        ]


def sort(connectors: Iterable[Connector], backend: str) -> Listed:
    """Find a backend's streams among the connectors of a cluster."""
    ordered = sorted(connectors, key=lambda connector: connector.name)
    parts: dict[str, list[Connector]] = {}
    for connector in ordered:
        if (of := connector.config.get(PART_OF)) is not None:
            parts.setdefault(of, []).append(connector)
    found = Listed({}, {})
    for connector in ordered:
        try:
            record = StreamRecord.read(connector.config, backend)
        except RecordUnreadable as error:
            if recorded_backend(connector.config) in (backend, None):
                found.unreadable[connector.name] = error
            continue
        if record is not None:
            found.streams[connector.name] = DeployedStream(connector, record, tuple(parts.get(connector.name, ())))
    return found


def read_record(connector: Connector, backend: str) -> StreamRecord:
    """Return the record of a stream's connector.

    Raise `NotOurs` if it has none, and `RecordUnreadable` if it is damaged or another backend's.
    """
    try:
        record = StreamRecord.read(connector.config, backend)
    except RecordUnreadable as error:
        error.stream = connector.name
        raise
    if record is None:
        raise NotOurs(
            f"the Connect cluster has a connector of this name, of {connector.config.get('connector.class')}, and "
            "no stream made it",
            stream=connector.name,
            fix="choose another name; or take the connector over: replicator adopt, as docs/adoption.md has it",
        )
    return record


def not_found(name: str) -> StreamNotFound:
    """Return the error for a stream that does not exist."""
    return StreamNotFound("the Connect cluster has no such stream", stream=name)


def foreign_settings(connector: Connector, config: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """Return what somebody changed in a connector, by key, without values that may be secrets.

    :param config: the intended configuration.
    :param known: keys that do not count.
    """
    return {
        key: _shown(key, connector.config.get(key, "")) for key in sorted(differing(connector, config) - set(known))
    }


def _shown(key: str, value: str) -> str:
    return "[redacted]" if is_secret(key) or _FREE_TEXT.search(key) else value


def differing(connector: Connector, config: Mapping[str, str]) -> set[str]:
    """Return the keys whose value in a connector differs from the intended one."""
    there = {key: value for key, value in connector.config.items() if key != "name"}
    return {key for key in there.keys() | config.keys() if there.get(key) != config.get(key)}
