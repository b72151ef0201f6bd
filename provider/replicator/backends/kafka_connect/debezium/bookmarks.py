"""Bookmarks: copies of a stream's slot that stay where they are, so that changes since then can be sent again.

A bookmark's slot has a part of the stream's claim in its name. So all of them are found without a record, also those
that an interrupted change has made, and none is of another stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from replicator.backends.kafka_connect.debezium.details import (
    BookmarkDetails,
    DebeziumDetails,
    details_of,
    own_name,
    slot_of,
)
from replicator.backends.kafka_connect.debezium.log_rewind import read_start
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres import slots
from replicator.backends.postgres.lsn import write_lsn
from replicator.backends.postgres.session import Session
from replicator.backends.postgres.slots import Slot
from replicator.errors import SourceLimit, SourcePosition, SourceSetup
from replicator.model import Stream, format_size, format_time
from replicator.progress import tell
from replicator.replicator import Finding, ReplayMethod, Severity

_NAME_LIMIT = 28  # with a bookmark's name, the claim's part, and two underscores: 62 of 63 characters
_LEFT_WITHIN = 5.0
"""Seconds until a process that copies a bookmark's slot has let it go."""


def claim_word(details: DebeziumDetails) -> str:
    """Return the end of the names of a stream's bookmark slots."""
    return details.claim[: slots.WORD]


def bookmark_slot(stream: Stream, details: DebeziumDetails, name: str) -> str:
    """Return the name of a bookmark's slot."""
    return f"{_prefix(stream)}_{name.replace('-', '_')}_{claim_word(details)}"


def bookmarks_of(record: StreamRecord, found: Mapping[str, Slot]) -> dict[str, Slot]:
    """Return the slots of a stream's bookmarks among others, by the bookmarks' names."""
    start, end = f"{_prefix(record.stream)}_", f"_{claim_word(details_of(record))}"
    return {
        name.removeprefix(start).removesuffix(end).replace("_", "-"): slot
        for name, slot in found.items()
        if name.startswith(start) and name.endswith(end)
    }


async def look(session: Session, record: StreamRecord) -> dict[str, Slot]:
    """Return the slots of a stream's bookmarks, by their names."""
    return bookmarks_of(record, await slots.look(session, (), (claim_word(details_of(record)),)))


async def apply(session: Session, record: StreamRecord) -> DebeziumDetails:
    """Create bookmarks that are new in the declaration, drop those that have left it, and return the details with them.

    A lost one is not re-created: it would be another position.

    :raises SourcePosition: the stream's own slot is lost, or does not exist.
    """
    stream, details = record.stream, details_of(record)
    there = await look(session, record)
    wanted = {*stream.bookmarks, *filter(None, [rewinds_to(record)])}
    kept = {name: known for name, known in details.bookmarks.items() if name in wanted}
    for name in stream.bookmarks:
        if name not in kept:
            tell(f"creating the bookmark {name}")
            slot = there.get(name) or await _copied(session, record, name)
            kept[name] = BookmarkDetails(lsn=write_lsn(slot.confirmed or 0), wall=slot.now)
    for name in there.keys() - wanted:
        await slots.drop(session, there[name].name, _LEFT_WITHIN)
    return details.model_copy(update={"bookmarks": kept})


async def _copied(session: Session, record: StreamRecord, name: str) -> Slot:
    """Return the slot of a new bookmark, which another process may be making too."""
    try:
        return await slots.copy(session, slot_of(record), bookmark_slot(record.stream, details_of(record), name))
    except SourceSetup:
        found = (await look(session, record)).get(name)
        if found is None:
            raise
        return found


def rewinds_to(record: StreamRecord) -> str | None:
    """Return the bookmark that an interrupted replay still has to copy; `None` without one."""
    replay = record.cut_off()
    if replay is None or replay.progress.method is not ReplayMethod.LOG_REWIND:
        return None
    return read_start(replay.start)[1]


async def remove(session: Session, record: StreamRecord) -> None:
    """Drop all bookmarks of a stream."""
    for slot in (await look(session, record)).values():
        await slots.drop(session, slot.name, _LEFT_WITHIN)


def changes_told(old: StreamRecord, stream: Stream) -> Iterator[Finding]:
    """Yield the warnings about bookmarks that are added or removed."""
    known = details_of(old).bookmarks
    for name in sorted(set(stream.bookmarks) - known.keys()):
        yield _warning(
            SourceLimit.code,
            f"the bookmark {name} marks the position of the stream at this update. The server keeps all WAL from there "
            "on until you remove the bookmark, or max_slot_wal_keep_size is reached",
        )
    for name in sorted(known.keys() - set(stream.bookmarks)):
        yield _warning(
            SourcePosition.code,
            f"the bookmark {name} is dropped: no replay can start at {_where(known[name])} any more",
        )


def findings_of(record: StreamRecord, found: Mapping[str, Slot]) -> Iterator[Finding]:
    """Yield what the bookmarks of a stream hold, and which of them are lost."""
    for name, known in details_of(record).bookmarks.items():
        slot = found.get(name)
        if slot is None or slot.is_lost:
            why = "its slot no longer exists" if slot is None else "the server has removed WAL that it needs"
            yield _warning(
                SourcePosition.code,
                f"the bookmark {name} of {_where(known)} is lost: {why}",
                fix="remove it from bookmarks; to mark the current position, add a bookmark with another name",
            )
            continue
        yield Finding(
            severity=Severity.WARNING if slot.is_endangered else Severity.INFO,
            code=SourceLimit.code,
            message=f"the bookmark {name} holds {format_size(max(0, slot.held or 0))} of WAL since {_where(known)} "
            f"(slot {slot.name}, wal_status {slot.wal_status}){slot.room}",
            property="bookmarks",
            fix="remove it from bookmarks, or raise max_slot_wal_keep_size" if slot.is_endangered else None,
        )


def _prefix(stream: Stream) -> str:
    return own_name(stream)[:_NAME_LIMIT]


def _where(known: BookmarkDetails) -> str:
    return f"{known.lsn} ({format_time(known.wall)})"


def _warning(code: str, text: str, fix: str | None = None) -> Finding:
    return Finding(severity=Severity.WARNING, code=code, message=text, property="bookmarks", fix=fix)
