"""Restore of a replica to a new file on this host, without an agent. It only reads the destination."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from replicator import authref
from replicator.backends.sqlite import copies, litestream_errors
from replicator.backends.sqlite.database import integrity_faults
from replicator.backends.sqlite.history import History
from replicator.backends.sqlite.litestream import CommandLine, EngineMissing, LtxFile, find_binary
from replicator.backends.sqlite.locations import key_pair
from replicator.backends.sqlite.positions import Position, header_time
from replicator.backends.sqlite.replica import (
    FolderLocation,
    LinkRefused,
    ReplicaError,
    ReplicaLocation,
    S3Credentials,
    engine_environment,
    parse_replica,
)
from replicator.backends.sqlite.targets import refuse_folders_of_engines, refuse_part, target_path
from replicator.errors import (
    DestinationDenied,
    DestinationMissing,
    EngineRefused,
    EngineUnavailable,
    InvalidStream,
    ReplayNotRetained,
    ReplayRefused,
    ReplicatorError,
    SourceDenied,
    SourceFull,
    SourceMissing,
)
from replicator.model import Checkpoint, format_size
from replicator.progress import tell

_LOOK_EVERY = 1.0  # seconds between two looks at how much is written
_MOST = 500  # characters of a text of the engine
_FULL = re.compile(r"no space left|disk.*full", re.IGNORECASE)
_DAMAGE = re.compile(r"decode|checksum|non-contiguous", re.IGNORECASE)
_BY_URL: dict[str, str | None] = {"destination.uri": "URL", "destination.authRef": "--auth-ref"}
"""What the errors of a stream's properties are about, where a URL is given."""

_OPTIONS = {"target": "--to", "start": None, "start.lsn": "--lsn", "start.wall": "--time"}


@dataclass(frozen=True, slots=True)
class Replica:
    """What is restored.

    :param uri: the destination of a stream, as programs write it.
    :param auth_ref: the reference to its key pair; `None` for this host's own role.
    :param stream: the name of the stream that the agent has; `None` for a destination alone.
    """

    uri: str
    auth_ref: str | None
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restore would do.

    :param size: the bytes that it reads.
    :param cut_off: the newest transaction, if a gap before it makes it unrestorable.
    """

    point: Checkpoint
    earliest: Checkpoint
    latest: Checkpoint
    size: int
    target: Path
    cut_off: str | None
    position: Position
    history: History


class Restore:
    """The restore of one replica. Its methods raise errors in the words of the command.

    :param target: an absolute path.
    :param environ: the environment that references are resolved in.
    """

    def __init__(self, replica: Replica, target: Path, environ: Mapping[str, str]) -> None:
        self._replica = replica
        self._target = target_path(str(target))
        self._environ = environ
        self._redact = authref.Redactor()

    async def plan(self, start: Checkpoint | None) -> Plan:
        """Return what a restore of a point would do, of the newest if none is given. Raise `ReplicatorError`."""
        binary = await _find_binary()
        with self._errors():
            place = self._parse()
            self._check_target(place)
            credentials = await self._credentials(place)
            command = CommandLine(binary, engine_environment(credentials))
            history = self._history(command, place, await place.generations(credentials), credentials)
            points = await history.all_points()
            if not points:
                raise await self._nothing(history, place)
            newest = await history.checkpoint(points[-1])
            found = await (history.at(points[-1], newest) if start is None else history.resolve(start))
            last = await history.last()
            return Plan(
                point=await history.checkpoint(found.position),
                earliest=await history.checkpoint(points[0]),
                latest=newest,
                size=found.size,
                target=self._target,
                cut_off=str(last) if last is not None and last > points[-1] else None,
                position=found.position,
                history=history,
            )

    async def run(self, plan: Plan) -> list[str]:
        """Write the database; return the faults that SQLite's integrity check found in it. Raise `ReplicatorError`.

        Where it fails or is cancelled, nothing is left.
        """
        with self._errors(), copies.own_folder(plan.target, self._replica.stream) as work:
            async with _telling(work):
                # The engine would keep no damaged database, and after a loss one may be all that there is.
                await plan.history.write(plan.position, work, integrity="none")
            tell("checking the integrity")
            # While it is in this folder, no other process can write to it.
            faults = await integrity_faults(work.path / copies.NAME)
            work.publish()
        return faults

    def _parse(self) -> ReplicaLocation:
        try:
            return parse_replica(self._replica.uri)
        except ValueError as error:
            raise InvalidStream(str(error), stream=self._replica.stream, property="destination.uri") from None

    def _check_target(self, place: ReplicaLocation) -> None:
        stream, target = self._replica.stream, self._target
        if target.name in ("", ".."):
            raise InvalidStream("must be the path of a file", stream=stream, property="target")
        refuse_part(target, stream)
        copies.refuse_occupied(target, stream)
        refuse_folders_of_engines(target, stream)
        if isinstance(place, FolderLocation) and target.is_relative_to(place.folder.resolve()):
            raise ReplayRefused(
                f"{target} is in the replica", stream=stream, property="target", fix="write to another folder"
            )
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise ReplayRefused(
                f"this user may not write to {target.parent}",
                stream=stream,
                property="target",
                fix="write to another folder",
            )

    async def _credentials(self, place: ReplicaLocation) -> S3Credentials | None:
        reference = self._replica.auth_ref
        if reference is None or isinstance(place, FolderLocation):
            return None
        try:
            found = await key_pair(reference, self._environ, authref.COMMAND, secrets=self._redact)
        except ReplicatorError as error:
            raise type(error)(
                error.message, stream=self._replica.stream, property="destination.authRef", fix=error.fix
            ) from None
        for value in (found.access_key_id, found.secret_access_key):
            self._redact.add(value)
        return found

    def _history(
        self,
        command: CommandLine,
        place: ReplicaLocation,
        generations: list[int],
        credentials: S3Credentials | None,
    ) -> History:
        async def time_of(generation: int, file: LtxFile) -> datetime | None:
            folder = place if generation == 1 else place.child(f"r{generation}")
            content = await folder.read_start(file.level, file.name, credentials)
            return None if content is None else header_time(content)

        return History(command, place, generations, time_of=time_of, meaning=self._meaning, stream=self._replica.stream)

    async def _nothing(self, history: History, place: ReplicaLocation) -> ReplicatorError:
        there = "transactions are there, but not the first one" if await history.last() else "no replica is there"
        return DestinationMissing(
            f"nothing to restore at {place}: {there}", stream=self._replica.stream, property="destination.uri"
        )

    # --- errors ------------------------------------------------------------------------------------------------------

    def _meaning(self, text: str) -> ReplicatorError:
        """Return the error for a text of the engine, which here reads the destination alone."""
        stream, line = self._replica.stream, " ".join(self._redact(text).split())
        if not _DAMAGE.search(line) or _FULL.search(line):
            error = litestream_errors.meaning(line, stream)
            if isinstance(error, SourceDenied):
                return DestinationDenied(error.message, stream=stream, property="destination.uri")
            if error.property != "source.uri" or isinstance(error, SourceFull):
                return error
        return EngineRefused(
            f"litestream says: {line[:_MOST]}",
            stream=stream,
            property="destination.uri",
            fix="run it once more; if it fails again, an object there is damaged or missing: restore another point, by "
            "--lsn or --time",
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except LinkRefused as error:
            found = litestream_errors.of_replica(error, self._replica.stream)
            raise self._restated(found, found.fix) from error
        except ReplicaError as error:
            found = litestream_errors.of_replica(error, self._replica.stream)
            raise self._restated(found, self._fix(found)) from error
        except ReplicatorError as error:
            raise self._restated(error, self._fix(error)) from error

    def _restated(self, error: ReplicatorError, fix: str | None) -> ReplicatorError:
        names = _OPTIONS if self._replica.stream else _OPTIONS | _BY_URL
        option = names.get(error.property, error.property) if error.property else None
        return type(error)(self._redact(error.message), stream=error.stream, property=option, fix=fix)

    def _fix(self, error: ReplicatorError) -> str | None:
        match error:
            case ReplayNotRetained():
                return "restore one of them, by --lsn or --time"
            case DestinationMissing():
                return "give the destination.uri of the stream, with its endpoint and region"
            case DestinationDenied():
                return self._access()
            case EngineUnavailable():
                return "try again when the store answers"
            case SourceFull():
                return f"free space on the disk of {self._target.parent}, or restore to another one"
            case SourceMissing():
                return "make the folder, or name another one"
        return error.fix

    def _access(self) -> str:
        if self._replica.uri.startswith("file:"):
            return "let this user read the folder and all in it, and pass through all above it"
        if self._replica.auth_ref is None:
            return "name a key pair by --auth-ref, or let the role of this host list and read below the prefix"
        named = f"the key pair that {self._replica.auth_ref} names here"
        return f"check {named}, and that it may list and read below the prefix"


async def _find_binary() -> Path:
    try:
        return (await find_binary()).path
    except EngineMissing as error:
        raise litestream_errors.not_installed(error) from error


@asynccontextmanager
async def _telling(work: copies.Work) -> AsyncIterator[None]:
    """Tell how much is written, while this block runs."""

    async def look() -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            tell(f"restoring, {format_size(work.size())} written")

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
