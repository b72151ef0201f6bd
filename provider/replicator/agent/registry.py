"""The agent's registry of streams: one file each, written whole, so that a crash leaves the old one or the new one."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from replicator.backends.sqlite.record import Record, Tombstone
from replicator.errors import AgentFault

M = TypeVar("M", bound=BaseModel)


class FileStore:
    """Records and tombstones below one folder, which only this process writes.

    :param folder: made, with mode 0700, where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._streams = folder / "streams"
        self._tombstones = folder / "tombstones"
        for path in (folder, self._streams, self._tombstones):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._records = {record.name: record for record in _load(self._streams, Record)}
        self._buried = {tombstone.destination: tombstone for tombstone in _load(self._tombstones, Tombstone)}

    def records(self) -> Sequence[Record]:
        return list(self._records.values())

    def get(self, name: str) -> Record | None:
        return self._records.get(name)

    async def put(self, record: Record) -> None:
        await asyncio.to_thread(_write, self._streams / f"{record.name}.json", record)
        self._records[record.name] = record

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(_remove, self._streams / f"{name}.json")
        self._records.pop(name, None)

    def tombstone(self, destination: str) -> Tombstone | None:
        return self._buried.get(destination)

    async def bury(self, tombstone: Tombstone) -> None:
        await asyncio.to_thread(_write, self._grave(tombstone.destination), tombstone)
        self._buried[tombstone.destination] = tombstone

    async def exhume(self, destination: str) -> None:
        await asyncio.to_thread(_remove, self._grave(destination))
        self._buried.pop(destination, None)

    def _grave(self, destination: str) -> Path:
        return self._tombstones / f"{hashlib.sha256(destination.encode()).hexdigest()[:32]}.json"


def _load(folder: Path, model: type[M]) -> list[M]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(model.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise AgentFault(
                f"{path} cannot be read as a {model.__name__.lower()}: {error.error_count()} fields are wrong",
                fix="restore the file from a backup, or move it away and import the stream again",
            ) from None
    return found


def _write(path: Path, model: BaseModel) -> None:
    """Write beside, flush to the disk, and rename over: the name always holds one whole version."""
    beside = path.with_suffix(".tmp")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(model.model_dump_json(exclude_none=True))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _flush_folder(path.parent)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
