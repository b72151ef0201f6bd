"""Real engines for tests, the demo and the bench: an S3 server that checks signatures, and how to make it fail.

Everything here is synchronous, so that session fixtures and plain scripts share it. Servers bind to 127.0.0.1 on free
ports, keep their data below a folder that the caller gives, and are ended by the process id that was started.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
_SERVER_SOCKETS = Path("/tmp")  # SeaweedFS puts the sockets of its own parts here, whatever TMPDIR says


class EngineMissing(RuntimeError):
    """The engine's binary is neither beside the interpreter nor on PATH."""


class EngineNotReady(RuntimeError):
    """The engine did not answer in time, or ended while starting; the text holds the end of its log."""


@dataclass(frozen=True)
class S3Identity:
    """A key pair that the server knows."""

    access_key_id: str
    secret_access_key: str


def find_engine(name: str) -> Path:
    """The binary `name` beside the running interpreter, else on PATH.

    Raises EngineMissing.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise EngineMissing(f"{name} is not installed: neither in {beside.parent} nor on PATH")
    return Path(found)


class _Ports:
    """The ports that this process gives to servers.

    They are below the range that Linux takes outgoing connections' ports from: such a connection could take a server's
    port while the server restarts. A process owns a block of ports as long as it lives, by listening on the first one,
    and gives each port once before it begins again.
    """

    def __init__(self, first: int = 10_000, last: int = 32_500, block: int = 500) -> None:
        for base in range(first, last, block):
            self._claim = socket.socket()
            try:
                self._claim.bind(("127.0.0.1", base))
                self._claim.listen()
                break
            except OSError:
                self._claim.close()
        else:
            raise EngineNotReady(f"every block of ports from {first} to {last} is taken")
        self._next = itertools.cycle(range(base + 1, base + block))
        self._size = block - 1

    def take(self) -> int:
        for port in itertools.islice(self._next, self._size):
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is free
                probe.bind(("127.0.0.1", port))
                return port
        raise EngineNotReady("no port is free")


@functools.cache
def _ports() -> _Ports:
    return _Ports()


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports of 127.0.0.1 that were free a moment ago, and that no other test process is given."""
    return [_ports().take() for _ in range(count)]


class S3Server:
    """SeaweedFS with an S3 gateway that checks signatures.

    `owner` may do everything. `stranger` signs correctly and may do nothing (AccessDenied). Any other key is unknown
    (InvalidAccessKeyId). Data survives `kill` and `start`.
    """

    def __init__(self, folder: Path, *, owner: S3Identity | None = None) -> None:
        self.folder = folder
        self.owner = owner or S3Identity("OWNER" + secrets.token_hex(6).upper(), secrets.token_urlsafe(24))
        self.stranger = S3Identity("STRANGER" + secrets.token_hex(6).upper(), secrets.token_urlsafe(24))
        self._ports = free_ports(8)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The address of the S3 gateway; the same after a restart."""
        return f"http://127.0.0.1:{self._ports[6]}"

    @property
    def pid(self) -> int | None:
        """The process id, or None while the server is down."""
        return self._process.pid if self._process else None

    def url(self, bucket: str, prefix: str) -> str:
        """The replica URL of `prefix` in `bucket`."""
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}&region={REGION}"

    def start(self, timeout: float = 30.0) -> None:
        """Start the server and wait until it stores an object.

        Raises EngineNotReady.
        """
        binary = find_engine("weed")
        self.folder.mkdir(parents=True, exist_ok=True)
        users = self.folder / "identities.json"
        users.write_text(json.dumps({"identities": self._identities()}))
        users.chmod(0o600)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(binary), *self._arguments(users)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        with contextlib.closing(self.client(read_timeout=2.0)) as s3:
            while True:
                try:
                    self._store_one_object(s3)
                    return
                except (ClientError, BotoCoreError) as error:
                    if self._process.poll() is None and time.monotonic() < deadline:
                        time.sleep(0.05)
                        continue
                    tail = (self.folder / "server.log").read_text(errors="replace")[-800:]
                    self.kill()
                    raise EngineNotReady(f"SeaweedFS is not ready: {error}\n{tail}") from error

    def kill(self) -> None:
        """End the server at once; connections are refused from now on. Its data stays for the next `start`."""
        if self._process is None:
            return
        self._process.kill()  # a graceful stop takes 15 s, and nothing here needs one
        self._process.wait()
        self._process = None
        for port in self._ports:
            for left_over in _SERVER_SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                left_over.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Make the server hang: connections are accepted by the kernel, and no answer comes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End `freeze`."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server hangs inside the block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def client(self, identity: S3Identity | None = None, *, read_timeout: float = 10.0) -> S3Client:
        """A boto3 client, `owner`'s unless told otherwise. The caller closes it."""
        user = identity or self.owner
        # `verify` keeps boto3 from opening the file that AWS_CA_BUNDLE may name.
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=user.access_key_id,
            aws_secret_access_key=user.secret_access_key,
            verify=True,
            config=Config(
                connect_timeout=2,
                read_timeout=read_timeout,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
            ),
        )

    def make_bucket(self, name: str) -> str:
        """Make the bucket `name`, and give the name back."""
        with contextlib.closing(self.client()) as s3:
            s3.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All object keys of `bucket` below `prefix`."""
        with contextlib.closing(self.client()) as s3:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise EngineNotReady("SeaweedFS is not running")
        self._process.send_signal(number)

    def _store_one_object(self, s3: S3Client) -> None:
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
            s3.create_bucket(Bucket="ready-check")
        s3.put_object(Bucket="ready-check", Key="probe", Body=secrets.token_bytes(16))
        s3.get_object(Bucket="ready-check", Key="probe")["Body"].read()

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "OWNER_SECRET": self.owner.secret_access_key,
            "STRANGER_SECRET": self.stranger.secret_access_key,
        }

    def _identities(self) -> list[dict[str, object]]:
        # The server expands `$` in this file, so secrets of any characters come through its environment.
        def row(name: str, user: S3Identity, variable: str, actions: list[str]) -> dict[str, object]:
            pair = {"accessKey": user.access_key_id, "secretKey": f"${{{variable}}}"}
            return {"name": name, "credentials": [pair], "actions": actions}

        return [
            row("owner", self.owner, "OWNER_SECRET", ["Admin", "Read", "Write", "List", "Tagging"]),
            row("stranger", self.stranger, "STRANGER_SECRET", ["Read:nobody", "List:nobody"]),
        ]

    def _arguments(self, users: Path) -> list[str]:
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = self._ports
        return [
            "-logtostderr=true",
            "server",
            f"-dir={self.folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            f"-master.port={master}",
            f"-master.port.grpc={master_grpc}",
            "-master.peers=none",  # one master: no election to wait for
            "-master.volumeSizeLimitMB=64",
            f"-volume.port={volume}",
            f"-volume.port.grpc={volume_grpc}",
            "-volume.max=100",
            "-volume.minFreeSpace=0",
            "-filer",
            f"-filer.port={filer}",
            f"-filer.port.grpc={filer_grpc}",
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.port.grpc={s3_grpc}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={self.folder / 's3.sock'}",
            f"-s3.config={users}",
        ]


@contextlib.contextmanager
def s3_server(folder: Path, *, owner: S3Identity | None = None) -> Iterator[S3Server]:
    """An S3 server with its data in `folder`, started on entry and ended on exit."""
    server = S3Server(folder, owner=owner)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def make_database(path: Path, *, rows: int = 1, journal_mode: str = "wal") -> Path:
    """A SQLite database with the table `item` and `rows` rows; gives `path` back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode={journal_mode}")
        database.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, value TEXT)")
        database.commit()
    add_rows(path, rows)
    return path


def add_rows(path: Path, count: int = 1) -> None:
    """`count` commits of one row each, by a connection that closes afterwards."""
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as database:
        for _ in range(count):
            database.execute("INSERT INTO item (value) VALUES (?)", (secrets.token_hex(20),))
            database.commit()
