"""What a declaration means, told without an engine: the one form of each value, and what a backend refuses."""

from __future__ import annotations

from collections.abc import Iterable
from pkgutil import resolve_name
from typing import Literal, Protocol

from replicator.backends import REGISTRY
from replicator.capabilities import TABLE
from replicator.errors import ReplicatorError
from replicator.model import Endpoint, Stream

End = Literal["source", "destination"]


class DeclarationRules(Protocol):
    """The rules of one backend, as a module of functions. None of them looks at a disk or a network."""

    def canonical_uri(self, endpoint: Endpoint, end: End) -> str:
        """Return one text for all spellings of a place; raise `ReplicatorError` or ValueError for an invalid URI."""

    def is_same_place(self, one: Endpoint, other: Endpoint, end: End) -> bool:
        """Return whether two URIs, each of which is valid, name one place, also where they reach it in other ways."""

    def refusals(self, stream: Stream) -> Iterable[ReplicatorError]:
        """Return what the backend would refuse, with the property: one error for each cause."""


def canonical(stream: Stream) -> Stream:
    """Return the stream with one form for each value: declarations that mean the same are then equal.

    It is for comparisons, and is neither recorded nor sent to an engine.
    """
    return with_canonical_options(stream).model_copy(
        update={
            "source": _canonical_endpoint(stream, stream.source, "source"),
            "destination": _canonical_endpoint(stream, stream.destination, "destination"),
        }
    )


def with_canonical_options(stream: Stream) -> Stream:
    """Return the stream with the options in the form in which they are recorded and sent to the engine."""
    row = TABLE.get(stream.backend or "")
    return stream.model_copy(update={"options": row.canonical_options(stream.options)}) if row else stream


def refusals(stream: Stream) -> list[ReplicatorError]:
    """Return what the stream's backend refuses without an engine."""
    rules = _rules_of(stream)
    return list(rules.refusals(stream)) if rules else []


def is_same_place(one: Stream, other: Stream, end: End) -> bool:
    """Return whether an end of two streams of one backend is one place, also where it is reached in another way."""
    rules = _rules_of(one)
    if rules is None or one.backend != other.backend:
        return False
    try:
        return rules.is_same_place(getattr(one, end), getattr(other, end), end)
    except (ReplicatorError, ValueError):  # a state may hold what this release refuses
        return False


def _rules_of(stream: Stream) -> DeclarationRules | None:
    backend = REGISTRY.get(stream.backend or "")
    if backend is None or backend.declarations is None:
        return None
    rules: DeclarationRules = resolve_name(backend.declarations)
    return rules


def _canonical_endpoint(stream: Stream, endpoint: Endpoint, end: End) -> Endpoint:
    rules = _rules_of(stream)
    if rules is None:
        return endpoint
    try:
        return endpoint.model_copy(update={"uri": rules.canonical_uri(endpoint, end)})
    except (ReplicatorError, ValueError):  # a state may hold what this release refuses
        return endpoint
