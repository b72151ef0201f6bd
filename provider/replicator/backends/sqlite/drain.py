"""The last upload before a delete: changes that are committed but not at the destination yet."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from replicator.backends.sqlite.daemon_process import DaemonProcess, Released
from replicator.backends.sqlite.litestream import EngineError, EngineUnreachable
from replicator.backends.sqlite.reconciler import Reconciler
from replicator.backends.sqlite.record import Phase, StreamRecord
from replicator.backends.sqlite.stream_lock import StreamLock
from replicator.errors import ReplicatorError, SourceFormat, SourceMissing
from replicator.model import Drain
from replicator.progress import tell

_SKIP_WITHIN = 1.0  # seconds
_LOOK_EVERY = 1.0


async def drain(reconciler: Reconciler, lock: StreamLock, record: StreamRecord) -> int | None:
    """Release the database before a delete. Return its last transaction if everything is at the destination.

    Raise if changes that must be uploaded cannot be; the stream then continues.
    """
    if record.stream.drain_before_delete is Drain.SKIP:
        return (await reconciler.daemons.detach(record.name, timeout=_SKIP_WITHIN)).txid
    try:
        has_more = await _has_more(reconciler, record)
        released = await _release(reconciler, lock, record, has_more)
        if has_more and isinstance(released.error, EngineUnreachable):  # litestream died; another process can upload
            released = await _release(reconciler, lock, record, has_more)
        if has_more and released.error:
            raise reconciler.meaning(released.error, record.name)
    except ReplicatorError as error:
        failure = type(error)(
            f"its last changes are not at the destination, so it stays: {error.message}",
            stream=record.name,
            property=error.property,
            fix="delete it again when that is put right; to delete it without those changes, set drainBeforeDelete: "
            "skip, run pulumi up, and delete it then",
        )
        health = reconciler.health_of(record.name)
        if reconciler.daemons.of(record.name) is None:
            health.failed(failure.message)
        else:  # its process keeps trying
            health.stalls(failure.message)
        raise failure from error
    return released.txid


async def _release(reconciler: Reconciler, lock: StreamLock, record: StreamRecord, has_more: bool) -> Released:
    by_person = reconciler.health_of(record.name).by_person
    if has_more and not record.paused and not by_person and reconciler.daemons.of(record.name) is None:
        await reconciler.attach(lock, record, wait=True)
    daemon = reconciler.daemons.of(record.name)
    if not has_more or daemon is None:
        return await reconciler.daemons.detach(record.name)
    with suppress(EngineError):  # the release tries once more, and tells why it fails
        if daemon.copy is not None or not await daemon.uploaded(daemon.jobs[record.name], timeout=0.0):
            await reconciler.reach(record)
            await _see_uploaded(daemon, record)
    return await reconciler.daemons.detach(record.name, patient=True)


async def _see_uploaded(daemon: DaemonProcess, record: StreamRecord) -> None:
    """Wait while the upload makes progress. A stream's own process uploads the rest when it is released."""
    job = daemon.jobs[record.name]
    while daemon.copy is not None or not job.alone:
        tell("uploading the last changes")
        if daemon.copy is not None:
            await asyncio.sleep(_LOOK_EVERY)
        elif await daemon.uploaded(job, timeout=_LOOK_EVERY) or not await daemon.gets_on(job):
            return


async def _has_more(reconciler: Reconciler, record: StreamRecord) -> bool:
    """Tell whether changes may be left that the delete must upload. A missing file has none."""
    if record.phase is not Phase.ACTIVE or record.stream.purge_destination:
        return False
    with suppress(SourceMissing, SourceFormat):
        return record.file is None or await reconciler.file_of(record.stream) == record.file
    return False
