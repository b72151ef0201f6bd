"""One small object at a destination: reads, and creates that never replace."""

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

_LIMIT = 65_536  # bytes; a larger object is not the agent's
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_EXISTS = frozenset({409, 412})  # a conflict is another create at the same moment
_NOT_IMPLEMENTED = frozenset({400, 501})


class NotConditional(Exception):
    """The store does not support `If-None-Match`."""


def read_from_bucket(s3: S3Client, bucket: str, key: str) -> bytes | None:
    """Return the content, or `None` if the object does not exist. Raise ClientError."""
    from botocore.exceptions import ClientError

    try:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read(_LIMIT)
    except ClientError as error:
        if error.response["Error"].get("Code") == "NoSuchKey":
            return None
        raise


def create_in_bucket(s3: S3Client, bucket: str, key: str, content: bytes) -> bool:
    """Create the object; return False if it exists. Raise ClientError, or `NotConditional`, which wrote nothing."""
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


def read_from_folder(folder: int, name: str) -> bytes | None:
    """Return the content of a file in an open folder, or `None` if it does not exist. Raise OSError."""
    try:
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
            return file.read(_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None


def create_in_folder(folder: int, name: str, content: bytes) -> bool:
    """Create the file with its content atomically; return False if it exists. Raise OSError."""
    beside = f"{name}.{uuid.uuid4().hex}"
    try:
        _write_new(folder, beside, content)
        try:
            os.link(beside, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_new(folder, name, content)
    except FileExistsError:
        return False
    finally:
        remove_from_folder(folder, beside)
    return True


def replace_in_folder(folder: int, name: str, content: bytes) -> None:
    """Replace the file. Raise OSError."""
    beside = f"{name}.{uuid.uuid4().hex}"
    try:
        _write_new(folder, beside, content)
        os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        remove_from_folder(folder, beside)


def remove_from_folder(folder: int, name: str) -> None:
    """Remove the file if it exists. Raise OSError."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def is_any_in_bucket(s3: S3Client, bucket: str, prefixes: Collection[str]) -> bool:
    """Tell whether an object's key begins with one of the prefixes. Raise ClientError."""
    return any(s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("KeyCount") for prefix in prefixes)


def parts_in_bucket(s3: S3Client, bucket: str, key: str) -> int | None:
    """Return the bytes in the parts of a key's newest multipart upload, or `None` without one.

    Raise ClientError.
    """
    listed = s3.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", [])
    begun = max((item for item in listed if item["Key"] == key), default=None, key=lambda item: item["Initiated"])
    if begun is None:
        return None
    pages = s3.get_paginator("list_parts").paginate(Bucket=bucket, Key=key, UploadId=begun["UploadId"])
    return sum(part["Size"] for page in pages for part in page.get("Parts", []))


def size_in_folder(path: Path) -> int | None:
    """Return the size of a file, or `None` if it does not exist. Raise OSError."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _write_new(folder: int, name: str, content: bytes) -> None:
    with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
