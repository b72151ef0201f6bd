"""The rules of ownership: which caller may create, change and remove which stream. They are the same for all backends.

A caller is an operator (no identity), or a resource whose state holds the stream's id (`Owner.claim`) and a token, or a
resource without a state: a create. A record names one owner or none.

| the record                              | create                     | change                  | remove           |
|-----------------------------------------|----------------------------|-------------------------|------------------|
| does not exist                          | creates, issues a token    | creates                 | succeeds         |
| names no owner                          | refused: import it         | claims it               | removes it       |
| holds the caller's token                | a repeated call: resumes   | owner; writes its URN   | removes it       |
| has its URN, not its token: same data   | adopts, issues a token     | refused: stale state    | touches nothing  |
| has its URN, not its token: other data  | refused                    | refused: stale state    | touches nothing  |
| names another owner                     | refused                    | refused                 | touches nothing  |

A state of release 0.1 may hold no token, after an import of a stream that had no owner. It may change and remove
streams that name its own URN, and is refused otherwise. Issuing a token makes every earlier one stale, so a stream has
one owner: with `--target-replace`, Pulumi creates the replacement first, and the delete of the original then touches
nothing.
"""

from __future__ import annotations

from replicator.backends import stream_id
from replicator.backends.shared.declarations import canonical
from replicator.errors import InvalidConfig, NotOurs, OwnedByAnother
from replicator.model import Owner, Stream, token_digest


def settle_owner(record: Stream | None, wanted: Stream) -> Owner | None:
    """Return the owner to record for `wanted`, given the engine's current `record`.

    Raise `OwnedByAnother` or `NotOurs` if the caller may not create or change the stream.
    """
    caller = wanted.owner
    held = record.owner if record else None
    if caller is None:
        return held
    issued = caller.issue or caller.token
    if record is not None and held is None and not caller.claim:
        raise _unmanaged(record)
    if record is not None and held is not None:
        _refuse_stranger(record, held, wanted, caller)
        issued = caller.issue or held.token
    return Owner(urn=caller.urn, token=issued and token_digest(issued))


def _refuse_stranger(record: Stream, held: Owner, wanted: Stream, caller: Owner) -> None:
    if caller.owns(held):
        return
    if held.urn != caller.urn:
        raise _taken(record, held, caller) if caller.claim else _owned(record, held, caller)
    if caller.token is not None:
        raise OwnedByAnother(
            "its record has a newer owner token than this state: the state was restored from a backup, or the stream "
            "was created again by another stack of this name or by a run whose answer was lost",
            stream=record.name,
            fix=f"to manage it from here, run pulumi state delete '{caller.urn}', then pulumi up with the source and "
            "destination that it has, which adopts it",
        )
    if not caller.claim and _data(record) != _data(wanted.model_copy(update={"backend": record.backend})):
        raise OwnedByAnother(
            f"{stream_id(record)} exists, with the source {record.source.uri} and the destination "
            f"{record.destination.uri}, and {held.urn} manages it: a resource that was renamed, or one whose create "
            "was interrupted",
            stream=record.name,
            fix="choose another name for this stream; or, to take it over, run pulumi import replicator:index:Stream "
            f"<resource> {stream_id(record)}",
        )


def may_remove(record: Stream, caller: Owner | None) -> bool:
    """Tell whether the caller may remove the stream; False if its token is stale, so that it touches nothing.

    Raise `OwnedByAnother` or `NotOurs` if only a person can decide.
    """
    held = record.owner
    if caller is None:
        return True
    if held is None:
        if not caller.claim:
            raise _unmanaged(record)
        return True
    if caller.owns(held):
        if caller.token == token_digest(caller.token or "") and caller.urn != held.urn:
            raise OwnedByAnother(
                f"it was imported, and its record still names {held.urn}",
                stream=record.name,
                fix="run pulumi up first, which takes ownership; or run pulumi state delete, which leaves the stream",
            )
        return True
    if caller.token is not None:
        return False
    if caller.urn != held.urn:
        raise _taken(record, held, caller)
    return True


def is_replaced(record: Stream, wanted: Stream) -> bool:
    """Tell whether `wanted` replaces a stream of another name, whose preview has the token of its owner."""
    return record.owner is not None and wanted.owner is not None and wanted.owner.owns(record.owner)


def refuse_elsewhere(stream: str, caller: Owner | None, here: str | None) -> None:
    """Raise `InvalidConfig` if the record is missing because the address now leads to another place.

    :param here: the identity of the agent or cluster that answers now.
    """
    if caller is not None and caller.manager is not None and here is not None and caller.manager != here:
        raise InvalidConfig(
            f"the address leads to {here}, and the stream was made at {caller.manager}, where it may still run",
            stream=stream,
            fix="correct the address in the provider's configuration. If the old one is gone, run pulumi state delete "
            f"'{caller.urn}', then pulumi up",
        )


def _data(stream: Stream) -> tuple[object, ...]:
    """Return the source and the destination of a stream, and the topics or tables that it selects."""
    declared = canonical(stream)
    return (declared.source.uri, declared.destination.uri, declared.include, declared.exclude)


def _unmanaged(record: Stream) -> NotOurs:
    return NotOurs(
        "it exists, and no resource manages it",
        stream=record.name,
        fix=f"import it: pulumi import replicator:index:Stream <resource> {stream_id(record)}",
    )


def _owned(record: Stream, held: Owner, caller: Owner) -> OwnedByAnother:
    return OwnedByAnother(
        f"it is managed by {held.urn}",
        stream=record.name,
        fix=f"{_as_renamed(held.urn, caller.urn)}choose another name; or, if {held.urn} is in no stack any more, run "
        f"pulumi import replicator:index:Stream <resource> {stream_id(record)}, which takes the stream over",
    )


def _as_renamed(before: str, now: str) -> str:
    """Return the way of a resource that was `before`; empty for another stack or project, which no alias reaches."""
    old, new = before.split("::", 3), now.split("::", 3)  # stack, project, types of the parents and its own, name
    if len(old) != 4 or old[:2] != new[:2]:
        return ""
    alias = f"{{name: {old[3]}}}" if old[2:3] == new[2:3] else f'"{before}"'
    return f"if this resource was renamed or moved below another parent, give it the option aliases: [{alias}]; else "


def _taken(record: Stream, held: Owner, caller: Owner) -> OwnedByAnother:
    return OwnedByAnother(
        f"it is managed by {held.urn}",
        stream=record.name,
        fix=f"run pulumi state delete '{caller.urn}' and remove the resource from this program. To take the stream "
        f"back, run pulumi import replicator:index:Stream <resource> {stream_id(record)} after that command",
    )
