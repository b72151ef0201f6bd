"""The start of a stream that goes on from the bookmark which a deleted stream of its name has left."""

from __future__ import annotations

from replicator.backends.kafka_connect.debezium import log_rewind
from replicator.backends.kafka_connect.debezium.details import own_name
from replicator.backends.kafka_connect.debezium.publication_note import filtered_since
from replicator.backends.kafka_connect.debezium.source_objects import FoundObjects
from replicator.backends.postgres.lsn import read_lsn, write_lsn
from replicator.backends.postgres.session import Session
from replicator.errors import InvalidStream, ReplayNotRetained, SourcePosition
from replicator.model import Checkpoint, Stream


async def start_of(session: Session, stream: Stream, found: FoundObjects) -> int | None:
    """Return the LSN that a new stream begins after; `None` for one that begins now.

    :param found: what exists under the stream's name, and may be taken.
    :raises SourcePosition: nothing was left from which it could go on.
    :raises ReplayNotRetained: the start is before what was left, or past the end of the source.
    """
    wanted = stream.start_from
    if wanted is None:
        return None
    slot = found.slot
    if slot is None or slot.confirmed is None or slot.is_lost:
        raise SourcePosition(
            "the database has no bookmark of a deleted stream of this name, and a new slot starts now"
            if slot is None
            else f"the server has removed WAL that the bookmark {slot.name} needs",
            stream=stream.name,
            property="startFrom",
            fix="leave startFrom out. A stream that is deleted with onDelete: keepBookmark leaves a bookmark",
        )
    earliest = _earliest(stream, found, slot.confirmed)
    if not isinstance(wanted, Checkpoint):
        if earliest > slot.confirmed:
            raise ReplayNotRetained(
                f"the bookmark is at {write_lsn(slot.confirmed)}, and the current filter applies since "
                f"{write_lsn(earliest)}: changes between would be sent by the filter of that time",
                stream=stream.name,
                property="startFrom",
                fix=f"to leave them out, write startFrom: {{lsn: {write_lsn(earliest)}}}; or drop the bookmark, and "
                "begin with a snapshot",
            )
        return earliest
    at = await log_rewind.lsn_at(session, stream, wanted)
    late = wanted.wall is not None and wanted.wall > slot.now
    if at is None or at < earliest or at > slot.end or late:
        raise ReplayNotRetained(
            f"the bookmark holds the changes committed since {write_lsn(earliest)}, and the source is at "
            f"{write_lsn(slot.end)}",
            stream=stream.name,
            property="startFrom",
            fix="write startFrom: earliest, or a position between the two; a later update can leave startFrom out",
        )
    return at


def _earliest(stream: Stream, found: FoundObjects, confirmed: int) -> int:
    """Return the first position from which on every change has passed the current filter."""
    since = filtered_since(found.publication)
    if since is None:
        raise InvalidStream(
            f"the publication {own_name(stream)} was changed manually, so it is not known which rows "
            "passed its filter since then",
            stream=stream.name,
            property="startFrom",
            fix="leave startFrom out, and drop the bookmark, as the error without it says",
        )
    return max(confirmed, read_lsn(since))
