"""Who holds which stream, written down from effects alone, and what may happen to a stream for that reason.

It knows no rule of the product: each effect at the engine comes with the resource that caused it, and the ledger says
whether that was a resource that may. A change of the record's token is a new claim. A copy of a state, as a restored
backup is one, keeps the claim of its time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from replicator.model import Stream, token_digest
from replicator.property_values import strip

from tests.dynamic.harness import State

_numbers = itertools.count(1)
UNMANAGED = "no owner"


@dataclass
class Entry:
    """A resource in the state of a stack, and what the ledger knows of it.

    :param resource: which resource it is; copies of a state share it.
    :param claim: the claim that the resource made last, by this copy.
    :param imported: the token that the record had at an import, until the resource acts.
    :param restored: it came back from a backup, and has not acted since.
    """

    urn: str
    state: State
    resource: int
    claim: int
    pending_delete: bool = False
    pending_replacement: bool = False
    imported: str | None = None
    restored: bool = False

    @property
    def stream(self) -> str:
        return self.state.id.rpartition("/")[2]

    @property
    def protected(self) -> bool:
        return bool(strip(self.state.outputs).get("deletionProtection"))


@dataclass
class Actor:
    """Who causes effects now. A create has no entry yet, and is another resource than any before."""

    verb: str
    urn: str
    entry: Entry | None = None
    resource: int = field(default_factory=lambda: next(_numbers))
    claim: int = 0

    def __post_init__(self) -> None:
        if self.entry is not None:
            self.resource, self.claim = self.entry.resource, self.entry.claim

    def __str__(self) -> str:
        return f"the {self.verb} of {self.urn}"


@dataclass(frozen=True)
class Holder:
    """The resource that holds a stream."""

    resource: int
    claim: int
    urn: str


class Ledger:
    """The holders by stream name, and the effects that no holder caused."""

    def __init__(self) -> None:
        self.holders: dict[str, Holder] = {}
        self.actor: Actor | None = None
        self.faults: list[str] = []

    def imported(self, urn: str, state: State) -> Entry:
        owned, token = "ownerUrn" in state.outputs, strip(state.outputs.get("ownerToken"))
        return Entry(
            urn, state, next(_numbers), 0, imported=token_digest(token.partition(" ")[0]) if owned else UNMANAGED
        )

    def rightful(self, entry: Entry, record: Stream) -> bool:
        """Return whether the entry's resource may change the stream."""
        if record.owner is None:  # it is whose state holds its id
            return bool(entry.claim or entry.imported)
        if entry.imported == _token(record):
            return True
        holder = self.holders[record.name]
        return holder.resource == entry.resource and (holder.claim == entry.claim or holder.urn == entry.urn)

    def upserted(self, before: Stream | None, after: Stream) -> None:
        actor = self.actor
        if actor is None:  # an operator, who changes no owner
            return
        if before is not None and not self._may_change(actor, before, after):
            self.faults.append(f"{actor} took {_words(before)} over, as {_words(after)}")
        if before is None or _token(before) != _token(after) or after.name not in self.holders:
            actor.claim = next(_numbers)
        else:
            actor.claim = self.holders[after.name].claim
        self.holders[after.name] = Holder(actor.resource, actor.claim, actor.urn)
        if actor.entry is not None:
            actor.entry.claim, actor.entry.imported = actor.claim, None

    def _may_change(self, actor: Actor, before: Stream, after: Stream) -> bool:
        if actor.entry is not None:
            acts = Entry(actor.urn, actor.entry.state, actor.resource, actor.claim, imported=actor.entry.imported)
            return self.rightful(acts, before)
        return before.owner is not None and before.owner.urn == actor.urn and data(before) == data(after)

    def removed(self, before: Stream) -> None:
        actor = self.actor
        if actor is not None and (entry := actor.entry) is not None:
            foreign = entry.imported not in (None, UNMANAGED) and before.owner and before.owner.urn != entry.urn
            if not self.rightful(entry, before) or foreign:
                self.faults.append(f"{actor} removed {_words(before)}")
            if entry.protected:
                self.faults.append(f"{actor} removed {_words(before)}, which is protected")
        self.holders.pop(before.name, None)

    def lost(self, name: str) -> None:
        """The engine's record is gone, and with it whose it was."""
        self.holders.pop(name, None)


def data(stream: Stream) -> tuple[Any, ...]:
    """What a stream reads, and where it writes that."""
    return (stream.source.uri, stream.destination.uri, stream.include, stream.exclude)


def _token(record: Stream) -> str:
    owner = record.owner
    return token_digest(owner.token) if owner and owner.token else UNMANAGED


def _words(stream: Stream) -> str:
    whose = stream.owner.urn if stream.owner else UNMANAGED
    return f"{stream.name} ({stream.source.uri} to {stream.destination.uri}, {whose})"
