"""What each backend can do, as data. Check, the preview's warnings, docs and the contract tests all read this table.

A cell is `Yes(note)` or `No(reason)`. The reason is what a person reads in a preview that is refused: it says why, and
what would work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from replicator.model import Conflict, EndpointKind, Mode
from replicator.replicator import ReplayMethod


@dataclass(frozen=True, slots=True)
class Yes:
    """Supported; the note says what to know."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class No:
    """Not supported; the reason says why, and what would work."""

    reason: str


Cell = Yes | No


class Feature(StrEnum):
    """What a stream may ask for beside mode, conflict policy and start."""

    INCLUDE_EXCLUDE = "include/exclude"
    FILTER = "filter"
    CHECKPOINT_INTERVAL = "checkpointInterval"
    PURGE_DESTINATION = "purgeDestination"
    WAIT_CAUGHT_UP = "waitFor: caught_up"
    OPTIONS = "options"


class StartKind(StrEnum):
    """The forms of `startFrom`."""

    EARLIEST = "earliest"
    LATEST = "latest"
    LSN = "lsn"
    WALL = "wall"


class Verdict(Enum):
    """What a change does to the data, from the harmless to the worst."""

    SAFE = "safe"
    RESTARTS = "restarts"
    RE_SNAPSHOTS = "re-snapshots"
    LOSES_POSITION = "loses position"
    DELETES_DATA = "deletes data"


@dataclass(frozen=True, slots=True)
class Effect:
    """What changing one property does, and the sentence that the preview shows for it."""

    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """One backend's row.

    :param pairs: the (source kind, destination kind) pairs that it serves.
    :param default_interval: the engine's own checkpoint interval, as people would write it.
    :param lag_unit: what one of `lagEvents` is.
    :param changes: what changing a property in place does, by property path.
    :param options: keys that `options` may hold; `None` where every key is passed on.
    :param removal: what a delete leaves at the destination.
    :param pause_cost: what a pause costs while it lasts.
    """

    backend: str
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
    options: frozenset[str] | None = None
    automatic: bool = field(default=True)

    def cells(self) -> Iterator[tuple[str, str | None, Cell]]:
        """Every cell with the property that asks for it and the value, `None` for any; `method` is that of a replay."""
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


_EVERY_PAIR = frozenset((source, destination) for source in EndpointKind for destination in EndpointKind)

_SAFE_CHANGES = {
    "desiredState": Effect(Verdict.SAFE, ""),
    "waitFor": Effect(Verdict.SAFE, ""),
    "deletionProtection": Effect(Verdict.SAFE, ""),
    "destination.region": Effect(Verdict.SAFE, ""),
}

MEMORY = Capabilities(
    backend="memory",
    automatic=False,
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
        Feature.WAIT_CAUGHT_UP: Yes(),
        Feature.OPTIONS: Yes('`fail: "text"` makes the stream report that failure'),
    },
    options=frozenset({"fail"}),
    default_interval="0s",
    lag_unit="event",
    removal="the events that it delivered stay until the process ends",
    pause_cost="the events of the pause are delivered on resume",
    changes={
        **_SAFE_CHANGES,
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
    },
)

_PAGES = "litestream ships pages of the database file, not rows"
_RESTART = "its litestream process starts again; nothing is lost, the lag grows for some seconds"

LITESTREAM = Capabilities(
    backend="litestream",
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
            f"{_PAGES}, so a stream is one whole database file; leave it out, or use a database of its own"
        ),
        Feature.FILTER: No(
            f"{_PAGES}, so it cannot leave rows out; leave filter out, and filter where the copy is read"
        ),
        Feature.CHECKPOINT_INTERVAL: Yes("the stream then has a litestream process of its own"),
        Feature.PURGE_DESTINATION: Yes(),
        Feature.WAIT_CAUGHT_UP: Yes(),
        Feature.OPTIONS: Yes("the stream then has a litestream process of its own"),
    },
    default_interval="1s",
    lag_unit="transaction file (one upload; it may hold many commits)",
    pause_cost="the replica stands still, and what is written meanwhile is in no backup until the stream resumes",
    removal="the replica stays and can be restored; the side directory beside the database is removed",
    options=frozenset(
        {
            "monitor-interval",
            "checkpoint-interval",
            "busy-timeout",
            "min-checkpoint-page-count",
            "truncate-page-n",
        }
    ),
    changes={
        **_SAFE_CHANGES,
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

TABLE: Mapping[str, Capabilities] = {row.backend: row for row in (LITESTREAM, MEMORY)}
