"""The location of a replica: a prefix of an S3 bucket, or a folder.

`parse_replica` parses a destination's URI. A location returns the URL for the engine, and lists and purges its content
itself (through boto3 or the file system), with credentials that the caller passes. A key pair in the environment is
never used.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from replicator.backends.sqlite import objects
from replicator.backends.sqlite.handles import Untrusted, names_in, opened, path_of
from replicator.backends.sqlite.hosts import form_to_write, is_address, is_region
from replicator.backends.sqlite.layout import (
    CLAIM,
    STARTS_IN_BUCKET,
    STARTS_IN_FOLDER,
    Purged,
    generations_among,
    in_bucket,
    is_claim,
    level_in_bucket,
    level_in_folder,
    purge_folder,
)
from replicator.home import known_home

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# The engine writes `0000/MIN-MAX.ltx` (level 0) in a bucket, `ltx/0/MIN-MAX.ltx` in a folder.
_LTX = re.compile(r"/(?:[0-9a-f]{4}|ltx/\d)/[0-9a-f]{16}-([0-9a-f]{16})\.ltx$")
_SEGMENT = re.compile(r"[A-Za-z0-9._=+@~,-]+")  # characters that neither S3 nor the engine's URL parser escapes
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_QUERY = ("endpoint", "region")
DEFAULT_REGION = "us-east-1"
"""The default region of a store."""
_BATCH = 1000  # S3's limit of keys in one delete request
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_ROLE = (  # the location of an identity; never a key pair itself
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")

T = TypeVar("T")


class ReplicaError(Exception):
    """A failure of the destination; the text names the location, and holds no secret."""

    def __init__(self, location: ReplicaLocation, text: str) -> None:
        self.location = location
        super().__init__(f"{location}: {text}")


class BucketMissing(ReplicaError):
    """The bucket does not exist."""


class CredentialsRefused(ReplicaError):
    """The server does not know the key, the signature is wrong, or the identity lacks a permission."""


class RoleRefused(CredentialsRefused):
    """The same for the identity of the agent's host, which has a stream without `authRef`."""


class FolderRefused(CredentialsRefused):
    """The agent's user lacks a permission in the folder."""


class LinkRefused(FolderRefused):
    """The path to the folder contains a link that another user could have created.

    :ivar leads_to: where the folder is now.
    """

    def __init__(self, location: FolderLocation, text: str) -> None:
        super().__init__(location, text)
        self.leads_to = Path(os.path.realpath(location.folder))


class ReplicaUnreachable(ReplicaError):
    """The server did not answer in time."""


class PurgeRefused(ReplicaError):
    """A purge would delete too much."""


@dataclass(frozen=True)
class S3Credentials:
    """One S3 identity. It has no session token, because the engine drops it."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True)
class PrefixContents:
    """The content of a prefix. `newest_txid` and `newest_time` (UTC) are None without a file of the engine."""

    objects: int
    newest_txid: int | None
    newest_time: datetime | None


class ReplicaLocation(ABC):
    """A location for one replica. `str()` is safe to show."""

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def url_for_engine(self) -> str:
        """Return the URL for `/register`, YAML and commands; equal locations have equal URLs."""

    @abstractmethod
    def child(self, name: str) -> ReplicaLocation:
        """Return the location `name` below this one. Raise ValueError."""

    @abstractmethod
    async def list_prefix(self, credentials: S3Credentials | None) -> PrefixContents:
        """Return the content of the prefix. Raise ReplicaError."""

    @abstractmethod
    async def purge_prefix(self, credentials: S3Credentials | None) -> Purged:
        """Delete only what the engine wrote below the prefix.

        Raise ReplicaError, and PurgeRefused for a location that no replica owns alone.
        """

    @abstractmethod
    async def has_start(self, credentials: S3Credentials | None) -> bool:
        """Tell whether a restore finds a file to begin with: one that starts at the first transaction."""

    @abstractmethod
    async def generations(self, credentials: S3Credentials | None) -> list[int]:
        """Return the generations that may be at this location, oldest first. The first one is always named.

        Raise ReplicaError.
        """

    @abstractmethod
    async def read_start(self, level: int, name: str, credentials: S3Credentials | None) -> bytes | None:
        """Return the first bytes of a transaction file, or `None` if it does not exist. Raise ReplicaError."""

    @abstractmethod
    async def arrived(self, name: str, credentials: S3Credentials | None) -> int | None:
        """Return the bytes that have arrived of the named transaction file, which the engine is writing.

        Return None if no such write is under way. Raise ReplicaError.
        """

    @abstractmethod
    async def holds(self, name: str, credentials: S3Credentials | None) -> bool:
        """Tell whether the named transaction file is complete. Raise ReplicaError."""

    @property
    @abstractmethod
    def store(self) -> str:
        """Return a name of the store that holds the objects, equal for every location in it."""

    @abstractmethod
    async def read_object(self, name: str, credentials: S3Credentials | None) -> bytes | None:
        """Return the content of the object `name` directly below the prefix, or `None` if it does not exist."""

    @abstractmethod
    async def create_object(self, name: str, content: bytes, credentials: S3Credentials | None) -> bool:
        """Create an object atomically; return False if it exists. Raise NotConditional if the store cannot."""

    @abstractmethod
    async def write_object(self, name: str, content: bytes, credentials: S3Credentials | None) -> None:
        """Write or replace an object."""

    @abstractmethod
    async def remove_object(self, name: str, credentials: S3Credentials | None) -> None:
        """Remove an object if it exists."""


@lru_cache(maxsize=4096)
def parse_replica(uri: str) -> ReplicaLocation:
    """Parse `s3://bucket/prefix?endpoint=…&region=…` or `file:///dir`.

    Raise ValueError with the fault; the text repeats nothing that could be a secret.
    """
    if any(ord(char) <= 32 or ord(char) == 127 for char in uri):  # urlsplit drops some silently
        raise ValueError("a destination's URI holds no spaces or control characters")
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise ValueError("a destination's URI holds no user or password; credentials come from authRef")
    if parts.fragment:
        raise ValueError("a destination's URI has no '#' part")
    if parts.scheme == "s3":
        return _parse_s3(parts.netloc, parts.path, parts.query)
    if parts.scheme == "file":
        if parts.netloc or parts.query:
            raise ValueError("a folder is written file:///absolute/path")
        return FolderLocation(Path("/", *_segments(parts.path)))
    raise ValueError("a destination is s3://bucket/prefix or file:///folder")


@dataclass(frozen=True)
class S3Location(ReplicaLocation):
    """A prefix of a bucket, without outer slashes. Without `endpoint` it is at AWS; with one, in path style."""

    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def url_for_engine(self) -> str:
        query = {name: value for name in _QUERY if (value := getattr(self, name))}
        return str(self) + ("?" + urlencode(query, safe=":/") if query else "")

    def child(self, name: str) -> S3Location:
        prefix = "/".join([self.prefix, *_segments(name)])
        return S3Location(self.bucket, prefix, self.endpoint, self.region)

    async def list_prefix(self, credentials: S3Credentials | None) -> PrefixContents:
        return await self._in_thread(credentials, self._list)

    async def purge_prefix(self, credentials: S3Credentials | None) -> Purged:
        if not self.prefix:
            raise PurgeRefused(self, "the whole bucket would be deleted")
        return await self._in_thread(credentials, self._purge)

    async def has_start(self, credentials: S3Credentials | None) -> bool:
        prefixes = [f"{self.prefix}/{start}" for start in STARTS_IN_BUCKET]
        return await self._in_thread(credentials, lambda s3: objects.is_any_in_bucket(s3, self.bucket, prefixes))

    async def generations(self, credentials: S3Credentials | None) -> list[int]:
        return generations_among(await self._in_thread(credentials, self._folders))

    async def read_start(self, level: int, name: str, credentials: S3Credentials | None) -> bytes | None:
        key = f"{self.prefix}/{level_in_bucket(level)}/{name}"
        return await self._in_thread(credentials, lambda s3: objects.read_from_bucket(s3, self.bucket, key))

    async def arrived(self, name: str, credentials: S3Credentials | None) -> int | None:
        key = f"{self.prefix}/{level_in_bucket(0)}/{name}"
        return await self._in_thread(credentials, lambda s3: objects.parts_in_bucket(s3, self.bucket, key))

    async def holds(self, name: str, credentials: S3Credentials | None) -> bool:
        key = f"{self.prefix}/{level_in_bucket(0)}/{name}"
        return await self._in_thread(credentials, lambda s3: objects.is_any_in_bucket(s3, self.bucket, [key]))

    @property
    def store(self) -> str:
        return f"{self.endpoint or ''}/{self.bucket}"

    async def read_object(self, name: str, credentials: S3Credentials | None) -> bytes | None:
        return await self._in_thread(
            credentials, lambda s3: objects.read_from_bucket(s3, self.bucket, f"{self.prefix}/{name}")
        )

    async def create_object(self, name: str, content: bytes, credentials: S3Credentials | None) -> bool:
        return await self._in_thread(
            credentials, lambda s3: objects.create_in_bucket(s3, self.bucket, f"{self.prefix}/{name}", content)
        )

    async def write_object(self, name: str, content: bytes, credentials: S3Credentials | None) -> None:
        key = f"{self.prefix}/{name}"
        await self._in_thread(credentials, lambda s3: s3.put_object(Bucket=self.bucket, Key=key, Body=content))

    async def remove_object(self, name: str, credentials: S3Credentials | None) -> None:
        key = f"{self.prefix}/{name}"
        await self._in_thread(credentials, lambda s3: s3.delete_object(Bucket=self.bucket, Key=key))

    def _list(self, s3: S3Client) -> PrefixContents:
        claim = f"{self.prefix}/{CLAIM}"
        return _contents((item["Key"], item["LastModified"]) for item in self._objects(s3) if item["Key"] != claim)

    def _folders(self, s3: S3Client) -> list[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{self.prefix}/r", Delimiter="/"
        )
        found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])]
        return [prefix.removeprefix(f"{self.prefix}/").rstrip("/") for prefix in found]

    def _purge(self, s3: S3Client) -> Purged:
        names = [item["Key"].removeprefix(f"{self.prefix}/") for item in self._objects(s3)]
        written = [f"{self.prefix}/{name}" for name in names if in_bucket(name)]
        for start in range(0, len(written), _BATCH):
            batch = written[start : start + _BATCH]
            reply = s3.delete_objects(
                Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
            )
            if failed := reply.get("Errors"):
                first = failed[0]
                raise ReplicaError(self, f"{len(failed)} objects remain, the first because of {first.get('Code')}")
        return Purged.of(len(written), (name for name in names if not in_bucket(name)))

    def _objects(self, s3: S3Client) -> Iterator[Any]:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.prefix}/"):
            yield from page.get("Contents", [])

    async def _in_thread(self, credentials: S3Credentials | None, work: Callable[[S3Client], T]) -> T:
        def run() -> T:
            with self._client(credentials) as s3:
                return work(s3)

        return await asyncio.to_thread(run)

    @contextmanager
    def _client(self, credentials: S3Credentials | None) -> Iterator[S3Client]:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
        from botocore.session import Session

        client: S3Client | None = None
        try:
            core = Session()
            core.register_component("data_loader", _service_models())
            if credentials is None:  # the host's role or files; a key pair in the environment is not the stream's
                core.get_component("credential_provider").remove("env")
            client = boto3.session.Session(botocore_session=core).client(
                "s3",
                endpoint_url=self.endpoint,
                region_name=self.region or DEFAULT_REGION,
                aws_access_key_id=credentials.access_key_id if credentials else None,
                aws_secret_access_key=credentials.secret_access_key if credentials else None,
                # The engine's trust store. Without it, boto3 would open the file that AWS_CA_BUNDLE names.
                verify=ssl.get_default_verify_paths().cafile or True,
                config=Config(
                    connect_timeout=3,
                    read_timeout=8,
                    retries={"total_max_attempts": 2, "mode": "standard"},
                    request_checksum_calculation="when_required",  # not every store supports the newer checksums
                    s3={"addressing_style": "path" if self.endpoint else "auto"},
                ),
            )
            yield client
        except ClientError as error:
            raise self._refusal(error.response, credentials) from error
        except (ConnectionError, HTTPClientError) as error:
            raise ReplicaUnreachable(
                self, f"no answer from {self.endpoint or 'AWS'}: {type(error).__name__}"
            ) from error
        except BotoCoreError as error:
            raise _denied(credentials)(self, str(error)) from error
        finally:
            if client is not None:
                client.close()

    def _refusal(self, response: Mapping[str, Any], credentials: S3Credentials | None) -> ReplicaError:
        code = response["Error"].get("Code", "")
        message = response["Error"].get("Message", "")
        if code == "NoSuchBucket":
            return BucketMissing(self, f"there is no bucket {self.bucket}")
        if response["ResponseMetadata"]["HTTPStatusCode"] in (401, 403):
            return _denied(credentials)(self, f"{code}: {message}")
        return ReplicaError(self, f"{code}: {message}")


def _denied(credentials: S3Credentials | None) -> type[CredentialsRefused]:
    return RoleRefused if credentials is None else CredentialsRefused


@dataclass(frozen=True)
class FolderLocation(ReplicaLocation):
    """A folder of the host where the engine runs."""

    folder: Path

    def __str__(self) -> str:
        return f"file://{self.folder}"

    def url_for_engine(self) -> str:
        return str(self)

    def child(self, name: str) -> FolderLocation:
        return FolderLocation(self.folder.joinpath(*_segments(name)))

    async def list_prefix(self, credentials: S3Credentials | None) -> PrefixContents:
        return await asyncio.to_thread(self._list)

    async def purge_prefix(self, credentials: S3Credentials | None) -> Purged:
        return await asyncio.to_thread(self._purge)

    async def has_start(self, credentials: S3Credentials | None) -> bool:
        return await self._in_thread(lambda: any(any(self.folder.glob(f"{start}*")) for start in STARTS_IN_FOLDER))

    async def generations(self, credentials: S3Credentials | None) -> list[int]:
        def names() -> list[str]:
            try:
                with opened(self.folder) as folder:
                    return names_in(folder)
            except FileNotFoundError:
                return []

        return generations_among(await self._in_thread(names))

    async def read_start(self, level: int, name: str, credentials: S3Credentials | None) -> bytes | None:
        def read() -> bytes | None:
            try:
                with opened(self.folder / level_in_folder(level)) as folder:
                    return objects.read_from_folder(folder, name)
            except FileNotFoundError:
                return None

        return await self._in_thread(read)

    async def arrived(self, name: str, credentials: S3Credentials | None) -> int | None:
        return await self._in_thread(lambda: objects.size_in_folder(self.folder / level_in_folder(0) / f"{name}.tmp"))

    async def holds(self, name: str, credentials: S3Credentials | None) -> bool:
        return await self._in_thread((self.folder / level_in_folder(0) / name).exists)

    @property
    def store(self) -> str:
        return "file"

    async def read_object(self, name: str, credentials: S3Credentials | None) -> bytes | None:
        def read() -> bytes | None:
            try:
                with opened(self.folder) as folder:
                    return objects.read_from_folder(folder, name)
            except (FileNotFoundError, NotADirectoryError):
                return None

        return await self._in_thread(read)

    async def create_object(self, name: str, content: bytes, credentials: S3Credentials | None) -> bool:
        def create() -> bool:
            with opened(self.folder, make=True) as folder:
                return objects.create_in_folder(folder, name, content)

        return await self._in_thread(create)

    async def write_object(self, name: str, content: bytes, credentials: S3Credentials | None) -> None:
        def replace() -> None:
            with opened(self.folder) as folder:
                objects.replace_in_folder(folder, name, content)

        await self._in_thread(replace)

    async def remove_object(self, name: str, credentials: S3Credentials | None) -> None:
        def remove() -> None:
            with suppress(FileNotFoundError, NotADirectoryError):
                with opened(self.folder) as folder:
                    objects.remove_from_folder(folder, name)
                self._remove_if_empty()

        await self._in_thread(remove)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def run() -> T:
            with self._translated():
                return work()

        return await asyncio.to_thread(run)

    def _list(self) -> PrefixContents:
        with self._translated():
            return _contents(self._files())

    def _files(self) -> Iterator[tuple[str, datetime]]:
        for path in self.folder.rglob("*"):
            if is_claim(path.relative_to(self.folder).as_posix()) or (path.is_dir() and not path.is_symlink()):
                continue
            with suppress(FileNotFoundError):  # another process removed it since the listing
                yield str(path), datetime.fromtimestamp(path.lstat().st_mtime, UTC)

    def _purge(self) -> Purged:
        with self._translated():
            self._refuse_purge(self.folder.resolve())
            if self.folder.is_symlink():
                raise PurgeRefused(self, "it is a symbolic link")
            try:
                with opened(self.folder) as folder:
                    self._refuse_purge(path_of(folder))
                    purged = purge_folder(folder)
            except FileNotFoundError:
                return Purged()
            self._remove_if_empty()
            return purged

    def _refuse_purge(self, folder: Path) -> None:
        if (home := known_home()) is not None and home.resolve().is_relative_to(folder):
            raise PurgeRefused(self, "it is the file system's root, a home folder, or a folder that holds one")
        if len(folder.parts) < 3:
            raise PurgeRefused(self, "a folder at the top of the file system is too much to delete")

    def _remove_if_empty(self) -> None:
        with suppress(OSError), opened(self.folder.parent) as parent:  # it holds another writer's file, or it is a link
            os.rmdir(self.folder.name, dir_fd=parent)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Untrusted as error:
            raise LinkRefused(self, str(error.strerror)) from error
        except PermissionError as error:
            raise FolderRefused(self, f"{error.strerror}: {error.filename}") from error
        except OSError as error:
            raise ReplicaError(self, f"{error.strerror}: {error.filename}") from error


@cache
def _service_models() -> Any:
    """Return the descriptions of AWS services. They are read once: they take most of a client's time and memory."""
    from botocore.loaders import create_loader

    return create_loader()


def engine_environment(credentials: S3Credentials | None, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the complete environment of an engine's process: a few names of `inherited`, and the credentials.

    Without credentials the engine uses the host's own role (instance metadata, a shared file, a container's token),
    as `list_prefix` does. AWS_CA_BUNDLE is never passed on: it makes the engine's S3 client fail; SSL_CERT_FILE works.
    """
    names = (*_PASSED_ON, *_PROXIES, *(() if credentials else _ROLE))
    env = {name: inherited[name] for name in names if name in inherited}
    if credentials:
        env["AWS_ACCESS_KEY_ID"] = credentials.access_key_id
        env["AWS_SECRET_ACCESS_KEY"] = credentials.secret_access_key
    return env


def _parse_s3(bucket: str, path: str, query: str) -> S3Location:
    if (form := form_to_write(bucket, path.strip("/") or "prefix")) is not None:
        raise ValueError(f"litestream reads this host as a bucket and its store; write {form}")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    settings.pop("force-path-style", None)  # an endpoint implies it
    if unknown := sorted(set(settings) - set(_QUERY)):
        raise ValueError(
            f"unknown parameters of an S3 destination: {', '.join(unknown)}; known are endpoint and region"
        )
    endpoint = settings.get("endpoint")
    if endpoint is not None:
        if not is_address(endpoint):
            raise ValueError("an endpoint is http://host:port or https://host")
        endpoint = endpoint.rstrip("/")
    region = settings.get("region") or None
    if region is not None and not is_region(region):
        raise ValueError("a region is made of letters, digits and hyphens, as in eu-central-1")
    return S3Location(bucket, "/".join(_segments(path)), endpoint, region)


def _segments(path: str) -> list[str]:
    segments = unquote(path).strip("/").split("/")
    for segment in segments:
        if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
            raise ValueError(
                "a prefix or folder is made of letters, digits and . _ = + @ ~ , - with single slashes between; "
                "it is not empty and has no part '.' or '..'"
            )
    return segments


def _contents(items: Iterator[tuple[str, datetime]]) -> PrefixContents:
    count, newest_txid, newest_time = 0, None, None
    for key, modified in items:
        count += 1
        if match := _LTX.search(key):
            txid = int(match[1], 16)
            newest_txid = txid if newest_txid is None else max(newest_txid, txid)
            newest_time = modified if newest_time is None else max(newest_time, modified)
    return PrefixContents(count, newest_txid, newest_time)
