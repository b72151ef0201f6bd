"""The capabilities of each backend, as data. Check, the preview's warnings, docs and contract tests read this table.

A cell is `Yes(note)` or `No(reason)`. People read the reason in a refused preview: it says why, and what would work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum

from replicator.model import Conflict, End, EndpointKind, Mode, Stream
from replicator.option_types import OptionType
from replicator.replicator import ReplayMethod


@dataclass(frozen=True, slots=True)
class Yes:
    """Supported; the note says what users need to know."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class No:
    """Not supported; the reason says why, and what would work."""

    reason: str


Cell = Yes | No


class Feature(StrEnum):
    """Features that a stream may use besides mode, conflict policy and start."""

    INCLUDE_EXCLUDE = "include/exclude"
    FILTER = "filter"
    CHECKPOINT_INTERVAL = "checkpointInterval"
    PURGE_DESTINATION = "purgeDestination"
    DRAIN_FLUSH = "drainBeforeDelete: flush"
    DRAIN_WAIT = "drainBeforeDelete: wait"
    DRAIN_SKIP = "drainBeforeDelete: skip"
    WAIT_CAUGHT_UP = "waitFor: caught_up"
    BOOKMARKS = "bookmarks"
    KEEP_BOOKMARK = "onDelete: keepBookmark"
    OPTIONS = "options"


class StartKind(StrEnum):
    """The forms of `startFrom`."""

    EARLIEST = "earliest"
    LATEST = "latest"
    LSN = "lsn"
    WALL = "wall"


class Verdict(Enum):
    """The effect of a change on the data, from harmless to worst."""

    SAFE = "safe"
    RESTARTS = "restarts"
    RE_SNAPSHOTS = "re-snapshots"
    LOSES_POSITION = "loses position"
    DELETES_DATA = "deletes data"


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of changing one property, and the preview's sentence about it."""

    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A backend's capabilities between some kinds of endpoints.

    :param pairs: the (source kind, destination kind) pairs that this holds for.
    :param managed_at: the end of the stream whose region determines the agent or cluster that manages it.
    :param default_interval: the engine's own checkpoint interval, in the notation of programs.
    :param lag_unit: the unit of `lagEvents`.
    :param lag_resolution: how far `lagSeconds` may be below the age of the oldest waiting change.
    :param changes: the effect of changing a property in place, by property path.
    :param access: the effect of another `uri` of the same place, if only the way of access differs.
    :param removal: what a delete leaves at the destination.
    :param pause_cost: the cost of a pause while it lasts.
    :param private_ends: no two streams have the same source, nor the same destination.
    """

    pairs: frozenset[tuple[EndpointKind, EndpointKind]]
    modes: Mapping[Mode, Cell]
    conflicts: Mapping[Conflict, Cell]
    start_from: Mapping[StartKind, Cell]
    replay: Mapping[ReplayMethod, Cell]
    features: Mapping[Feature, Cell]
    default_interval: str
    lag_unit: str
    changes: Mapping[str, Effect]
    removal: str
    pause_cost: str
    managed_at: End = "source"
    lag_resolution: timedelta = timedelta()
    access: Effect | None = None
    private_ends: bool = False

    def cells(self) -> Iterator[tuple[str, str | None, Cell]]:
        """Yield every cell with the property that uses it and its value, `None` for any.

        `method` is the property of a replay.
        """
        for property, cells in (
            ("mode", self.modes),
            ("conflict", self.conflicts),
            ("startFrom", self.start_from),
            ("method", self.replay),
        ):
            yield from ((property, value.value, cell) for value, cell in cells.items())
        for feature, cell in self.features.items():
            words, _, value = feature.partition(": ")
            yield from ((property, value or None, cell) for property in words.split("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """One backend's row.

    :param routes: its capabilities by kinds of endpoints; no pair is in two of them.
    :param options: keys that `options` may hold, with their types; `None` if every key is passed on.
    :param automatic: it may be chosen for a stream that names no backend.
    """

    backend: str
    routes: tuple[Route, ...]
    options: Mapping[str, OptionType] | None = None
    automatic: bool = True

    @property
    def pairs(self) -> frozenset[tuple[EndpointKind, EndpointKind]]:
        """Return the pairs of kinds that the backend serves."""
        return frozenset().union(*(route.pairs for route in self.routes))

    def find(self, source: str, destination: str) -> Route | None:
        """Return the route between two kinds; `None` if the backend does not serve them."""
        return next((route for route in self.routes if (source, destination) in route.pairs), None)

    def route(self, stream: Stream) -> Route:
        """Return the route of a stream; the first route for a stream that no release should have accepted."""
        return self.find(stream.source.kind, stream.destination.kind) or self.routes[0]

    def canonical_options(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return options with each value converted to its type, and without null values.

        A value that does not fit its type is unchanged.
        """
        return {key: self._canonical(key, value) for key, value in options.items() if value is not None}

    def _canonical(self, key: str, value: object) -> object:
        try:
            return (self.options or {})[key].read(value)
        except (KeyError, ValueError):
            return value


_EVERY_PAIR = frozenset((source, destination) for source in EndpointKind for destination in EndpointKind)

_SAFE_CHANGES = {
    "desiredState": Effect(Verdict.SAFE, ""),
    "waitFor": Effect(Verdict.SAFE, ""),
    "deletionProtection": Effect(Verdict.SAFE, ""),
    "ownerUrn": Effect(Verdict.SAFE, ""),
    "drainBeforeDelete": Effect(Verdict.SAFE, ""),
}

_ANY_TO_ANY = Route(
    pairs=_EVERY_PAIR,
    modes={mode: Yes() for mode in Mode},
    conflicts={conflict: Yes() for conflict in Conflict},
    start_from={start: Yes() for start in StartKind},
    replay={
        ReplayMethod.LOG_REWIND: Yes("emits again from the position; the destination keeps one copy of each event"),
        ReplayMethod.COPY: No("a memory stream has no place to write a copy to; use log_rewind"),
        ReplayMethod.RESEED: No("a memory stream keeps every event; use log_rewind"),
        ReplayMethod.SINK_REWIND: No("a memory stream has no sink apart from its log; use log_rewind"),
        ReplayMethod.RESNAPSHOT: No("a memory stream keeps every event; use log_rewind"),
    },
    features={
        Feature.INCLUDE_EXCLUDE: Yes("kept in the record, not applied"),
        Feature.FILTER: Yes("kept in the record, not applied"),
        Feature.CHECKPOINT_INTERVAL: Yes("kept in the record, not applied"),
        Feature.PURGE_DESTINATION: Yes(),
        Feature.DRAIN_FLUSH: Yes("a delete delivers what is left"),
        Feature.DRAIN_WAIT: Yes("the same as flush"),
        Feature.DRAIN_SKIP: Yes("the same as flush"),
        Feature.WAIT_CAUGHT_UP: Yes(),
        Feature.BOOKMARKS: Yes("kept in the record, not applied"),
        Feature.KEEP_BOOKMARK: Yes("kept in the record, not applied"),
        Feature.OPTIONS: Yes('`fail: "text"` makes the stream report that failure'),
    },
    default_interval="0s",
    lag_unit="event",
    removal="the events that it delivered stay until the process ends",
    pause_cost="the events of the pause are delivered on resume",
    changes={
        **_SAFE_CHANGES,
        "destination.region": Effect(Verdict.SAFE, ""),
        "source.uri": Effect(Verdict.RE_SNAPSHOTS, "another source is read from its first event"),
        "destination.uri": Effect(Verdict.RE_SNAPSHOTS, "another destination is filled from the first event"),
        "source.kind": Effect(Verdict.RE_SNAPSHOTS, "another source is read from its first event"),
        "destination.kind": Effect(Verdict.RE_SNAPSHOTS, "another destination is filled from the first event"),
        "mode": Effect(Verdict.RESTARTS, "the stream stops and starts again from its checkpoint"),
        "include": Effect(Verdict.RESTARTS, "the stream stops and starts again from its checkpoint"),
        "exclude": Effect(Verdict.RESTARTS, "the stream stops and starts again from its checkpoint"),
        "filter": Effect(Verdict.RESTARTS, "the stream stops and starts again from its checkpoint"),
        "conflict": Effect(Verdict.RESTARTS, "the stream stops and starts again from its checkpoint"),
        "checkpointInterval": Effect(Verdict.RESTARTS, "the stream stops and starts again from its checkpoint"),
        "source.authRef": Effect(Verdict.RESTARTS, "the stream stops and starts again from its checkpoint"),
        "destination.authRef": Effect(Verdict.RESTARTS, "the stream stops and starts again from its checkpoint"),
        "source.adminAuthRef": Effect(Verdict.SAFE, ""),
        "destination.adminAuthRef": Effect(Verdict.SAFE, ""),
        "startFrom": Effect(Verdict.SAFE, ""),
        "options": Effect(Verdict.RESTARTS, "the stream stops and starts again from its checkpoint"),
        "purgeDestination": Effect(Verdict.SAFE, ""),
        "bookmarks": Effect(Verdict.SAFE, ""),
        "onDelete": Effect(Verdict.SAFE, ""),
    },
)

MEMORY = Capabilities(
    backend="memory",
    routes=(_ANY_TO_ANY,),
    options={"fail": OptionType.TEXT},
    automatic=False,
)


def _sentence(text: str) -> str:
    """Return a text as a sentence that follows another one."""
    return text[:1].upper() + text[1:]


_PAGES = "litestream ships pages of the database file, not rows"
_RESTART = (
    "its litestream process starts again; nothing is lost, the lag grows for some seconds. If the application restarts "
    "its WAL in that moment, the whole database is uploaded again"
)

_SQLITE_TO_S3 = Route(
    private_ends=True,
    pairs=frozenset({(EndpointKind.SQLITE, EndpointKind.S3)}),
    modes={
        Mode.SNAPSHOT_THEN_CDC: Yes(),
        Mode.SNAPSHOT: Yes("one forced snapshot, then the stream is paused"),
        Mode.CDC: No("litestream always begins with a snapshot; use snapshot_then_cdc"),
    },
    conflicts={
        Conflict.SOURCE_WINS: Yes(),
        Conflict.DEST_WINS: No(f"{_PAGES}, so the destination is always a copy of the source; use source_wins"),
        Conflict.LAST_WRITER_WINS: No(f"{_PAGES}, so it cannot compare versions of a row; use source_wins"),
        Conflict.MANUAL_REVIEW: No(f"{_PAGES}, so there is no row to review; use source_wins"),
    },
    start_from={
        start: No("litestream always begins with a snapshot of the database as it is now; leave startFrom out")
        for start in StartKind
    },
    replay={
        ReplayMethod.COPY: Yes("the database as it was, written to target on the agent's host"),
        ReplayMethod.RESEED: Yes("a full snapshot under a new prefix, then the changes"),
        ReplayMethod.LOG_REWIND: No(f"{_PAGES}, and emits no event a second time; use copy"),
        ReplayMethod.SINK_REWIND: No("the destination is object storage and reads no log; use copy"),
        ReplayMethod.RESNAPSHOT: No("use reseed, which writes the snapshot under a new prefix"),
    },
    features={
        Feature.INCLUDE_EXCLUDE: No(
            f"{_PAGES}, so a stream is one whole database file. Leave it out, or use a database of its own"
        ),
        Feature.FILTER: No(
            f"{_PAGES}, so it cannot leave rows out. Leave filter out, and filter where the copy is read"
        ),
        Feature.CHECKPOINT_INTERVAL: Yes("the stream then has a litestream process of its own"),
        Feature.PURGE_DESTINATION: Yes("removes the transaction files of litestream, and nothing else"),
        Feature.DRAIN_FLUSH: Yes("a delete uploads what is left, and fails where it cannot"),
        Feature.DRAIN_WAIT: No("litestream uploads what is left when it lets a database go; use flush"),
        Feature.DRAIN_SKIP: Yes("a delete leaves out what is not uploaded yet, for a store that is gone"),
        Feature.WAIT_CAUGHT_UP: Yes(),
        Feature.BOOKMARKS: No("the replica keeps its own history; leave it out, and use copy with a time"),
        Feature.KEEP_BOOKMARK: No(
            "litestream always begins with a snapshot, and continues from no position; leave it out"
        ),
        Feature.OPTIONS: Yes("the stream then has a litestream process of its own"),
    },
    default_interval="1s",
    lag_unit="transaction file (one upload; it may hold many commits)",
    lag_resolution=timedelta(seconds=1),
    pause_cost="the replica stands still, and what is written meanwhile is in no backup until the stream resumes. If "
    "the application restarts its WAL meanwhile, the resume uploads the whole database again",
    removal="the replica stays and can be restored; the side directory beside the database is removed",
    access=Effect(Verdict.RESTARTS, f"only the way to the place changes; {_RESTART}"),
    changes={
        **_SAFE_CHANGES,
        "destination.region": Effect(Verdict.SAFE, ""),
        "source.uri": Effect(
            Verdict.RE_SNAPSHOTS,
            "the other database is copied whole to the destination; restores from before need the old replica",
        ),
        "destination.uri": Effect(
            Verdict.RE_SNAPSHOTS,
            "the database is copied whole to the new destination; the old replica stays where it is and grows no more",
        ),
        "mode": Effect(Verdict.RESTARTS, "the stream stops and starts again with a snapshot"),
        "checkpointInterval": Effect(Verdict.RESTARTS, _RESTART),
        "destination.authRef": Effect(Verdict.RESTARTS, _RESTART),
        "source.authRef": Effect(Verdict.SAFE, ""),
        "source.adminAuthRef": Effect(Verdict.SAFE, ""),
        "destination.adminAuthRef": Effect(Verdict.SAFE, ""),
        "options": Effect(Verdict.RESTARTS, _RESTART),
        "purgeDestination": Effect(Verdict.SAFE, ""),
    },
)

LITESTREAM = Capabilities(
    backend="litestream",
    routes=(_SQLITE_TO_S3,),
    options={
        "monitor-interval": OptionType.DURATION,
        "checkpoint-interval": OptionType.DURATION,
        "busy-timeout": OptionType.DURATION,
        "min-checkpoint-page-count": OptionType.COUNT,
        "truncate-page-n": OptionType.NUMBER,
    },
)

_RECORDS = "MirrorMaker 2 copies every record of a topic as it is"
_REWRITE = "the mirror restarts from its checkpoint; nothing is lost, the lag grows for some seconds"
_OTHER_NAMES = "the topics at the destination get other names, and are filled from the beginning; the old ones stay"

_KAFKA_TO_KAFKA = Route(
    managed_at="destination",
    pairs=frozenset({(EndpointKind.KAFKA, EndpointKind.KAFKA)}),
    modes={
        Mode.SNAPSHOT_THEN_CDC: Yes("from the first record that the source retains, unless startFrom says otherwise"),
        Mode.CDC: Yes("from the end of the source, unless startFrom says otherwise"),
        Mode.SNAPSHOT: No("a mirror has no end, because records keep coming; use snapshot_then_cdc"),
    },
    conflicts={
        Conflict.SOURCE_WINS: Yes(),
        Conflict.DEST_WINS: No(f"{_RECORDS}, and a topic is a log without versions to compare; use source_wins"),
        Conflict.LAST_WRITER_WINS: No(f"{_RECORDS}, and a topic is a log without versions to compare; use source_wins"),
        Conflict.MANUAL_REVIEW: No(f"{_RECORDS}, and holds none back for a review; use source_wins"),
    },
    start_from={
        StartKind.EARLIEST: Yes(),
        StartKind.LATEST: Yes("topics that are made later are copied from their beginning"),
        StartKind.LSN: Yes("the next offset of each partition, as in orders=42,8; others begin at the end"),
        StartKind.WALL: Yes("in each partition the first record of that time or later"),
    },
    replay={
        ReplayMethod.LOG_REWIND: Yes("the source's log is read again, and its records are appended once more"),
        ReplayMethod.COPY: No("a mirror writes to the topics that it has; use log_rewind, or a stream of its own"),
        ReplayMethod.RESEED: No("a topic is a log and is not written again; use log_rewind from the earliest offset"),
        ReplayMethod.SINK_REWIND: No(
            "the destination is the log itself; set back the offsets of its consumers there, or use log_rewind"
        ),
        ReplayMethod.RESNAPSHOT: No("a topic has no state apart from its records; use log_rewind"),
    },
    features={
        Feature.INCLUDE_EXCLUDE: Yes("names of topics"),
        Feature.FILTER: No(f"{_RECORDS} and reads none; leave filter out, and filter where the topic is consumed"),
        Feature.CHECKPOINT_INTERVAL: No(
            "Connect flushes offsets for a whole worker; leave it out, and set offset.flush.interval.ms there"
        ),
        Feature.PURGE_DESTINATION: No(
            "a topic does not tell which of its records a mirror wrote; leave it out, and delete the topics yourself"
        ),
        Feature.DRAIN_FLUSH: Yes("the connector stops, and its tasks flush what they have read"),
        Feature.DRAIN_WAIT: No(
            "a delete of a mirror does not wait for the end of its source; pause the writers first, use flush"
        ),
        Feature.DRAIN_SKIP: Yes("the same as flush"),
        Feature.WAIT_CAUGHT_UP: Yes("as fresh as offset.flush.interval.ms of the worker"),
        Feature.BOOKMARKS: No(
            "the source retains its records by itself; leave it out, and replay from a time or offsets"
        ),
        Feature.KEEP_BOOKMARK: No("the stored offsets go with the stream; leave it out, and use startFrom"),
        Feature.OPTIONS: Yes("settings of MirrorMaker 2"),
    },
    default_interval="1m",
    lag_unit="offset, most often one record",
    pause_cost="the source's retention runs on, and what it deletes before the stream resumes is lost to the mirror",
    removal="the topics at the destination stay; the stored offsets are removed, so the same stream begins from "
    "the start",
    changes={
        **_SAFE_CHANGES,
        "ownerUrn": Effect(Verdict.RESTARTS, f"the record in its connector names the resource; {_REWRITE}"),
        "source.uri": Effect(
            Verdict.RE_SNAPSHOTS,
            "topics of another cluster are copied from the beginning, beside what is there. With other brokers of the "
            "same cluster the mirror continues from its checkpoint",
        ),
        "destination.uri": Effect(
            Verdict.RE_SNAPSHOTS,
            "another cluster is filled from the beginning, and the old topics stay where they are. With other "
            "brokers of the same cluster the mirror continues from its checkpoint",
        ),
        "source.region": Effect(Verdict.RE_SNAPSHOTS, _OTHER_NAMES),
        "mode": Effect(Verdict.SAFE, ""),
        "include": Effect(Verdict.RESTARTS, f"new topics in it are copied from the beginning; {_REWRITE}"),
        "exclude": Effect(Verdict.RESTARTS, _REWRITE),
        "source.authRef": Effect(Verdict.RESTARTS, _REWRITE),
        "destination.authRef": Effect(Verdict.RESTARTS, _REWRITE),
        "source.adminAuthRef": Effect(Verdict.SAFE, ""),
        "destination.adminAuthRef": Effect(Verdict.SAFE, ""),
        "startFrom": Effect(Verdict.SAFE, ""),
        "options": Effect(Verdict.RESTARTS, _REWRITE),
        'options["source.cluster.alias"]': Effect(Verdict.RE_SNAPSHOTS, _OTHER_NAMES),
        'options["replication.policy.class"]': Effect(Verdict.RE_SNAPSHOTS, _OTHER_NAMES),
        'options["replication.policy.separator"]': Effect(Verdict.RE_SNAPSHOTS, _OTHER_NAMES),
    },
)

KAFKA_MIRROR = Capabilities(
    backend="kafka-mirror",
    routes=(_KAFKA_TO_KAFKA,),
    options={
        "worker.cluster": OptionType.TEXT,
        "source.cluster.alias": OptionType.TEXT,
        "tasks.max": OptionType.NUMBER,
        "replication.policy.class": OptionType.TEXT,
        "replication.policy.separator": OptionType.TEXT,
        "replication.factor": OptionType.NUMBER,
        "refresh.topics.enabled": OptionType.FLAG,
        "refresh.topics.interval.seconds": OptionType.NUMBER,
        "sync.topic.configs.enabled": OptionType.FLAG,
        "sync.topic.configs.interval.seconds": OptionType.NUMBER,
        "sync.topic.acls.enabled": OptionType.FLAG,
        "sync.topic.acls.interval.seconds": OptionType.NUMBER,
        "config.properties.exclude": OptionType.TEXT,
        "offset.lag.max": OptionType.NUMBER,
        "offset-syncs.topic.replication.factor": OptionType.NUMBER,
        "sync.group.offsets.enabled": OptionType.FLAG,
        "sync.group.offsets.interval.seconds": OptionType.NUMBER,
        "emit.checkpoints.interval.seconds": OptionType.NUMBER,
        "checkpoints.topic.replication.factor": OptionType.NUMBER,
        "groups": OptionType.TEXT,
        "groups.exclude": OptionType.TEXT,
        "refresh.groups.interval.seconds": OptionType.NUMBER,
        "emit.heartbeats.enabled": OptionType.FLAG,
        "emit.heartbeats.interval.seconds": OptionType.NUMBER,
        "heartbeats.topic.replication.factor": OptionType.NUMBER,
        "consumer.max.poll.records": OptionType.NUMBER,
        "consumer.fetch.max.bytes": OptionType.NUMBER,
        "consumer.fetch.min.bytes": OptionType.NUMBER,
        "consumer.max.partition.fetch.bytes": OptionType.NUMBER,
        "producer.override.batch.size": OptionType.NUMBER,
        "producer.override.compression.type": OptionType.TEXT,
        "producer.override.linger.ms": OptionType.NUMBER,
        "producer.override.max.request.size": OptionType.NUMBER,
    },
)

_LOG = "Debezium reads the write-ahead log"
_CONNECTOR = "the connector restarts from its position; nothing is lost, the lag grows for some seconds"
_READ_AGAIN = "Its rows are read while changes continue, and arrive as records of a snapshot, unless mode is cdc"
_ALL_AGAIN = "the new filter applies to changes at once. Unless mode is cdc, every table is read again under it"
_NEW_SLOT = "A new replication slot is made, and a first snapshot taken, unless mode is cdc; the old slot is dropped"

_POSTGRES_TO_KAFKA = Route(
    managed_at="destination",
    pairs=frozenset({(EndpointKind.POSTGRES, EndpointKind.KAFKA)}),
    modes={
        Mode.SNAPSHOT_THEN_CDC: Yes("the rows as they are, and then every change"),
        Mode.CDC: Yes("every change that is committed after the slot was made"),
        Mode.SNAPSHOT: Yes("the rows as they are, without a slot; then the stream counts as paused"),
    },
    conflicts={
        Conflict.SOURCE_WINS: Yes(),
        Conflict.DEST_WINS: No(f"{_LOG} and appends to a topic, which has no versions to compare; use source_wins"),
        Conflict.LAST_WRITER_WINS: No(
            f"{_LOG} and appends to a topic, which has no versions to compare; use source_wins"
        ),
        Conflict.MANUAL_REVIEW: No(f"{_LOG} and holds no change back for a review; use source_wins"),
    },
    start_from={
        StartKind.EARLIEST: Yes(
            "at the bookmark that a deleted stream of the same name left; without a first snapshot"
        ),
        StartKind.LATEST: No("a new slot begins at the latest change; leave startFrom out, and write mode: cdc"),
        StartKind.LSN: Yes("a position that such a bookmark holds; without a first snapshot"),
        StartKind.WALL: Yes("a time that such a bookmark holds; without a first snapshot"),
    },
    replay={
        ReplayMethod.LOG_REWIND: Yes(
            "every change since an LSN or a time that a bookmark holds, or that the slot has not confirmed yet"
        ),
        ReplayMethod.COPY: No("a stream writes to its topics alone; use a stream of its own with another topic.prefix"),
        ReplayMethod.RESEED: No(
            "a topic is a log and is not written again; use resnapshot, which sends the rows once more"
        ),
        ReplayMethod.SINK_REWIND: No("the destination is the log itself; set back the offsets of its consumers"),
        ReplayMethod.RESNAPSHOT: Yes("every row that passes the filter is sent as it is now; deleted rows are not"),
    },
    features={
        Feature.INCLUDE_EXCLUDE: Yes("names of tables, and of their columns"),
        Feature.FILTER: Yes("a condition over columns; the publication and every snapshot have it"),
        Feature.CHECKPOINT_INTERVAL: Yes("the time between two heartbeats, by which a quiet stream proves where it is"),
        Feature.PURGE_DESTINATION: No(
            "a topic does not tell which of its records a stream wrote; leave it out, and delete the topics yourself"
        ),
        Feature.DRAIN_FLUSH: Yes("the connector stops, and its task flushes what it has read"),
        Feature.DRAIN_WAIT: No(
            "a delete does not wait for the end of the source; use flush, and pause the writers first"
        ),
        Feature.DRAIN_SKIP: Yes("the same as flush"),
        Feature.WAIT_CAUGHT_UP: Yes("as fresh as the heartbeats, and as offset.flush.interval.ms of the worker"),
        Feature.BOOKMARKS: Yes(
            "each is a copy of the slot, and holds WAL on the disk of the source until you remove it"
        ),
        Feature.KEEP_BOOKMARK: Yes("slot and publication stay for a later stream with startFrom; the slot holds WAL"),
        Feature.OPTIONS: Yes("settings of Debezium"),
    },
    default_interval="10s",
    lag_unit="change",
    pause_cost="the replication slot holds the WAL of the pause, of the whole server, on the disk of the source",
    removal="the topics at the destination stay; slot, publication and positions are removed, so the same stream "
    "begins with a new snapshot",
    changes={
        **_SAFE_CHANGES,
        "ownerUrn": Effect(Verdict.RESTARTS, f"the record in its connector names the resource; {_CONNECTOR}"),
        "source.uri": Effect(Verdict.RE_SNAPSHOTS, f"another database is another source. {_NEW_SLOT}"),
        "source.region": Effect(Verdict.SAFE, ""),
        "destination.uri": Effect(
            Verdict.RE_SNAPSHOTS, f"another cluster is filled from the beginning. {_NEW_SLOT}. The old topics stay"
        ),
        "mode": Effect(
            Verdict.RE_SNAPSHOTS,
            "between snapshot and the others the stream begins again; between cdc and snapshot_then_cdc it continues",
        ),
        "include": Effect(
            Verdict.RE_SNAPSHOTS,
            f"a table that is new in it joins. {_READ_AGAIN}. A table that leaves keeps its topic",
        ),
        "exclude": Effect(
            Verdict.RE_SNAPSHOTS,
            f"a table that is new in the stream joins. {_READ_AGAIN}. A table that leaves keeps its topic",
        ),
        "filter": Effect(
            Verdict.RE_SNAPSHOTS,
            f"{_ALL_AGAIN}, while changes continue, and its rows arrive as records of a snapshot. "
            "Rows that it no longer passes stay in the topics as they are",
        ),
        "startFrom": Effect(Verdict.SAFE, ""),
        "bookmarks": Effect(
            Verdict.RESTARTS,
            "a bookmark that you add marks the position of this update, and the server keeps its WAL from there on. "
            f"One that you remove is dropped, and no replay can start there any more. {_sentence(_CONNECTOR)}",
        ),
        "onDelete": Effect(Verdict.RESTARTS, _CONNECTOR),
        "checkpointInterval": Effect(Verdict.RESTARTS, _CONNECTOR),
        "source.authRef": Effect(Verdict.RESTARTS, _CONNECTOR),
        "destination.authRef": Effect(Verdict.RESTARTS, _CONNECTOR),
        "source.adminAuthRef": Effect(Verdict.SAFE, ""),
        "destination.adminAuthRef": Effect(Verdict.SAFE, ""),
        "options": Effect(Verdict.RESTARTS, _CONNECTOR),
        'options["topic.prefix"]': Effect(
            Verdict.RE_SNAPSHOTS, f"the topics get other names, and are filled from the beginning. {_NEW_SLOT}"
        ),
    },
    access=Effect(Verdict.RESTARTS, f"only the way to the place changes; {_CONNECTOR}"),
)

_ROWS = "the sink writes each row as the source has it"
_WITH_SINK = "Debezium and its sink restart from their positions; nothing is lost, the lag grows for some seconds"
_ROWS_AGAIN = "Its rows are read while changes continue, and written over those of the same key, unless mode is cdc"

_POSTGRES_TO_POSTGRES = Route(
    managed_at="destination",
    pairs=frozenset({(EndpointKind.POSTGRES, EndpointKind.POSTGRES)}),
    modes={
        Mode.SNAPSHOT_THEN_CDC: Yes("the rows as they are, and then every change"),
        Mode.CDC: Yes("every change that is committed after the slot was made; rows of before are not copied"),
        Mode.SNAPSHOT: Yes("the rows as they are, without a slot; then the stream counts as paused"),
    },
    conflicts={
        Conflict.SOURCE_WINS: Yes("a row that was changed at the destination is overwritten by its next change"),
        Conflict.DEST_WINS: No(f"{_ROWS}, and looks at none of the destination; use source_wins"),
        Conflict.LAST_WRITER_WINS: No(f"{_ROWS}, and compares no versions; use source_wins"),
        Conflict.MANUAL_REVIEW: No(f"{_ROWS}, and holds no change back for a review; use source_wins"),
    },
    start_from={
        StartKind.EARLIEST: No("a new slot begins now, and no WAL from before is kept for it; use snapshot_then_cdc"),
        StartKind.LATEST: No("a new slot begins at the latest change; leave startFrom out, and write mode: cdc"),
        StartKind.LSN: No("a new slot begins now, and holds no position from before; leave startFrom out"),
        StartKind.WALL: No("a new slot begins now, and holds no position from before; leave startFrom out"),
    },
    replay={
        ReplayMethod.SINK_REWIND: Yes("the topics between are read again, from a time or offsets that they retain"),
        ReplayMethod.RESNAPSHOT: Yes("every row that passes the filter is written as it is now; deleted rows are not"),
        ReplayMethod.LOG_REWIND: No("a slot does not send changes again that were confirmed; use sink_rewind"),
        ReplayMethod.COPY: No("a stream writes to its tables alone; use a stream of its own to another database"),
        ReplayMethod.RESEED: No("a stream does not empty its tables; use resnapshot, which writes the rows once more"),
    },
    features={
        **_POSTGRES_TO_KAFKA.features,
        Feature.PURGE_DESTINATION: No(
            "a table does not tell which of its rows a stream wrote; leave it out, and drop the tables yourself"
        ),
        Feature.DRAIN_FLUSH: Yes("a delete writes what is on the way, and fails where it cannot"),
        Feature.DRAIN_SKIP: Yes("a delete leaves out what is on the way, for a destination that is gone"),
        Feature.BOOKMARKS: No("the topics between are the log that is read again; leave it out, and use sink_rewind"),
        Feature.KEEP_BOOKMARK: No("a new stream begins with a snapshot, which writes over the same rows; leave it out"),
    },
    default_interval="10s",
    lag_unit="change",
    pause_cost="the replication slot holds the WAL of the pause, of the whole server, on the disk of the source. "
    "What the topics between no longer retain when the stream resumes is lost",
    removal="the tables at the destination stay as they are. Slot, publication, positions and the topics between are "
    "removed, so the same stream begins with a new snapshot",
    changes={
        **_SAFE_CHANGES,
        "ownerUrn": Effect(Verdict.RESTARTS, f"the record in its connector names the resource; {_WITH_SINK}"),
        "source.uri": Effect(
            Verdict.RE_SNAPSHOTS,
            f"another database is another source. {_NEW_SLOT}. Rows of the old one stay at the destination",
        ),
        "source.region": Effect(Verdict.SAFE, ""),
        "destination.uri": Effect(
            Verdict.RE_SNAPSHOTS, f"another database is filled from the beginning. {_NEW_SLOT}. The old tables stay"
        ),
        "mode": _POSTGRES_TO_KAFKA.changes["mode"],
        "include": Effect(
            Verdict.RE_SNAPSHOTS,
            f"a table that is new in it joins. {_ROWS_AGAIN}. A table that leaves stays as it is at the destination",
        ),
        "exclude": Effect(
            Verdict.RE_SNAPSHOTS,
            f"a table that is new in the stream joins. {_ROWS_AGAIN}. A table that leaves stays as it is at the "
            "destination",
        ),
        "filter": Effect(
            Verdict.RE_SNAPSHOTS,
            f"{_ALL_AGAIN}, while changes continue, and its rows are written over those of the same key. "
            "Rows that it no longer passes stay at the destination as they are",
        ),
        "checkpointInterval": Effect(Verdict.RESTARTS, _WITH_SINK),
        "source.authRef": Effect(Verdict.RESTARTS, _WITH_SINK),
        "destination.authRef": Effect(Verdict.RESTARTS, _WITH_SINK),
        "source.adminAuthRef": Effect(Verdict.SAFE, ""),
        "destination.adminAuthRef": Effect(Verdict.SAFE, ""),
        "options": Effect(Verdict.RESTARTS, _WITH_SINK),
        'options["topic.prefix"]': Effect(
            Verdict.RE_SNAPSHOTS,
            f"the topics between get other names. {_NEW_SLOT}. The old topics are removed with the stream",
        ),
    },
    access=Effect(Verdict.RESTARTS, f"only the way to the place changes; {_WITH_SINK}"),
)

_SINK_ONLY = "the sink restarts from its offsets; nothing is lost, the lag grows for some seconds"
_TOPIC_AGAIN = "its records are written from the start on"

_KAFKA_TO_POSTGRES = Route(
    managed_at="destination",
    pairs=frozenset({(EndpointKind.KAFKA, EndpointKind.POSTGRES)}),
    modes={
        Mode.SNAPSHOT_THEN_CDC: Yes("from the first record that the topics retain, unless startFrom says otherwise"),
        Mode.CDC: Yes("from the end of the topics, unless startFrom says otherwise"),
        Mode.SNAPSHOT: No("a topic has no end, because records keep coming; use snapshot_then_cdc"),
    },
    conflicts={
        Conflict.SOURCE_WINS: Yes("a row that was changed at the destination is overwritten by its next record"),
        Conflict.DEST_WINS: No("the sink writes each record, and looks at none of the destination; use source_wins"),
        Conflict.LAST_WRITER_WINS: No("the sink writes each record, and compares no versions; use source_wins"),
        Conflict.MANUAL_REVIEW: No("the sink writes each record, and holds none back for a review; use source_wins"),
    },
    start_from={
        StartKind.EARLIEST: Yes(),
        StartKind.LATEST: Yes("a topic that joins later begins at its end too"),
        StartKind.LSN: Yes("the next offset of each partition, as in orders=42,8; others begin at the end"),
        StartKind.WALL: Yes("in each partition the first record of that time or later"),
    },
    replay={
        ReplayMethod.SINK_REWIND: Yes("the topics are read again, from a time or offsets that they retain"),
        ReplayMethod.RESNAPSHOT: No("the source is a log without a state of its own; use sink_rewind"),
        ReplayMethod.LOG_REWIND: No("the log is the source's, and the sink sets back its own offsets; use sink_rewind"),
        ReplayMethod.COPY: No("a stream writes to its tables alone; use a stream of its own to another database"),
        ReplayMethod.RESEED: No("a stream does not empty its tables; use sink_rewind from the earliest offset"),
    },
    features={
        Feature.INCLUDE_EXCLUDE: Yes("names of topics; each becomes a table"),
        Feature.FILTER: No("the sink writes every record; leave filter out, and filter what is written to the topic"),
        Feature.CHECKPOINT_INTERVAL: No(
            "Connect flushes offsets for a whole worker; leave it out, and set offset.flush.interval.ms there"
        ),
        Feature.PURGE_DESTINATION: No(
            "a table does not tell which of its rows a stream wrote; leave it out, and drop the tables yourself"
        ),
        Feature.DRAIN_FLUSH: Yes("the connector stops, and its tasks write what they have read"),
        Feature.DRAIN_WAIT: No("a delete does not wait for the end of the topics; use flush, stop the writers first"),
        Feature.DRAIN_SKIP: Yes("the same as flush, also where the destination is gone"),
        Feature.WAIT_CAUGHT_UP: Yes("as fresh as offset.flush.interval.ms of the worker"),
        Feature.BOOKMARKS: No("the topics are the log that is read again; leave it out, and use sink_rewind"),
        Feature.KEEP_BOOKMARK: No("the stored offsets go with the stream; leave it out, and use startFrom"),
        Feature.OPTIONS: Yes("settings of the JDBC sink"),
    },
    default_interval="1m",
    lag_unit="offset, most often one record",
    pause_cost="the topics' retention runs on, and what it deletes before the stream resumes is lost",
    removal="the tables at the destination stay as they are; the stored offsets are removed, so the same stream "
    "begins from its start",
    changes={
        **_SAFE_CHANGES,
        "ownerUrn": Effect(Verdict.RESTARTS, f"the record in its connector names the resource; {_SINK_ONLY}"),
        "source.uri": Effect(
            Verdict.RE_SNAPSHOTS,
            "topics of another cluster are written from the start on. With other brokers of the same cluster the sink "
            "continues from its offsets",
        ),
        "source.region": Effect(Verdict.SAFE, ""),
        "destination.uri": Effect(
            Verdict.RE_SNAPSHOTS, "another database is filled from the start on; the old tables stay as they are"
        ),
        "mode": Effect(Verdict.SAFE, ""),
        "include": Effect(
            Verdict.RE_SNAPSHOTS, f"a topic that is new in it joins: {_TOPIC_AGAIN}; the table of one that leaves stays"
        ),
        "exclude": Effect(
            Verdict.RE_SNAPSHOTS,
            f"a topic that is new in the stream joins: {_TOPIC_AGAIN}; the table of one that leaves stays",
        ),
        "startFrom": Effect(Verdict.SAFE, ""),
        "source.authRef": Effect(Verdict.RESTARTS, _SINK_ONLY),
        "destination.authRef": Effect(Verdict.RESTARTS, _SINK_ONLY),
        "source.adminAuthRef": Effect(Verdict.SAFE, ""),
        "destination.adminAuthRef": Effect(Verdict.SAFE, ""),
        "options": Effect(Verdict.RESTARTS, _SINK_ONLY),
        'options["collection.name.format"]': Effect(
            Verdict.RESTARTS,
            f"records go to the other table from now on, and the old one stays. {_sentence(_SINK_ONLY)}",
        ),
    },
)

DEBEZIUM = Capabilities(
    backend="debezium",
    routes=(_POSTGRES_TO_KAFKA, _POSTGRES_TO_POSTGRES, _KAFKA_TO_POSTGRES),
    options={
        "topic.prefix": OptionType.TEXT,
        "key.converter": OptionType.TEXT,
        "key.converter.schemas.enable": OptionType.FLAG,
        "value.converter": OptionType.TEXT,
        "value.converter.schemas.enable": OptionType.FLAG,
        "header.converter": OptionType.TEXT,
        "tombstones.on.delete": OptionType.FLAG,
        "skipped.operations": OptionType.TEXT,
        "skip.messages.without.change": OptionType.FLAG,
        "provide.transaction.metadata": OptionType.FLAG,
        "binary.handling.mode": OptionType.TEXT,
        "decimal.handling.mode": OptionType.TEXT,
        "hstore.handling.mode": OptionType.TEXT,
        "interval.handling.mode": OptionType.TEXT,
        "time.precision.mode": OptionType.TEXT,
        "include.unknown.datatypes": OptionType.FLAG,
        "unavailable.value.placeholder": OptionType.TEXT,
        "reselector.reselect.unavailable.values": OptionType.FLAG,
        "schema.name.adjustment.mode": OptionType.TEXT,
        "field.name.adjustment.mode": OptionType.TEXT,
        "message.key.columns": OptionType.TEXT,
        "snapshot.fetch.size": OptionType.NUMBER,
        "snapshot.max.threads": OptionType.NUMBER,
        "snapshot.isolation.mode": OptionType.TEXT,
        "incremental.snapshot.chunk.size": OptionType.NUMBER,
        "max.batch.size": OptionType.NUMBER,
        "max.queue.size": OptionType.NUMBER,
        "max.queue.size.in.bytes": OptionType.NUMBER,
        "poll.interval.ms": OptionType.NUMBER,
        "status.update.interval.ms": OptionType.NUMBER,
        "retriable.restart.connector.wait.ms": OptionType.NUMBER,
        "errors.max.retries": OptionType.NUMBER,
        "collection.name.format": OptionType.TEXT,
        "primary.key.mode": OptionType.TEXT,
        "primary.key.fields": OptionType.TEXT,
        "schema.evolution": OptionType.TEXT,
        "tasks.max": OptionType.NUMBER,
        "batch.size": OptionType.NUMBER,
        "flush.max.retries": OptionType.NUMBER,
        "consumer.override.max.poll.records": OptionType.NUMBER,
        "topic.creation.default.partitions": OptionType.NUMBER,
        "topic.creation.default.replication.factor": OptionType.NUMBER,
        "topic.creation.default.cleanup.policy": OptionType.TEXT,
        "topic.creation.default.compression.type": OptionType.TEXT,
        "topic.creation.default.retention.ms": OptionType.NUMBER,
        "producer.override.batch.size": OptionType.NUMBER,
        "producer.override.compression.type": OptionType.TEXT,
        "producer.override.linger.ms": OptionType.NUMBER,
        "producer.override.max.request.size": OptionType.NUMBER,
    },
)

TABLE: Mapping[str, Capabilities] = {row.backend: row for row in (LITESTREAM, KAFKA_MIRROR, DEBEZIUM, MEMORY)}


def route_of(stream: Stream) -> Route | None:
    """Return the route of a stream's backend between its endpoints; `None` for a backend of another release."""
    row = TABLE.get(stream.backend or "")
    return row.route(stream) if row else None
