"""A PostgreSQL server as a child process, on a free port of 127.0.0.1, ready for logical decoding."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psycopg
import trustme
from replicator.pdeathsig import die_with_parent

from tests.engines import EngineMissing, EngineNotReady, free_ports
from tests.waiting import wait_until

SUPERUSER = "postgres"
LOG_TAIL = 1500
START_TIMEOUT = 30.0
_DEBIAN = "usr/lib/postgresql/*/bin"
_USERS = ("postgres", "nobody")


def find_program(name: str) -> Path:
    """A program of PostgreSQL's server: on PATH, else where Debian has the newest. Raises EngineMissing."""
    if (found := shutil.which(name)) is not None:
        return Path(found).absolute()
    installed = [folder / name for folder in Path("/").glob(_DEBIAN) if (folder / name).exists()]
    if not installed:
        raise EngineMissing(f"{name} of PostgreSQL is not installed: make deps")
    return max(installed, key=lambda program: int(program.parts[-3]))


class Postgres:
    """One server, with its data and the log `postgres.log` in a folder; its port and data stay when it is down.

    Logins are by password (SCRAM), over TCP. Data reaches the disk when the system likes: it survives `kill`, not a
    crash of the machine.

    Start it from a thread that lives as long as this process: the server ends with that thread
    (`replicator.pdeathsig`).

    :param settings: lines of postgresql.conf, which win; they count from the first start on.
    :param tls: whether it speaks TLS too, with a certificate for 127.0.0.1 and localhost.

    :ivar password: the password of the superuser `postgres`.
    :ivar ca: the certificate of the authority that clients have to trust, in PEM; None without TLS.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None, tls: bool = False) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.password = secrets.token_urlsafe(24)
        self.ca = folder / "ca.pem" if tls else None
        self._data = folder / "data"
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster, or None while the server is down."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> str:
        """What the server said, over all its starts."""
        return self._log_file.read_text(errors="replace")

    @property
    def _log_file(self) -> Path:
        return self.folder / "postgres.log"

    def uri(self, database: str = "postgres") -> str:
        """The address of a database, without user and password."""
        return f"postgres://{self.host}:{self.port}/{database}"

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the server, with a data folder that is made the first time, and wait until it lets the superuser in.

        Raises EngineMissing and EngineNotReady.
        """
        program = find_program("postgres")
        if not (self._data / "PG_VERSION").exists():
            self._initialize()
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                _as_server([str(program), "-D", str(self._data)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                cwd=self._data,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while not self.answers():
            if (status := self._process.poll()) is not None or time.monotonic() > deadline:
                what = f"does not answer after {timeout:g} s" if status is None else f"ended with status {status}"
                self.kill()
                raise EngineNotReady(f"PostgreSQL {what}:\n{self.log[-LOG_TAIL:]}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether the superuser can log in, now."""
        login = {"host": self.host, "port": self.port, "user": SUPERUSER, "password": self.password}
        try:
            psycopg.connect(**login, dbname="postgres", connect_timeout=5, sslmode="prefer").close()  # type: ignore[arg-type]
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, timeout: float = 20.0) -> None:
        """End the server as its operator would: sessions are cut and everything is written (a fast shutdown)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
            self.kill()

    def kill(self) -> None:
        """End the server and all processes of its sessions at once, as `kill -9` does; `start` recovers the data."""
        if self._process is None:
            return
        sessions = _children(self._process.pid)
        self._process.kill()
        self._process.wait()
        self._process = None
        for pid in sessions:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # The memory that they share keeps the next server from starting.
        wait_until(lambda: not any(map(_runs, sessions)), timeout=10, what="the sessions of PostgreSQL end")

    def _initialize(self) -> None:
        program = find_program("initdb")
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._data, ignore_errors=True)  # of an attempt that was interrupted
        self._data.mkdir(mode=0o700)
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(self.password)
        _give(self._data, password)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        command = [str(program), "-D", str(self._data), f"--username={SUPERUSER}", f"--pwfile={password}", *options]
        done = subprocess.run(
            _as_server(command),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd=self._data,
            text=True,
        )
        if done.returncode != 0:
            shutil.rmtree(self._data)
            raise EngineNotReady(f"initdb ended with status {done.returncode}:\n{done.stdout[-LOG_TAIL:]}")
        with (self._data / "postgresql.conf").open("a") as file:
            for name, value in self._configuration().items():
                quoted = value.replace("'", "''")
                file.write(f"{name} = '{quoted}'\n")

    def _configuration(self) -> dict[str, str]:
        encrypted = {}
        if self.ca is not None:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.ca)
            both = self.folder / "server.pem"
            both.touch(mode=0o600)
            authority.issue_cert(self.host, "localhost").private_key_and_cert_chain_pem.write_to_path(both)
            _give(both)
            encrypted = {"ssl": "on", "ssl_cert_file": str(both), "ssl_key_file": str(both)}
        return {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            "wal_level": "logical",
            "fsync": "off",
            "dynamic_shared_memory_type": "mmap",  # in the folder: else a server that is killed leaves it to the system
            **encrypted,
            **self._settings,
        }


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


def _as_server(command: Sequence[str]) -> list[str]:
    """A command line that runs a program until this process ends, and not as root, which PostgreSQL refuses.

    The other user keeps root's right to pass through folders that are closed to them, such as those of pytest.
    """
    if os.geteuid() != 0:
        return die_with_parent(command)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EngineMissing("setpriv is not installed, which PostgreSQL needs where root runs it: use another user")
    user = _server_user()
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return [setpriv, *identity, *rights, "--pdeathsig=KILL", *command]


def _give(*paths: Path) -> None:
    """Make files those of the user whom the server runs as."""
    if os.geteuid() == 0:
        user = _server_user()
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)


def _server_user() -> pwd.struct_passwd:
    users = {row.pw_name: row for row in pwd.getpwall()}
    return next(users[name] for name in _USERS if name in users)


def _children(parent: int) -> list[int]:
    """The processes that one started, but for those that ended and that nobody has waited for yet."""
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], check=True, stdout=subprocess.PIPE, text=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, above, state in rows if int(above) == parent and state[0] != "Z"]


def _runs(pid: int) -> bool:
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], check=False, stdout=subprocess.PIPE, text=True)
    return shown.stdout.strip()[:1] not in ("", "Z")
