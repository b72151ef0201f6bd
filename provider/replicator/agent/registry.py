"""The agent's registry of streams, with one file each. Writes are atomic: a crash leaves the old or the new file."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel

from replicator.agent import files
from replicator.agent.agent_id import agent_id
from replicator.backends.shared.reservations import Ends
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.record import REPAIR, Stored, StreamRecord, Tombstone, unreadable_record
from replicator.backends.sqlite.record_check import ends_of, wrong_field
from replicator.errors import AgentFault

S = TypeVar("S", bound=Stored)

_log = logging.getLogger(__name__)


class FileStore:
    """A store of records and tombstones in one folder, which only this process writes.

    A file that cannot be read is logged and left unchanged; requests for the record that it may hold raise.

    :param folder: created with mode 0700 if it does not exist.
    :param backend: the backend that the records belong to.
    """

    def __init__(self, folder: Path, backend: str = LITESTREAM.kind) -> None:
        self._streams = folder / "streams"
        self._tombstones = folder / "tombstones"
        for path in (folder, self._streams, self._tombstones):
            files.make_folder(path)
        self._agent_id = agent_id(folder)
        records, damaged = _load(self._streams, StreamRecord, backend)
        for path, record in records.items():
            if record.name != path.stem:
                damaged[path] = _log_unreadable(path, f"it holds the record of stream {record.name!r}")
            elif (field := wrong_field(record)) is not None:
                damaged[path] = _log_unreadable(path, f"these fields are wrong: {field}")
        self._records = {record.name: record for path, record in records.items() if path not in damaged}
        self._unreadable = {path.stem: why for path, why in damaged.items()}
        self._unreadable_ends = [_ends(path) for path in damaged]
        tombstones, self._unreadable_tombstones = _load(self._tombstones, Tombstone, backend)
        self._buried = {tombstone.destination: tombstone for tombstone in tombstones.values()}

    @property
    def agent_id(self) -> str:
        return self._agent_id

    @property
    def unreadable(self) -> Mapping[str, str]:
        return MappingProxyType(self._unreadable)

    def records(self) -> Sequence[StreamRecord]:
        return list(self._records.values())

    def ends(self) -> Sequence[Ends]:
        return [*(Ends.of(record.stream) for record in self._records.values()), *self._unreadable_ends]

    def get(self, name: str) -> StreamRecord | None:
        self._refuse_unreadable(name)
        return self._records.get(name)

    async def put(self, record: StreamRecord) -> None:
        self._refuse_unreadable(record.name)
        record = record.upgraded()

        async def put() -> None:
            await asyncio.to_thread(_write, self._stream_file(record.name), record, record.name)
            self._records[record.name] = record

        await _to_its_end(put())

    async def remove(self, name: str) -> None:
        self._refuse_unreadable(name)

        async def remove() -> None:
            await asyncio.to_thread(files.remove, self._stream_file(name), name)
            self._records.pop(name, None)

        await _to_its_end(remove())

    def tombstone(self, destination: str) -> Tombstone | None:
        self._refuse_unreadable_tombstone(destination)
        return self._buried.get(destination)

    async def save_tombstone(self, tombstone: Tombstone) -> None:
        self._refuse_unreadable_tombstone(tombstone.destination)
        await asyncio.to_thread(_write, self._grave(tombstone.destination), tombstone, tombstone.name)
        self._buried[tombstone.destination] = tombstone

    async def delete_tombstone(self, destination: str) -> None:
        self._refuse_unreadable_tombstone(destination)
        await asyncio.to_thread(files.remove, self._grave(destination), None)
        self._buried.pop(destination, None)

    def _stream_file(self, name: str) -> Path:
        return self._streams / f"{name}.json"

    def _grave(self, destination: str) -> Path:
        return self._tombstones / f"{hashlib.sha256(destination.encode()).hexdigest()[:32]}.json"

    def _refuse_unreadable(self, name: str) -> None:
        if (why := self._unreadable.get(name)) is not None:
            raise unreadable_record(name, why)

    def _refuse_unreadable_tombstone(self, destination: str) -> None:
        path = self._grave(destination)
        if (why := self._unreadable_tombstones.get(path)) is not None:
            raise AgentFault(why, fix=REPAIR)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Finish the work even if the caller is cancelled, then cancel: a thread that writes cannot be stopped."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _load(folder: Path, kind: type[S], backend: str) -> tuple[dict[Path, S], dict[Path, str]]:
    """Read every file; return the content of each, and the reasons for those that cannot be read."""
    found: dict[Path, S] = {}
    unreadable: dict[Path, str] = {}
    for path in files.listed(folder):
        try:
            found[path] = kind.read(files.read(path), backend=backend)
        except OSError as error:
            unreadable[path] = _log_unreadable(path, str(error.strerror))
        except ValueError as error:
            unreadable[path] = _log_unreadable(path, str(error))
    return found, unreadable


def _ends(path: Path) -> Ends:
    """Return the ends of a damaged record, as far as readable."""
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        stream = json.loads(files.read(path)).get("stream")
        return ends_of(path.stem, _uri(stream, "source"), _uri(stream, "destination"))
    return Ends(path.stem, None, None)


def _uri(stream: Any, end: str) -> str | None:
    uri = stream[end].get("uri") if isinstance(stream, dict) and isinstance(stream.get(end), dict) else None
    return uri if isinstance(uri, str) else None


def _log_unreadable(path: Path, reason: str) -> str:
    why = f"{path} cannot be read: {reason}"
    _log.error("%s", why)
    return why


def _write(path: Path, model: BaseModel, stream: str) -> None:
    files.write(path, model.model_dump_json(exclude_none=True), stream)
