"""The source file of a stream, its destination, and its identity there."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from replicator import authref
from replicator.backends.shared.identity import Look
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.litestream import checked_path
from replicator.backends.sqlite.record import StreamRecord
from replicator.backends.sqlite.replica import ReplicaLocation, S3Credentials, parse_replica
from replicator.errors import InvalidStream, ReplicatorError, SecretExposed
from replicator.model import Stream

KEY_PAIR = ("accessKeyId", "secretAccessKey")
"""The fields of a secret that a bucket needs."""

_KEY_ID = re.compile(r"[A-Za-z0-9._@~+-]{1,128}")


def source_path(stream: Stream) -> Path:
    """Return the database file of a stream."""
    return file_of(stream.source.uri)


@lru_cache(maxsize=4096)
def file_of(uri: str) -> Path:
    """Return the file that a URI names, without `.` and repeated slashes. `..` stays: its meaning depends on links."""
    return Path("/" + unquote(urlsplit(uri).path).lstrip("/"))


def named_file(uri: str) -> Path:
    """Return the file that a URI names; raise ValueError if it names none."""
    path = file_of(uri)
    if not path.name or b"\0" in os.fsencode(path):  # raises for an invalid character
        raise ValueError("it names no file")
    return path


def check_source_path(stream: Stream) -> Path:
    """Return the database file of a stream; raise `InvalidStream` if litestream would open another file."""
    try:
        path = named_file(stream.source.uri)
        checked_path(path)
    except ValueError as error:
        raise InvalidStream(
            str(error), stream=stream.name, property="source.uri", fix="rename the file or its folder"
        ) from None
    return path


def side_folder(stream: Stream) -> Path:
    """Return the folder that litestream keeps beside the database."""
    return LITESTREAM.side_folder_of(source_path(stream))


def parse_location(stream: Stream) -> ReplicaLocation:
    """Return the destination of a stream; raise `InvalidStream` if it is invalid."""
    try:
        return parse_replica(stream.destination.uri)
    except ValueError as error:
        raise InvalidStream(str(error), stream=stream.name, property="destination.uri") from None


def place_of(stream: Stream, generation: int) -> ReplicaLocation:
    """Return the location to which a generation of a stream writes."""
    place = parse_location(stream)
    return place if generation == 1 else place.child(f"r{generation}")


def location_of(record: StreamRecord) -> ReplicaLocation:
    """Return the location to which the stream writes now."""
    return place_of(record.stream, record.generation)


def takeover_command(stream: Stream) -> str:
    """Return the command that takes the destination over, as pasted into a shell."""
    at = stream.destination
    auth = f" --auth-ref {shlex.quote(at.auth_ref)}" if at.auth_ref else ""
    return f"replicator agent takeover {shlex.quote(at.uri)}{auth}"


async def same_place(one: Stream, other: Stream) -> bool:
    """Tell whether two declarations write to the same objects, in any spelling."""

    def compare() -> bool:
        look = Look()
        return look.at(one.destination.uri).is_same(look.at(other.destination.uri))

    return await asyncio.to_thread(compare)


class Identities:
    """Resolves `authRef` on this host.

    :param redact: gets each secret value, so that no text shows it.
    :param admit: raises where a stream may not use its destination, or its reference there.
    """

    def __init__(
        self, redact: authref.Redactor, environ: Mapping[str, str], admit: Callable[[Stream], Awaitable[None]]
    ) -> None:
        self._redact = redact
        self._secrets = authref.Redactor()
        self._environ = environ
        self._admit = admit

    async def of(self, stream: Stream) -> S3Credentials | None:
        """Return the identity of a stream; `None` for the host's own role. Raise what `authref.resolve` raises.

        Every access to a destination calls this first, so whatever the agent does not grant is refused here.
        """
        await self._admit(stream)
        if stream.destination.auth_ref is None:
            return None
        try:
            found = await key_pair(stream.destination.auth_ref, self._environ, authref.AGENT, secrets=self._secrets)
        except ReplicatorError as error:
            raise type(error)(
                error.message, stream=stream.name, property="destination.authRef", fix=error.fix
            ) from None
        for value in (found.access_key_id, found.secret_access_key):
            self._redact.add(value)
        self._secrets.add(found.secret_access_key)
        return found


async def key_pair(
    reference: str, environ: Mapping[str, str], reader: authref.Reader, *, secrets: authref.Redactor
) -> S3Credentials:
    """Return the key pair that a reference names. Raise what `authref.resolve` raises.

    :param secrets: hides the secrets of other references.
    """
    found = await asyncio.to_thread(
        authref.resolve, authref.parse(reference), KEY_PAIR, required=KEY_PAIR, environ=environ, reader=reader
    )
    _refuse_secret_id(found["accessKeyId"], secrets)
    return S3Credentials(found["accessKeyId"], found["secretAccessKey"])


def _refuse_secret_id(key_id: str, secrets: authref.Redactor) -> None:
    """Raise if the key id, which is sent in clear, is the secret of a reference, or cannot be an id."""
    if secrets.hides(key_id):
        raise SecretExposed(
            "what it names as access key id is what a reference of this agent uses as a secret",
            fix="name the entry that holds the id",
        )
    if not _KEY_ID.fullmatch(key_id):
        raise SecretExposed(
            "what it names as access key id is none: an id has letters, digits and . _ @ ~ + -, and no other",
            fix="name the entry that holds the id",
        )
