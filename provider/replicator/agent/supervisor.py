"""A supervisor that keeps one child process running.

A `Supervisor` starts a program in an explicit environment, reads its output line by line, restarts it with growing
delays when it ends, and ends it on `stop`. `on_start` is called after each start; the program is ready when it has
succeeded.

At most one child lives per pid file, even when supervisors are killed. Three mechanisms ensure this. The child dies
with its parent (`replicator.pdeathsig`). The pid file is locked, and the child inherits the lock, which is held while
either lives. A supervisor that finds an orphaned child behind the lock ends it, if the command line matches.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from replicator.agent.private_log import PrivateRotatingFile
from replicator.backends.sqlite.process_log import KeptLine, Position
from replicator.backoff import Backoff
from replicator.lockfile import open_private
from replicator.pdeathsig import die_with_parent

_log = logging.getLogger(__name__)
_CHUNK = 65536  # bytes read at once, and the limit of a line before its rest is dropped
_TAKE_OVER = 3.0  # seconds to wait for the lock
_LINE = 4000  # characters kept of a line
_SAID = 20


class SupervisorError(Exception):
    """A failure to start the child; the text tells why."""


class AlreadySupervised(SupervisorError):
    """Another live process supervises the child of this pid file."""


class ChildState(Enum):
    """A child's state. `STARTING` lasts until `on_start` succeeds; `WAITING` is the delay before the next start."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"


@dataclass(frozen=True)
class Restarts:
    """Delays between starts, in seconds: doubled each time, and reset after a run of `healthy_after`."""

    first: float = 0.5
    most: float = 30.0
    healthy_after: float = 60.0


class LineLog:
    """A log with the last lines in memory, and all lines in a rotating file of mode 0600; both are redacted.

    :ivar end: the position after the last line. It has an id of this log, which an earlier one of the file has not.
    """

    def __init__(
        self,
        path: Path,
        *,
        redact: Callable[[str], str] = str,
        keep: int = 1000,
        max_bytes: int = 2_000_000,
        backups: int = 3,
    ) -> None:
        self._redact = redact
        self._recent: deque[KeptLine] = deque(maxlen=keep)
        self._file = PrivateRotatingFile(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
        self.end = Position(secrets.token_hex(8), 0, *self._end_of_file())

    def write(self, line: str) -> str:
        """Add one line, and return it as it is kept: redacted, and cut after 4,000 characters."""
        text = self._redact(line)  # before the cut, which could leave half a secret
        if len(text) > _LINE:
            text = text[:_LINE] + "…"
        self._file.handle(logging.makeLogRecord({"msg": text}))
        self.end = Position(self.end.log, self.end.number + 1, *self._end_of_file())
        self._recent.append(KeptLine(text, self.end))
        return text

    def tail(self, count: int = 20) -> list[str]:
        """Return the last `count` lines, oldest first."""
        return [line.text for line in self._recent][-count:]

    def lines(self) -> list[KeptLine]:
        """Return the lines in memory, oldest first."""
        return list(self._recent)

    def _end_of_file(self) -> tuple[int, int]:
        """Return the inode and the size in bytes of the file; 0 where a full disk has prevented its creation."""
        try:
            info = Path(self._file.baseFilename).stat()
        except OSError:
            return 0, 0
        return info.st_ino, info.st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Supervisor:
    """One supervised child. `start` and `stop` may be called repeatedly, `start` only on the loop's own thread."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        log: LineLog,
        edit: Callable[[str], str] = str,
        pid_file: Path,
        marker: str,
        on_start: Callable[[], Awaitable[None]],
        before_start: Callable[[], Awaitable[None]] | None = None,
        restarts: Restarts | None = None,
        stop_timeout: float = 15.0,
    ) -> None:
        """Create a supervisor. `argv[0]` is an absolute path; `env` is the child's complete environment.

        `edit` is called with each line of the child's output, and returns it as it is kept.
        `before_start` is awaited before each start; if it fails, the start fails.
        `marker` is a part of the command line that only this child has, such as the path of its configuration.
        `stop_timeout` is the time in seconds between SIGTERM and SIGKILL.
        """
        if not any(marker in argument for argument in argv):
            raise ValueError("the marker is not in the command line")
        self._argv = list(argv)
        self._env = dict(env)
        self.log = log
        self._edit = edit
        self._pid_file = pid_file
        self._marker = marker
        self._on_start = on_start
        self._before_start = before_start
        self._restarts = restarts or Restarts()
        self._stop_timeout = stop_timeout
        self._lock: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._changed = asyncio.Condition()
        self.state = ChildState.STOPPED
        self.pid: int | None = None
        self.starts = 0  # the number of the child's starts
        self.last_exit: int | None = None  # its last exit code, negative for a signal
        self.last_error: str | None = None  # why the last start failed, None after a good one
        self.said: deque[str] = deque(maxlen=_SAID)  # the last lines of the child's output since its start

    async def start(self) -> None:
        """Begin to supervise. Return at once: see `wait_ready`.

        Raise SupervisorError if the program does not exist, AlreadySupervised if another process has this child.
        """
        if self._task is not None:
            return
        if not os.access(self._argv[0], os.X_OK):
            raise SupervisorError(f"{self._argv[0]} is not an executable file")
        self._lock = await _take_over(self._pid_file, self._marker)
        self._stopping.clear()
        self._task = asyncio.create_task(self._supervise(self._lock))

    async def wait_ready(self, timeout: float | None) -> None:
        """Wait until the child is ready. Raise TimeoutError after `timeout` seconds; None means no limit."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: self.state is ChildState.READY)

    async def stop(self) -> None:
        """End the child: SIGTERM, then SIGKILL. The child is dead afterwards, even after a cancellation."""
        if self._task is None:
            return
        self._stopping.set()
        task, self._task = self._task, None
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            if self._lock is not None:
                os.ftruncate(self._lock, 0)  # the file stays: a process that waits for its lock has it open
                os.close(self._lock)
                self._lock = None
            await self._become(ChildState.STOPPED)

    async def _supervise(self, lock: int) -> None:
        backoff = Backoff(self._restarts.first, self._restarts.most)
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await self._become(ChildState.STARTING)
                if await self._call_before_start():
                    await self._run_once(lock)
            except OSError as error:
                self._failed(str(error))
            if self._stopping.is_set():
                return
            if time.monotonic() - began >= self._restarts.healthy_after:
                backoff.reset()
            await self._become(ChildState.WAITING)
            delay = backoff.grow()
            _log.warning("%s ended with %s; next start in %.1f s", self._argv[0], self.last_exit, delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _call_before_start(self) -> bool:
        try:
            if self._before_start is not None:
                await self._before_start()
        except Exception as error:  # on any error, the child must not run
            self._failed(f"{type(error).__name__}: {error}")
            return False
        return True

    async def _run_once(self, lock: int) -> None:
        process = await asyncio.create_subprocess_exec(
            *die_with_parent(self._argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._env,
            pass_fds=[lock],
            start_new_session=True,  # a ^C in the terminal is for this process, which ends the child in order
        )
        self.pid = process.pid
        self.starts += 1
        self.said.clear()
        _write_pid(lock, process.pid)
        reading = asyncio.create_task(self._read(process))
        exited = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        starting = asyncio.create_task(self._call_on_start())
        try:
            await asyncio.wait([exited, stopping, starting], return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and starting.result():
                await asyncio.wait([exited, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.wait([starting, stopping])
            try:
                if not exited.done():
                    await self._terminate(process, exited)
            finally:
                if not exited.done():
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                self.last_exit = await exited
                self.pid = None
                await asyncio.wait([reading], timeout=2.0)  # its last output
                reading.cancel()

    async def _call_on_start(self) -> bool:
        try:
            await self._on_start()
        except Exception as error:  # on any error, the child is not usable
            self._failed(f"{type(error).__name__}: {error}")
            return False
        self.last_error = None
        await self._become(ChildState.READY)
        return True

    def _failed(self, text: str) -> None:
        self.last_error = text
        self.log.write(f"not started: {text}")

    async def _terminate(self, process: asyncio.subprocess.Process, exited: asyncio.Task[int]) -> None:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait([exited], timeout=self._stop_timeout)
        if not exited.done():
            _log.warning("%s did not end within %.0f s of SIGTERM", self._argv[0], self._stop_timeout)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise AssertionError("the child's output is a pipe")
        rest = b""
        dropping = False  # inside a line that was too long
        while chunk := await process.stdout.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not dropping:
                    self._hear(line.decode(errors="replace"))
                dropping = False
            if len(rest) >= _CHUNK:
                if not dropping:
                    self._hear(rest.decode(errors="replace"))
                rest, dropping = b"", True
        if rest and not dropping:
            self._hear(rest.decode(errors="replace"))

    def _hear(self, line: str) -> None:
        self.said.append(self.log.write(self._edit(line)))

    async def _become(self, state: ChildState) -> None:
        async with self._changed:
            self.state = state
            self._changed.notify_all()


async def _take_over(pid_file: Path, marker: str) -> int:
    """Lock `pid_file`, and end an orphaned child that holds the lock. Return the descriptor of the lock."""
    lock = open_private(pid_file)
    deadline = time.monotonic() + _TAKE_OVER
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            child, supervisor = _read_pids(lock)
            # A supervisor that has just been killed may still look alive, so only the deadline decides.
            if time.monotonic() > deadline:
                raise AlreadySupervised(f"process {supervisor} supervises the child of {pid_file}")
            if child is not None and _parent(child) != supervisor and marker in _command_line(child):
                _log.warning("ending process %d, whose supervisor %d has ended", child, supervisor)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            await asyncio.sleep(0.02)
    except BaseException:
        os.close(lock)
        raise


def _read_pids(lock: int) -> tuple[int | None, int | None]:
    try:
        record = json.loads(os.pread(lock, 1000, 0))
        return int(record["child"]), int(record["supervisor"])
    except (ValueError, KeyError, TypeError):
        return None, None  # no child has been started yet


def _write_pid(lock: int, child: int) -> None:
    record = json.dumps({"child": child, "supervisor": os.getpid()}).encode()
    os.pwrite(lock, record.ljust(100), 0)


def _parent(pid: int) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
