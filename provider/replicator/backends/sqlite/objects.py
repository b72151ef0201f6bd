"""One small object at a replica's place: read it, and create it only where there is none."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_LIMIT = 65_536  # bytes; more is no object of ours
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_EXISTS = frozenset({409, 412})  # a conflict is another create at this moment
_NOT_IMPLEMENTED = frozenset({400, 501})


class NotConditional(Exception):
    """The store does not know `If-None-Match`."""


def read_from_bucket(s3: S3Client, bucket: str, key: str) -> bytes | None:
    """Return the content; `None` where there is no such object. Raise ClientError."""
    from botocore.exceptions import ClientError

    try:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read(_LIMIT)
    except ClientError as error:
        if error.response["Error"].get("Code") == "NoSuchKey":
            return None
        raise


def create_in_bucket(s3: S3Client, bucket: str, key: str, content: bytes) -> bool:
    """Create the object; False where there is one. Raise ClientError, or `NotConditional`, which wrote nothing."""
    from botocore.exceptions import ClientError

    try:
        s3.put_object(Bucket=bucket, Key=key, Body=content, ContentType="application/json", IfNoneMatch="*")
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in _EXISTS:
            return False
        if status in _NOT_IMPLEMENTED and error.response["Error"].get("Code") in ("NotImplemented", "InvalidArgument"):
            raise NotConditional from error
        raise
    return True


def read_from_folder(path: Path) -> bytes | None:
    """Return the content; `None` where there is no such file. Raise OSError."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read(_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None


def create_in_folder(path: Path, content: bytes) -> bool:
    """Create the file with its content in one step; False where there is one. Raise OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        _write_new(beside, content)
        try:
            os.link(beside, path, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_new(path, content)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    return True


def replace_in_folder(path: Path, content: bytes) -> None:
    """Write the file over. Raise OSError."""
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        _write_new(beside, content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def remove_from_folder(path: Path) -> None:
    """Remove the file, and the folder where nothing else is in it. Raise OSError."""
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()


def is_any_in_bucket(s3: S3Client, bucket: str, prefixes: Collection[str]) -> bool:
    """Return whether an object's key begins with one of the prefixes. Raise ClientError."""
    return any(s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("KeyCount") for prefix in prefixes)


def parts_in_bucket(s3: S3Client, bucket: str, key: str) -> int | None:
    """Return the bytes of the parts that the newest multipart upload of a key has; `None` where there is none.

    Raise ClientError.
    """
    listed = s3.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", [])
    begun = max((item for item in listed if item["Key"] == key), default=None, key=lambda item: item["Initiated"])
    if begun is None:
        return None
    pages = s3.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=begun["UploadId"])
    return sum(part["Size"] for page in pages for part in page.get("Parts", []))


def size_in_folder(path: Path) -> int | None:
    """Return the size of a file; `None` where there is none. Raise OSError."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _write_new(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
