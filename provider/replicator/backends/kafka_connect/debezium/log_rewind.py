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

from replicator.backends.kafka_connect.debezium.details import BookmarkDetails, details_of, heartbeat_table, slot_name
from replicator.backends.kafka_connect.debezium.publication_note import filtered_since, note_of
from replicator.backends.kafka_connect.recipe import ResolvedReplay
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres.lsn import read_lsn, write_lsn
from replicator.backends.postgres.publications import Publication
from replicator.backends.postgres.session import Session
from replicator.backends.postgres.slots import Slot
from replicator.errors import InvalidStream, ReplayNotRetained, ReplayRefused, ReplicatorError
from replicator.model import BOOKMARK_NAME, Checkpoint, Stream, format_size
from replicator.replicator import ReplayMethod, ReplayPlan

NO_BOOKMARK = (
    "use method resnapshot, which reads the rows as they are now; or set back the offsets of the topics' consumers. "
    "A bookmark that is made before keeps later changes: bookmarks"
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
    except ReplicatorError:  # the table was dropped by hand, which the publication tells too
        return []


def resolve(record: StreamRecord, log: Log, start: Checkpoint, at: int | None) -> ResolvedReplay:
    """Return the effect of sending everything again that was committed since a start; raise what it would raise.

    :param at: the LSN of the start; `None` if nothing tells.
    """
    name = record.stream.name
    place = log.place(at) if at is not None else None
    if at is None or place is None:
        raise not_retained(record, log)
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
            effects=_effects(record, log, place, at),
        ),
        start=f"{write_lsn(at)} {place.bookmark or ''}".strip(),
        until="",
        extent="one position",
    )


def read_start(text: str) -> tuple[int, str | None]:
    """Return the LSN and the bookmark of a recorded replay."""
    lsn, _, bookmark = text.partition(" ")
    return read_lsn(lsn), bookmark or None


def not_retained(record: StreamRecord, log: Log) -> ReplayNotRetained:
    """Return the error for a start that no slot holds."""
    earliest = _earliest(record, log)
    what = f"the earliest is {earliest.lsn}" if earliest else "no slot of the stream is left"
    marked = [place.bookmark for place in log.places if place.bookmark]
    by = f" ({', '.join(sorted(marked))})" if marked else ""
    return ReplayNotRetained(
        f"no slot of the stream holds the changes since then; {what}{by}",
        stream=record.stream.name,
        property="start",
        fix=NO_BOOKMARK,
    )


def _earliest(record: StreamRecord, log: Log) -> Checkpoint | None:
    place = log.earliest
    if place is None:
        return None
    known = details_of(record).bookmarks.get(place.bookmark or "")
    since = filtered_since(log.publication) if record.stream.filter else None
    at = max(place.at, read_lsn(since)) if since else place.at
    return Checkpoint(lsn=write_lsn(at), wall=known.wall if known and at == place.at else None)


def _refuse_other_filter(record: StreamRecord, log: Log, at: int) -> None:
    """Raise `ReplayRefused` if rows could pass that the filter of now does not let through.

    What is decoded again passes the publication as it was when it was written.
    """
    stream = record.stream
    if stream.filter is None:
        return
    since = filtered_since(log.publication)
    fix = "start later; or use method resnapshot, which reads the rows under the filter of now"
    if since is None:
        why = "was changed by hand" if note_of(log.publication) else "was made by an administrator"
        raise ReplayRefused(
            f"the publication {slot_name(stream)} {why}, so what passed its filter since then is not known",
            stream=stream.name,
            property="start",
            fix=fix.removeprefix("start later; or "),
        )
    if at < read_lsn(since):
        raise ReplayRefused(
            f"the filter of now holds since {since}, and changes of before would come by the filter of then",
            stream=stream.name,
            property="start",
            fix=fix,
        )


def _effects(record: StreamRecord, log: Log, place: Place, at: int) -> tuple[str, ...]:
    size = format_size(max(0, place.slot.end - at))
    since = filtered_since(log.publication)
    other = (
        f"the publication has the filters of now since {since}; changes of before come by those of then"
        if since and at < read_lsn(since)
        else None
    )
    swapped = (
        f"the replication slot {slot_name(record.stream)} is dropped, and made again where the bookmark "
        f"{place.bookmark} is, which stays"
        if place.bookmark
        else None
    )
    tables = details_of(record).tables.values()
    resnapshots = [item for item in record.replays if item.progress.method is ReplayMethod.RESNAPSHOT]
    signalled = bool(resnapshots) or any(table.snapshots for table in tables)
    effects = (
        f"every change that was committed since {write_lsn(at)} is sent once more, in the order of before: {size} of "
        "WAL; readers of the topics see rows as they were, until the replay has caught up",
        other,
        swapped,
        "tables that were read while the stream ran, if that was since then, are read once more" if signalled else None,
        "the connector stops for some seconds; changes that are committed meanwhile follow",
    )
    return tuple(text for text in effects if text)


def _wall(start: Checkpoint) -> datetime:
    assert start.wall is not None
    return start.wall
