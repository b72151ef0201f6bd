"""Checks of the source and the destination that change nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from replicator.backends.sqlite import database as db
from replicator.backends.sqlite import litestream_errors, wal
from replicator.backends.sqlite.disk_space import room_for, size_of
from replicator.backends.sqlite.locations import parse_location, source_path, takeover_command
from replicator.backends.sqlite.record import FileId, StreamRecord
from replicator.backends.sqlite.replica import PrefixContents, ReplicaError, ReplicaLocation, S3Credentials
from replicator.errors import Category, CopiesAgain, DestinationInUse, ReplicatorError
from replicator.model import DesiredState, Mode, Stream, format_size
from replicator.replicator import Finding, Severity


async def inspect(path: Path) -> FileId:
    """Return the file's identity; raise `DatabaseError` if litestream cannot replicate it."""
    facts = await db.inspect(path)
    if not facts.readable:
        raise db.DatabaseForbidden(path, "the agent may not read it")
    if not facts.is_sqlite:
        raise db.NotADatabase(path, "it is not an SQLite database")
    if not facts.size:
        raise db.NotADatabase(path, "it is empty, and to open it would make a database of it")
    if not facts.writable:
        raise db.DatabaseForbidden(path, "the agent may not write it or its folder, and litestream has to")
    return FileId(device=facts.device, inode=facts.inode)


async def contents(stream: Stream, location: ReplicaLocation, credentials: S3Credentials | None) -> PrefixContents:
    """Return what is stored at a location of a stream."""
    try:
        return await location.list_prefix(credentials)
    except ReplicaError as error:
        raise litestream_errors.of_replica(error, stream.name) from error


def refuse_objects(stream: Stream, location: ReplicaLocation, found: PrefixContents) -> None:
    """Raise `DestinationInUse` where anything is stored at the destination."""
    if not found.objects:
        return
    count = "1 object" if found.objects == 1 else f"{found.objects} objects"
    newest = ""
    if found.newest_txid is not None and found.newest_time is not None:
        newest = f", the newest transaction {found.newest_txid:016x} of {found.newest_time:%Y-%m-%d %H:%M:%S} UTC"
    raise DestinationInUse(
        f"{location} holds {count} that no stream of this agent wrote{newest}",
        stream=stream.name,
        property="destination.uri",
        fix="choose an empty prefix; two writers on one prefix leave only one database restorable"
        + (f". Where their writer is gone for good, run {takeover_command(stream)}" if newest else ""),
    )


async def room(stream: Stream) -> list[Finding]:
    """Return findings about the space for a full copy: it does not fit, or fits only if it compresses."""
    path = source_path(stream)
    try:
        found = await room_for(path, parse_location(stream))
    except OSError:
        return []
    if not found.may_be_too_small:
        return []
    severity = Severity.ERROR if found.is_too_small else Severity.WARNING
    return [Finding.of(litestream_errors.of_database(db.DatabaseFull(path, str(found)), stream.name), severity)]


async def copies_again(record: StreamRecord, stream: Stream, file: FileId, *, restarts: bool) -> list[Finding]:
    """Return findings about what a change that keeps the destination may upload again.

    :param file: the database file's identity now.
    :param restarts: litestream has to be started with other settings.
    """
    resumes = record.paused and stream.desired_state is DesiredState.RUNNING and stream.mode is not Mode.SNAPSHOT
    swapped = record.file is not None and record.file != file
    if not (swapped or record.reseed_due or resumes or (restarts and not record.paused)):
        return []
    path = source_path(stream)
    try:
        size = format_size(await size_of(path))
        lost = resumes and await wal.grown(path) is None
    except OSError:
        return []
    why = None
    if swapped:
        why = f"another file took the place of {path}"
    elif record.reseed_due:
        why = "its replica cannot be continued"
    elif lost:
        why = "the WAL was restarted while the stream was paused"
    if why is not None:
        text = f"re-snapshots, {size}: {why}, so the whole database is copied"
    else:
        text = f"may re-snapshot, {size}: if the application restarts its WAL before litestream holds it, the whole "
        text += "database is copied. Else only what is new is uploaded"
    error = CopiesAgain(text, property="desiredState" if resumes else None)
    return [Finding.of(error, Severity.WARNING if why else Severity.INFO)]


async def findings(*checks: Callable[[], Awaitable[None]]) -> list[Finding]:
    """Run every check, and return each error as a finding. A store that does not answer is a warning: it may later.

    Of two findings with one code on one property, the first one names the cause.
    """
    found: dict[tuple[str, str | None], Finding] = {}
    for check in checks:
        try:
            await check()
        except ReplicatorError as error:
            unsure = error.category is Category.UNAVAILABLE
            finding = Finding.of(error, Severity.WARNING if unsure else Severity.ERROR)
            found.setdefault((finding.code, finding.property), finding)
    return list(found.values())
