"""Who may change a stream, and which destinations exclude each other; the same for every backend."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from replicator.backends import stream_id
from replicator.errors import DestinationInUse, NotOurs, OwnedByAnother
from replicator.model import Endpoint, Owner, Stream


def settle_owner(record: Stream | None, wanted: Stream) -> Owner | None:
    """The owner to record for `wanted`, where `record` is what the engine's side holds now.

    Raise `OwnedByAnother` or `NotOurs` where the caller may not change the record.
    """
    caller = wanted.owner
    if record is None:
        return caller and Owner(urn=caller.urn, token=caller.token or secrets.token_hex(16))
    check_owner(record, caller)
    if caller is None:
        return record.owner
    token = record.owner.token if record.owner else None
    return Owner(urn=caller.urn, token=token or secrets.token_hex(16))


def check_owner(record: Stream, caller: Owner | None) -> None:
    """Raise where `caller` is not the owner in `record`. An operator has no identity and may act on any stream."""
    if caller is None:
        return
    if record.owner is None:
        if caller.claim:
            return
        raise NotOurs(
            "it exists, and no resource manages it",
            stream=record.name,
            fix=f"import it: pulumi import replicator:index:Stream <resource> {stream_id(record)}",
        )
    if not caller.owns(record.owner):
        raise OwnedByAnother(
            f"it is managed by {record.owner.urn}",
            stream=record.name,
            fix="choose another name, or remove the stream there first",
        )


def destination_key(endpoint: Endpoint) -> str:
    """The place that an endpoint writes to, without its connection parameters."""
    return endpoint.uri.partition("?")[0].rstrip("/")


def refuse_shared_destination(stream: Stream, others: Iterable[Stream]) -> None:
    """One writer per destination: raise `DestinationInUse` where another stream writes to the same place."""
    mine = destination_key(stream.destination) + "/"
    for other in others:
        theirs = destination_key(other.destination) + "/"
        if other.name != stream.name and (mine.startswith(theirs) or theirs.startswith(mine)):
            raise DestinationInUse(
                f"stream {other.name!r} writes to {theirs.rstrip('/')}",
                stream=stream.name,
                property="destination.uri",
                fix="give each stream a destination of its own; two writers on one leave neither restorable",
            )
