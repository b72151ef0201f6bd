"""Replay of the changes themselves: Debezium reads them from the write-ahead log again.

A slot sends every transaction that was committed after the position that its consumer asks for, from the position on
that the slot has confirmed. So changes can come again from what the stream's own slot has not confirmed yet, and from a
bookmark, of which the stream's slot is then made again. (Seen on Debezium 3.7: with `lsn` alone in the stored offset,
each later transaction is sent whole, whatever was written before it.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from replicator.backends.kafka_connect.debezium.details import (
    BookmarkDetails,
    details_of,
    heartbeat_table,
    publication_of,
    slot_of,
)
from replicator.backends.kafka_connect.debezium.positions import Position
from replicator.backends.kafka_connect.debezium.publication_note import filtered_since, note_of
from replicator.backends.kafka_connect.recipe import ResolvedReplay
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres.lsn import read_lsn, write_lsn
from replicator.backends.postgres.publications import Publication
from replicator.backends.postgres.session import Session
from replicator.backends.postgres.slots import Slot
from replicator.errors import InvalidStream, ReplayNotRetained, ReplayRefused, SourceMissing
from replicator.model import BOOKMARK_NAME, Checkpoint, Stream, format_size
from replicator.replicator import ReplayMethod, ReplayPlan

NO_BOOKMARK = (
    "use method resnapshot, which reads the rows as they are now; or set back the offsets of the topics' consumers. To "
    "replay changes in the future, add a bookmark before them: bookmarks"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A slot from which changes can be sent again.

    :param bookmark: its name; `None` for the stream's own slot.
    """

    slot: Slot
    bookmark: str | None = None

    @property
    def at(self) -> int:
        """Return the LSN after which it holds every transaction."""
        return self.slot.confirmed or 0


@dataclass(frozen=True, slots=True)
class Log:
    """What of a stream's log can be sent again.

    :param places: the slots that hold it, with none that is lost.
    :param publication: the tables and filters by which it is decoded.
    """

    places: tuple[Place, ...]
    publication: Publication | None

    @property
    def earliest(self) -> Place | None:
        """Return the place that holds most."""
        return min(self.places, key=lambda place: place.at, default=None)

    def place(self, at: int) -> Place | None:
        """Return the nearest place that holds a position; the stream's own slot, if that does."""
        found = [place for place in self.places if place.at <= at]
        return max(found, key=lambda place: (place.bookmark is None, place.at), default=None)


def log_of(slot: Slot | None, bookmarks: Mapping[str, Slot], publication: Publication | None) -> Log:
    """Return what can be sent again of a stream with these objects."""
    own = [Place(slot)] if slot is not None and not slot.is_lost else []
    marked = [Place(found, name) for name, found in bookmarks.items() if not found.is_lost]
    return Log((*own, *marked), publication)


def named(record: StreamRecord, start: Checkpoint) -> Checkpoint:
    """Return a start with the LSN of the bookmark that it names; raise `InvalidStream` for an unknown one."""
    name = start.lsn
    if name is None or not re.fullmatch(BOOKMARK_NAME, name):
        return start
    there = details_of(record).bookmarks
    if name not in there:
        raise InvalidStream(
            f"{name!r} is no bookmark of the stream; it has {', '.join(sorted(there)) or 'none'}",
            stream=record.stream.name,
            property="lsn",
            fix="write the name of a bookmark, or an LSN as in 16/B374D848",
        )
    return start.model_copy(update={"lsn": there[name].lsn})


async def lsn_at(
    session: Session, stream: Stream, start: Checkpoint, bookmarks: Iterable[BookmarkDetails] = ()
) -> int | None:
    """Return the LSN after which every transaction since a start was committed; `None` if nothing tells.

    Heartbeats and bookmarks tell where the log was at a time. Between two of them it is the earlier one.
    """
    if start.lsn is not None:
        return read_lsn(start.lsn)
    marks = [read_lsn(known.lsn) for known in bookmarks if known.wall <= _wall(start)]
    return max([*marks, *await _heartbeat_before(session, stream, _wall(start))], default=None)


async def _heartbeat_before(session: Session, stream: Stream, wall: datetime) -> Iterable[int]:
    query = f"SELECT lsn::text AS lsn FROM {heartbeat_table(stream).sql} WHERE at <= %(wall)s ORDER BY at DESC LIMIT 1"  # noqa: S608
    try:
        return [read_lsn(row["lsn"]) for row in await session.rows(query, {"wall": wall})]
    except SourceMissing:  # somebody dropped the table, which the publication tells too
        return []


def resolve(
    record: StreamRecord, log: Log, position: Position, sent: int, start: Checkpoint, at: int | None
) -> ResolvedReplay:
    """Return the effect of sending everything again that was committed since a start; raise what it would raise.

    A start after `sent` is moved back to it: changes between have not been sent yet.

    :param sent: every transaction that was committed up to this LSN has been sent.
    :param at: the LSN of the start; `None` if nothing tells.
    """
    name = record.stream.name
    _refuse_in_snapshot(name, position)
    late = at is not None and at > sent
    at = sent if late else at
    place = log.place(at) if at is not None else None
    if at is None or place is None:
        raise _not_retained(record, log)
    _refuse_other_filter(record, log, at)
    end = place.slot.end
    now = Checkpoint(lsn=write_lsn(end), wall=datetime.now(UTC))
    return ResolvedReplay(
        plan=ReplayPlan(
            stream=name,
            method=ReplayMethod.LOG_REWIND,
            start=start,
            resolved=Checkpoint(lsn=write_lsn(at), wall=start.wall),
            events=None,
            duplicates=True,
            earliest=_earliest(record, log),
            latest=now,
            effects=_effects(record, place, at, late=late, known=note_of(log.publication) is not None),
        ),
        start=f"{write_lsn(at)} {place.bookmark or ''}".strip(),
        until="",
        extent="one position",
    )


def read_start(text: str) -> tuple[int, str | None]:
    """Return the LSN and the bookmark of a recorded replay."""
    lsn, _, bookmark = text.partition(" ")
    return read_lsn(lsn), bookmark or None


def _not_retained(record: StreamRecord, log: Log) -> ReplayNotRetained:
    """Return the error for a start that no slot holds."""
    earliest = _earliest(record, log)
    what = f"the earliest is {earliest.lsn}" if earliest else "no slot of the stream is left"
    marked = [place.bookmark for place in log.places if place.bookmark]
    by = f" ({', '.join(sorted(marked))})" if marked else ""
    return ReplayNotRetained(
        f"no slot of the stream holds the changes since this start; {what}{by}",
        stream=record.stream.name,
        property="start",
        fix=NO_BOOKMARK,
    )


def _earliest(record: StreamRecord, log: Log) -> Checkpoint | None:
    place = log.earliest
    if place is None:
        return None
    known = details_of(record).bookmarks.get(place.bookmark or "")
    since = filtered_since(log.publication)
    at = max(place.at, read_lsn(since)) if since else place.at
    return Checkpoint(lsn=write_lsn(at), wall=known.wall if known and at == place.at else None)


def _refuse_in_snapshot(name: str, position: Position) -> None:
    """Raise `ReplayRefused` while rows are read: the position that a replay sets says nothing of the rest of them."""
    if position.lsn is None or position.in_snapshot:
        raise ReplayRefused(
            "it is reading its tables, or has no position yet, and a replay would end that",
            stream=name,
            fix="wait until replicator status shows a checkpoint and the state running, and replay then",
        )


def _refuse_other_filter(record: StreamRecord, log: Log, at: int) -> None:
    """Raise `ReplayRefused` if other rows would be sent than the current filter lets through.

    PostgreSQL decodes a change with the publication as it was when the change was written.
    """
    stream = record.stream
    since, is_ours = filtered_since(log.publication), note_of(log.publication) is not None
    if not is_ours and stream.filter is None:
        return
    fix = "start later; or use method resnapshot, which reads the rows with the current filter"
    if since is None:
        why = "was changed manually" if is_ours else "was created by an administrator"
        raise ReplayRefused(
            f"the publication {publication_of(record)} {why}, so it is not known which rows passed its filter since "
            "then",
            stream=stream.name,
            property="start",
            fix=fix.removeprefix("start later; or "),
        )
    if at < read_lsn(since):
        raise ReplayRefused(
            f"the current filter applies since {since}; earlier changes would be sent by the filter of that time",
            stream=stream.name,
            property="start",
            fix=fix,
        )


def _effects(record: StreamRecord, place: Place, at: int, *, late: bool, known: bool) -> tuple[str, ...]:
    """Return what a replay does.

    :param late: the start is after the position.
    :param known: the stream made its publication, and so knows what that has published.
    """
    size = format_size(max(0, place.slot.end - at))
    unsent = f"the stream has not sent all changes before the start, so they are sent from {write_lsn(at)} on"
    other = "an administrator created the publication: changes are sent by its tables and filters of that time"
    swapped = (
        f"the replication slot {slot_of(record)} is dropped and re-created at the bookmark {place.bookmark}; "
        "the bookmark stays"
        if place.bookmark
        else None
    )
    tables = details_of(record).tables.values()
    resnapshots = [item for item in record.replays if item.progress.method is ReplayMethod.RESNAPSHOT]
    signalled = bool(resnapshots) or any(table.snapshots for table in tables)
    effects = (
        f"every change committed since {write_lsn(at)} is sent once more, in the same order ({size} of WAL); readers "
        "of the topics see older versions of rows until the replay has caught up",
        unsent if late else None,
        None if known else other,
        swapped,
        "snapshots that were requested after the start run once more" if signalled else None,
        "the connector stops for some seconds; changes that are committed meanwhile follow",
    )
    return tuple(text for text in effects if text)


def _wall(start: Checkpoint) -> datetime:
    assert start.wall is not None
    return start.wall
