"""The litestream program: its control socket and its command line, with typed answers.

Every call has a deadline. The engine can hang while its destination is unreachable (a `/sync` without a time-out has
blocked for more than a minute), so no call here waits longer than its deadline.

Transaction ids are plain integers; the engine prints them as 16 hex digits (`format_txid`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

from replicator.backends.sqlite.dialect import LITESTREAM, Dialect
from replicator.backends.sqlite.traffic import Traffic
from replicator.http_unix import BrokenError, ConnectError, Response, UnixTransport
from replicator.pdeathsig import die_with_parent

_TEXT_LIMIT = 2000  # characters of the engine's text that an error keeps
_LOOK_EVERY = 1.0  # seconds between two checks of a transfer
_GRACE = 2.0  # seconds from the engine's own time-out to this client's
_JSON = {"Content-Type": "application/json"}
T = TypeVar("T")
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


class EngineError(Exception):
    """The engine refused or failed.

    `operation` is the request or command (`POST /sync`, `restore`), `status` the HTTP status or the exit code, None
    without an answer. `text` is the engine's own, trimmed; it is not redacted.
    """

    def __init__(self, operation: str, status: int | None, text: str) -> None:
        self.operation = operation
        self.status = status
        self.text = text.strip()[-_TEXT_LIMIT:]
        super().__init__(f"{operation}: {self.text}")


class EngineNotStarted(EngineError):
    """The process ended while it started; the text is what it printed.

    :ivar log: the file with all of its output, on this host.
    """

    def __init__(self, text: str, log: Path) -> None:
        super().__init__("start", None, text)
        self.log = log


class EngineTimeout(EngineError):
    """The engine did not answer in time. The effect of the request is unknown."""


class EngineUnreachable(EngineError):
    """No process listens on the control socket."""


class EngineGarbled(EngineError):
    """The answer is not in this engine's format. The effect of the request is unknown."""


class EngineMissing(EngineError):
    """The binary is not installed, or its version is not supported."""


_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


@contextlib.contextmanager
def reading(operation: str) -> Iterator[None]:
    """Raise EngineGarbled where an answer is not in the engine's format."""
    try:
        yield
    except _MALFORMED as error:
        raise EngineGarbled(operation, None, f"its answer to {operation} cannot be read") from error


def whole_number(value: Any) -> int | None:
    """Return a number of an answer; None for 0 or none. Raise ValueError for anything but a 63-bit number."""
    if value is not None and (type(value) is not int or not 0 <= value < 1 << 63):
        raise ValueError("it is no number of 63 bits")
    return value or None


# --- The engine's answers ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registered:
    """With `already`, the path was registered before; the engine then ignores the URL, even a different one."""

    path: Path
    already: bool


@dataclass(frozen=True)
class Unregistered:
    """`txid` is the last local transaction, None if there is none or the path was not registered."""

    path: Path
    already: bool
    txid: int | None


@dataclass(frozen=True)
class Synced:
    """`txid` is the local transaction, `replicated_txid` the one at the destination.

    Both count the engine's batches, not commits. None is unknown: the engine reports 0 before the first upload, and
    also after a later one failed. With `looked`, the answer includes everything committed before the request, because
    the engine has read the WAL for it.
    """

    changed: bool
    txid: int | None
    replicated_txid: int | None
    looked: bool = True


@dataclass(frozen=True)
class ListedDatabase:
    """One database of a daemon. `status` `replicating` means only that it is open: see `last_sync_at`."""

    path: Path
    status: str
    last_sync_at: datetime | None


@dataclass(frozen=True)
class DaemonInfo:
    """The daemon that answers; a new `pid` or `started_at` means that it has forgotten all registrations."""

    version: str
    pid: int
    started_at: datetime
    database_count: int


@dataclass(frozen=True)
class SyncActivity:
    """The last or running sync of one database; `error` reports failures of the first contact only."""

    path: Path
    active: bool
    operation: str | None
    phase: str | None
    started_at: datetime | None
    updated_at: datetime | None
    txid: int | None
    wal_size: int | None
    error: str | None


@dataclass(frozen=True)
class LtxFile:
    """One file of a replica. Level 0 holds single batches, 1 to 3 compacted ones, 9 snapshots.

    `created` is in whole seconds.
    """

    level: int
    min_txid: int
    max_txid: int
    size: int
    created: datetime

    @property
    def name(self) -> str:
        """Return the file's name in the folder of its level."""
        return f"{format_txid(self.min_txid)}-{format_txid(self.max_txid)}.ltx"


@dataclass(frozen=True)
class RestorePlan:
    """The files that a restore would read, and its end: `max_txid`."""

    min_txid: int
    max_txid: int
    files: tuple[LtxFile, ...]


@dataclass(frozen=True)
class Restored:
    """A database written to `path`, as of `txid`."""

    path: Path
    txid: int
    duration_seconds: float


# --- The control socket --------------------------------------------------------------------------------------------


class ControlClient:
    """A client of the daemon's HTTP on its Unix socket. Close it with `aclose`, or use it as an async context manager.

    All time-outs are seconds. Methods raise EngineError with the HTTP status, EngineTimeout, or EngineUnreachable.
    """

    def __init__(self, socket_path: Path, *, dialect: Dialect = LITESTREAM) -> None:
        self._socket = socket_path
        self._dialect = dialect
        self._http = UnixTransport(socket_path)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def register(self, path: Path, replica_url: str, *, timeout: float = 10.0) -> Registered:
        """Start replicating `path`. The engine checks neither the file nor the destination; its first sync does.

        A registered database is uploaded each second, regardless of the daemon's configuration. Raise ValueError for a
        path that the engine would misread.
        """
        body = {"path": checked_path(path), "replica_url": replica_url}
        answer = await self._post("/register", body, timeout, limit=None)
        with reading("POST /register"):
            return Registered(Path(answer["path"]), already=answer["status"] == self._dialect.already_registered)

    async def unregister(self, path: Path, *, timeout: float = 30.0) -> Unregistered:
        """Upload what is left, then forget `path`, even if the upload fails (EngineError)."""
        answer = await self._post("/unregister", {"path": str(path)}, timeout, limit=timeout)
        with reading("POST /unregister"):
            already = answer["status"] == self._dialect.already_unregistered
            return Unregistered(Path(answer["path"]), already=already, txid=whole_number(answer.get("txid")))

    async def txid(self, path: Path, *, timeout: float = 5.0) -> int | None:
        """Return the last local transaction, None before the first."""
        answer = await self._get("/txid", {"path": str(path)}, timeout)
        with reading("GET /txid"):
            return whole_number(answer["txid"])

    async def list_databases(self, *, timeout: float = 5.0) -> list[ListedDatabase]:
        """Return all databases, in the order of their registration.

        The engine does not answer (EngineTimeout) while any database waits for the first contact with an unreachable
        destination; `sync_status`, `info`, `txid` and syncs of other databases still work. Malformed entries are left
        out.
        """
        answer = await self._get("/list", {}, timeout)
        with reading("GET /list"):
            return _readable(answer["databases"], _listed)

    async def info(self, *, timeout: float = 5.0) -> DaemonInfo:
        """Return the identity of the daemon."""
        answer = await self._get("/info", {}, timeout)
        with reading("GET /info"):
            pid, started_at = whole_number(answer["pid"]), _time(answer["started_at"])
            if pid is None or started_at is None:
                raise ValueError("it does not say which daemon it is")
            return DaemonInfo(str(answer["version"]), pid, started_at, whole_number(answer["database_count"]) or 0)

    async def sync_status(self, path: Path | None = None, *, timeout: float = 5.0) -> dict[Path, SyncActivity]:
        """Return the sync activity of one database or of all."""
        answer = await self._get("/debug/sync-status", {"path": str(path)} if path else {}, timeout)
        with reading("GET /debug/sync-status"):
            return {activity.path: activity for activity in _readable(answer["databases"], _activity)}

    async def _post(self, route: str, body: dict[str, Any], timeout: float, *, limit: float | None) -> dict[str, Any]:
        if limit is not None:
            body = {**body, "timeout": max(1, math.ceil(limit))}  # whole seconds; 0 would be the engine's default
            timeout = body["timeout"] + _GRACE
        return await self._send("POST", route, timeout, json.dumps(body).encode())

    async def _get(self, route: str, query: dict[str, str], timeout: float) -> dict[str, Any]:
        return await self._send("GET", f"{route}?{urlencode(query)}" if query else route, timeout)

    async def _send(self, method: str, target: str, timeout: float, content: bytes = b"") -> dict[str, Any]:
        operation = f"{method} {target.partition('?')[0]}"
        try:
            async with asyncio.timeout(timeout):
                reply = await self._http.request(method, target, _JSON, content)
        except TimeoutError:
            raise EngineTimeout(operation, None, f"no answer within {timeout:g} s") from None
        except (ConnectError, BrokenError) as error:
            raise EngineUnreachable(operation, None, f"{self._socket}: {error}") from error
        if reply.status != HTTPStatus.OK:
            raise EngineError(operation, reply.status, _error_text(reply))
        with reading(operation):
            answer = json.loads(reply.content)
            if not isinstance(answer, dict):
                raise TypeError("it is no object")
        return answer


def _error_text(reply: Response) -> str:
    try:
        body = json.loads(reply.content)
        return ": ".join(part for part in (body["error"], body.get("details")) if part)
    except _MALFORMED:
        return reply.content.decode(errors="replace")


def _readable(items: Any, read: Callable[[Any], T]) -> list[T]:
    """Return the readable items: a malformed entry of one database does not affect the others."""
    found = []
    for item in items:
        with contextlib.suppress(*_MALFORMED):
            found.append(read(item))
    return found


def _listed(item: Any) -> ListedDatabase:
    return ListedDatabase(Path(item["path"]), str(item["status"]), _time(item.get("last_sync_at")))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _activity(item: Any) -> SyncActivity:
    return SyncActivity(
        path=Path(item["path"]),
        active=bool(item["active"]),
        operation=_text(item.get("operation")),
        phase=_text(item.get("phase")),
        started_at=_time(item.get("started_at")),
        updated_at=_time(item.get("updated_at")),
        txid=whole_number(item.get("txid")),
        wal_size=whole_number(item.get("wal_size")),
        error=_text(item.get("error")),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


# --- The command line ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Binary:
    """An engine's program of a known version."""

    path: Path
    version: str


async def find_binary(dialect: Dialect = LITESTREAM) -> Binary:
    """Return the engine's program: beside the running interpreter, else on PATH.

    Raise EngineMissing if there is none, or if its version is not in the supported minor series.
    """
    beside = Path(sys.executable).parent / dialect.binary
    found = str(beside) if beside.exists() else shutil.which(dialect.binary)
    if found is None:
        raise EngineMissing("version", None, f"{dialect.binary} is neither in {beside.parent} nor on PATH")
    path = Path(found)
    text = (await _run([str(path), "version"], env={}, timeout=10.0, operation="version")).strip()
    match = _VERSION.fullmatch(text)
    version = tuple(int(part) for part in match.groups()) if match else (0, 0, 0)
    least = dialect.minimum_version
    if version[:2] != least[:2] or version < least:
        wanted = f"{least[0]}.{least[1]}.x, from {'.'.join(map(str, least))} on"
        raise EngineMissing("version", None, f"{path} is version {text!r}; we know {wanted}")
    return Binary(path, text)


class CommandLine:
    """The program as a command, in an explicit environment (see `replica.engine_environment`).

    All time-outs are seconds. A command is killed when it exceeds its time-out, its transfer stalls
    (`traffic.STILL_FOR`), or its caller is cancelled. Commands die with this process too: an upload that continued
    alone would be a second writer. Methods raise EngineError or EngineTimeout.
    """

    def __init__(self, binary: Path, env: Mapping[str, str]) -> None:
        self._binary = binary
        self._env = env

    async def ltx(self, replica_url: str) -> list[LtxFile]:
        """Return all files of a replica on all levels; an empty list without a replica."""
        text = await self._transfer(["ltx", "-level", "all", "-json", replica_url], Traffic(received=True))
        with reading("ltx"):
            return [_ltx_file(item) for item in json.loads(text) or []]

    async def plan_restore(
        self, replica_url: str, *, txid: int | None = None, timestamp: datetime | None = None
    ) -> RestorePlan:
        """Return what `restore` would read. The engine refuses a point that is not retained (EngineError)."""
        # The plan needs the name of an output; the engine neither creates nor reads it.
        point = _point(txid, timestamp)
        arguments = ["restore", "-dry-run", "-json", *point, "-o", "plan", replica_url]
        text = await self._transfer(arguments, Traffic(received=True))
        with reading("restore"):
            plan = json.loads(text)
            files = tuple(_ltx_file(item) for item in plan["files"])
            return RestorePlan(int(plan["min_txid"], 16), int(plan["max_txid"], 16), files)

    async def restore(
        self,
        replica_url: str,
        output: Path,
        *,
        txid: int | None = None,
        timestamp: datetime | None = None,
        integrity: str = "full",
        folder: Path | None = None,
    ) -> Restored:
        """Write the database of a replica to `output`, which must not exist. There is no time limit while data moves.

        `folder` is the working directory, for a relative `output`.

        `txid` (inclusive) or `timestamp` selects the point, the newest if neither is given. The engine refuses a time
        after the last batch. `integrity` is none, quick or full, SQLite's own check.
        """
        arguments = ["-json", "-integrity-check", integrity, *_point(txid, timestamp), "-o", str(output), replica_url]
        text = await self._transfer(["restore", *arguments], Traffic(received=True), folder)
        with reading("restore"):
            result = json.loads(text)
            return Restored(Path(result["db_path"]), int(result["txid"], 16), result["duration_ms"] / 1000)

    async def reset(self, database: Path, *, timeout: float = 60.0) -> None:
        """Delete the engine's local files of `database`. This alone does not make the next upload a snapshot."""
        argv = [str(self._binary), "reset", checked_path(database)]
        await _run(argv, env=self._env, timeout=timeout, operation="reset")

    async def replicate_once(self, database: Path, replica_url: str, *, force_snapshot: bool = True) -> None:
        """Upload new changes and, with `force_snapshot`, the whole database. There is no time limit while data moves.

        No daemon may hold `database` during the upload.
        """
        flags = ["-once", "-force-snapshot"] if force_snapshot else ["-once"]
        await self._transfer(["replicate", *flags, checked_path(database), replica_url], Traffic())

    async def _transfer(self, arguments: Sequence[str], traffic: Traffic, folder: Path | None = None) -> str:
        argv = [str(self._binary), *arguments]
        return await _run(argv, env=self._env, traffic=traffic, operation=arguments[0], folder=folder)


def checked_path(database: Path) -> str:
    """Return the path of a database in the form that the engine reads.

    Raise ValueError for a relative path, and for '?', '#' and '%': the engine puts the path into a SQLite URI without
    escapes, and would then open, change or even create another file.
    """
    text = str(database)
    if not database.is_absolute() or any(char in "?#%" or ord(char) < 32 for char in text):
        raise ValueError(
            f"{text!r}: litestream needs an absolute path without '?', '#', '%' and control characters; "
            "it would open another file"
        )
    return text


def format_txid(txid: int) -> str:
    """Return a transaction id as the engine prints it: 16 hex digits."""
    return f"{txid:016x}"


def _point(txid: int | None, timestamp: datetime | None) -> list[str]:
    if txid is not None and timestamp is not None:
        raise ValueError("a restore has a txid or a timestamp, not both")
    if txid is not None:
        return ["-txid", format_txid(txid)]
    if timestamp is not None:
        return ["-timestamp", timestamp.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")]
    return []


def _ltx_file(item: dict[str, Any]) -> LtxFile:
    return LtxFile(
        level=item["level"],
        min_txid=int(item["min_txid"], 16),
        max_txid=int(item["max_txid"], 16),
        size=item["size"],
        created=datetime.fromisoformat(item["timestamp"]).astimezone(UTC),
    )


async def _run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    operation: str,
    timeout: float | None = None,
    traffic: Traffic | None = None,
    folder: Path | None = None,
) -> str:
    process = await asyncio.create_subprocess_exec(
        *die_with_parent(argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env),
        cwd=folder,
        start_new_session=True,
    )
    ended = asyncio.create_task(process.communicate())
    try:
        async with asyncio.timeout(timeout):
            while not (await asyncio.wait([ended], timeout=_LOOK_EVERY if traffic else None))[0]:
                if traffic and not traffic.moves(process.pid):
                    raise EngineTimeout(operation, None, "timed out: it moves no data any more")
            output, errors = await ended
    except TimeoutError:
        raise EngineTimeout(operation, None, f"not finished within {timeout:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
        ended.cancel()
    if process.returncode != 0:
        raise EngineError(operation, process.returncode, _last_words(errors, output))
    return output.decode(errors="replace")


def _last_words(errors: bytes, output: bytes) -> str:
    text = (errors.strip() or output.strip()).decode(errors="replace")
    said = [line for line in text.splitlines() if line.startswith("Error: ")]
    return said[-1].removeprefix("Error: ") if said else text
