"""The agent's policy file: its path, its allowed writers, and its current content."""

from __future__ import annotations

import errno
import logging
import os
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from replicator.backends.sqlite.grants import Policy
from replicator.backends.sqlite.handles import Untrusted, opened, read_trusted
from replicator.errors import InvalidConfig, PolicyUnusable
from replicator.home import home

_LIMIT = 1 << 20  # bytes
_NOWHERE = (errno.ENOENT, errno.ENOTDIR)
_HEAD = """\
# What this agent grants to whoever may write to its socket. What is not here is refused, and the error prints the lines
# to add. The agent reads this file again when it has changed.
"""
_EXAMPLE = """
# [[source]]
# folder = "/var/lib/shop"
#
# [[destination]]
# uri = "s3://backups/orders?endpoint=https://s3.example.com"
# authRef = "env://SHOP_*"
#
# [[replay]]
# folder = "/var/lib/restored"
"""

_log = logging.getLogger(__name__)


def default_policy() -> Path:
    """Return `/etc/replicator/agent.toml` for root, else `replicator/agent.toml` in the user's configuration folder."""
    if os.geteuid() == 0:
        return Path("/etc/replicator/agent.toml")
    configured = os.environ.get("XDG_CONFIG_HOME")
    if not configured:
        return home("the policy file", "--policy or XDG_CONFIG_HOME") / ".config" / "replicator" / "agent.toml"
    return Path(configured) / "replicator" / "agent.toml"


@dataclass(frozen=True, slots=True)
class _Read:
    """The parsed content, and the version of the file that it comes from."""

    version: tuple[int, ...]
    policy: Policy | PolicyUnusable


class PolicyFile:
    """A policy file, read again whenever it has changed. It may be shared between threads.

    :param path: absolute.
    :param required: the file must exist. After its first use it always must: while it is being replaced, the agent
        grants nothing rather than everything.
    """

    def __init__(self, path: Path, *, required: bool = False) -> None:
        self._path = path
        self._required = required
        self._last: _Read | None = None
        self._said: str | None = None

    @property
    def path(self) -> Path:
        """Return the path of the file."""
        return self._path

    def current(self) -> Policy | None:
        """Return the current policy, or `None` without a file. Raise `PolicyUnusable`."""
        last = self._last
        try:
            version = _version(self._path.stat())
        except OSError as error:
            if error.errno in _NOWHERE and not self._required:
                return None
            raise self._unusable(f"cannot be read: {error.strerror}") from None
        if last is None or last.version != version:
            last = self._last = self._read()
            self._required = True
            self._say(last.policy)
        if isinstance(last.policy, PolicyUnusable):
            raise self._unusable(*last.policy.args)
        return last.policy

    def add(self, lines: Sequence[str]) -> str:
        """Append tables to the file atomically, and return the old text. Raise `InvalidConfig`."""
        try:
            content, info = read_trusted(self._path, _LIMIT)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        before = content.decode()
        self._write("\n\n".join([before.rstrip("\n"), *lines]) + "\n", info.st_mode & 0o777, info.st_uid, info.st_gid)
        return before

    def put_back(self, text: str) -> None:
        """Restore the text that `add` returned. Raise `InvalidConfig`."""
        info = self._path.stat()
        self._write(text, info.st_mode & 0o777, info.st_uid, info.st_gid)

    def create(self, lines: Sequence[str], *, group: int | None = None, over: bool = False) -> str:
        """Write the file, and return its text. Raise `InvalidConfig`.

        :param group: a group that may read it; its mode is then 0640, else 0600.
        :param over: replace an existing file.
        """
        if self._path.exists() and not over:
            raise InvalidConfig(
                f"{self._path} exists, and is not written over",
                fix="see replicator agent init --dry-run for what it would hold, or replace it with --force",
            )
        text = _HEAD + ("".join(f"\n{line}\n" for line in lines) or _EXAMPLE)
        with suppress(OSError):  # the write reports the fault
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._write(text, 0o600 if group is None else 0o640, -1, -1 if group is None else group)
        return text

    def _write(self, text: str, mode: int, user: int, group: int) -> None:
        name, beside = self._path.name, f".{self._path.name}.{os.getpid()}"
        try:
            with opened(self._path.parent, alone=True) as folder:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                try:
                    with os.fdopen(os.open(beside, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
                        os.fchown(file.fileno(), user, group)
                        os.fchmod(file.fileno(), mode)
                        file.write(text)
                        file.flush()
                        os.fsync(file.fileno())
                    os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(beside, dir_fd=folder)
                os.fsync(folder)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _read(self) -> _Read:
        try:
            content, info = read_trusted(self._path, _LIMIT)
        except Untrusted as error:
            return _Read((), self._unusable(str(error.strerror)))
        except OSError as error:
            return _Read((), self._unusable(f"cannot be read: {error.strerror}"))
        try:
            return _Read(_version(info), Policy.model_validate(tomllib.loads(content.decode())))
        except ValidationError as error:
            return _Read(_version(info), self._unusable(_problems(error)))
        except ValueError as error:  # of TOML, or of UTF-8
            return _Read(_version(info), self._unusable(f"is not TOML: {error}"))

    def _say(self, read: Policy | PolicyUnusable) -> None:
        said, self._said = self._said, read.message if isinstance(read, PolicyUnusable) else None
        if self._said not in (None, said):
            _log.error("%s; nothing new is granted", self._said)

    def _unusable(self, problem: str) -> PolicyUnusable:
        prefix = f"the agent's policy file {self._path}"
        return PolicyUnusable(
            problem if problem.startswith(prefix) else f"{prefix} {_clause(problem)}",
            fix="correct the file; root or the agent's user owns it and its folders, and no other user may write there",
        )


def _version(info: os.stat_result) -> tuple[int, ...]:
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _clause(problem: str) -> str:
    return problem if problem.startswith(("is ", "cannot ", "has ")) else f"cannot be trusted: {problem}"


def _problems(error: ValidationError) -> str:
    found = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"]) or "the whole"
        unknown = item["type"] == "extra_forbidden"
        said = "is not a setting" if unknown else item["msg"].removeprefix("Value error, ")
        found.append(f"{where} {said}" if unknown else f"{where}: {said}")
    return f"has mistakes: {'; '.join(found)}"


def _unwritable(path: Path, error: OSError) -> InvalidConfig:
    return InvalidConfig(
        f"the policy file {path} cannot be written: {error.strerror}",
        fix="run as root, or as the agent's user; or write the lines by hand",
    )
