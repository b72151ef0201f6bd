"""The log of one stream: its part of what its litestream process printed, or of the file that the process has left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from replicator.backends.sqlite import process_log
from replicator.backends.sqlite.locations import side_folder, source_path
from replicator.backends.sqlite.process_log import LineFilter, Position
from replicator.backends.sqlite.reconciler import Reconciler
from replicator.backends.sqlite.record import StreamRecord
from replicator.errors import EngineRefused
from replicator.model import Mode, Stream
from replicator.replicator import LogLines


async def read(reconciler: Reconciler, record: StreamRecord, after: str | None, lines: int) -> LogLines:
    """Return the lines of a stream, as `Replicator.log` does.

    Raise what the resolution of the stream's secret raises, where the stream has no process: the secret tells which
    process it would be.
    """
    database = source_path(record.stream)
    streams = [other.stream for other in reconciler.store.records() if other.name != record.name]
    others = {path for stream in streams for path in _paths(stream)}
    shown, position = LineFilter(database, others), None if after is None else Position.parse(after)
    daemon, file = reconciler.daemons.of(record.name), None
    if daemon is None:
        daemon, file = reconciler.daemons.last_of(await reconciler.job(record))
    if daemon is not None:
        log = daemon.process.log
        found = await asyncio.to_thread(process_log.of_process, log.lines(), log.end, position, shown, lines)
    else:
        assert file is not None
        found = await _of_file(file, position, shown, lines, record.name)
    notes = (_why_detached(reconciler, record, from_file=daemon is None), found.note)
    note = "; ".join(filter(None, notes)) or None
    redact = reconciler.redact
    return found.model_copy(update={"lines": tuple(map(redact, found.lines)), "note": note and redact(note)})


async def _of_file(file: Path, after: Position | None, shown: LineFilter, lines: int, name: str) -> LogLines:
    try:
        return await asyncio.to_thread(process_log.of_file, file, after, shown, lines)
    except OSError as error:
        raise EngineRefused(
            f"the log file of its litestream process cannot be read: {error}",
            stream=name,
            fix="give the agent's user the right to read it",
        ) from error


def _paths(stream: Stream) -> Iterator[Path]:
    """Yield the paths on this host that belong to a stream."""
    yield source_path(stream)
    yield side_folder(stream)
    destination = urlsplit(stream.destination.uri)
    if destination.scheme == "file":
        yield Path(unquote(destination.path))


def _why_detached(reconciler: Reconciler, record: StreamRecord, *, from_file: bool) -> str | None:
    """Return why no process replicates a stream now, and what to do; `None` if one does, or is about to."""
    name, health = record.name, reconciler.health_of(record.name)
    if reconciler.daemons.of(name) is not None or reconciler.daemons.moving(name):
        return None
    where = "; the lines are from the log file of its last process" if from_file else ""
    if record.stream.mode is Mode.SNAPSHOT and not record.copy_due:
        return f"no litestream process replicates it: it made its one copy{where}"
    if record.paused:
        return f"no litestream process replicates it: it is paused{where}; continue with: replicator resume {name}"
    if health.error:
        return f"no litestream process replicates it: {health.error}{where}"
    return f"no litestream process replicates it{where}; see: replicator status {name}"
