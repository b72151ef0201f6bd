"""Rules of ownership that are wrong: those of release 0.1, and today's with one of them left out, or one too many."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from replicator.backends.shared.ownership import may_remove, settle_owner
from replicator.errors import NotOurs, OwnedByAnother
from replicator.model import Owner, Stream, token_digest


@dataclass(frozen=True)
class Rules:
    """Who may create or change a stream, and who may remove it.

    :param found: what the model says of them.
    """

    found: str
    settle: Callable[[Stream | None, Stream], Owner | None] = settle_owner
    remove: Callable[[Stream, Owner | None], bool] = may_remove


def former_settle(record: Stream | None, wanted: Stream) -> Owner | None:
    """Let the engine's side make the token, which no create changes."""
    caller = wanted.owner
    if record is None:
        return caller and Owner(urn=caller.urn, token=caller.token or secrets.token_hex(16))
    former_remove(record, caller)
    if caller is None:
        return record.owner
    token = record.owner.token if record.owner else None
    return Owner(urn=caller.urn, token=token or secrets.token_hex(16))


def former_remove(record: Stream, caller: Owner | None) -> bool:
    """Take who has the record's token for its owner, and without a token who has its URN."""
    if caller is None:
        return True
    if record.owner is None:
        if not caller.claim:
            raise NotOurs("it exists, and no resource manages it", stream=record.name)
        return True
    if not (caller.token == record.owner.token if caller.token else caller.urn == record.owner.urn):
        raise OwnedByAnother(f"it is managed by {record.owner.urn}", stream=record.name)
    return True


def adopts_other_data(record: Stream | None, wanted: Stream) -> Owner | None:
    """Let a create adopt whatever has its URN."""
    caller = wanted.owner
    if record and record.owner and caller and record.owner.urn == caller.urn and caller.token is None:
        return settle_owner(record, record.model_copy(update={"owner": caller}))
    return settle_owner(record, wanted)


def issues_nothing(record: Stream | None, wanted: Stream) -> Owner | None:
    """Keep the record's token where a create adopts."""
    owner = settle_owner(record, wanted)
    if owner and record and record.owner and wanted.owner and not wanted.owner.claim:
        return owner.model_copy(update={"token": record.owner.token})
    return owner


def heeds_no_token(record: Stream | None, wanted: Stream) -> Owner | None:
    """Let who has the record's URN change it, by whatever token."""
    caller = wanted.owner
    if record and record.owner and caller and caller.claim and record.owner.urn == caller.urn:
        return Owner(urn=caller.urn, token=token_digest(caller.issue or caller.token or ""))
    return settle_owner(record, wanted)


def removes_by_urn(record: Stream, caller: Owner | None) -> bool:
    """Let who has the record's URN remove it, by whatever token."""
    return bool(caller and record.owner and caller.urn == record.owner.urn) or may_remove(record, caller)


def removes_what_was_imported(record: Stream, caller: Owner | None) -> bool:
    """Let an import remove the stream of another resource."""
    return bool(caller and record.owner and caller.owns(record.owner)) or may_remove(record, caller)


def refuses_renames(record: Stream | None, wanted: Stream) -> Owner | None:
    """Refuse to change a record that names another URN."""
    caller = wanted.owner
    if record and record.owner and caller and record.owner.urn != caller.urn:
        raise OwnedByAnother(f"it is managed by {record.owner.urn}", stream=record.name)
    return settle_owner(record, wanted)


WRONG = {
    "release 0.1": Rules("the (create|delete) of .* (took|removed)", former_settle, former_remove),
    "a create adopts other data": Rules("the create of .* took", settle=adopts_other_data),
    "an adoption issues no token": Rules("and is not its owner|the delete of .* removed", settle=issues_nothing),
    "a stale state may change": Rules("and is not its owner|the update of .* took", settle=heeds_no_token),
    "a stale state may remove": Rules("the delete of .* removed|is missing", remove=removes_by_urn),
    "an import may remove at once": Rules("the delete of .* removed", remove=removes_what_was_imported),
    "a rename is refused": Rules("refused: ", settle=refuses_renames),
}
