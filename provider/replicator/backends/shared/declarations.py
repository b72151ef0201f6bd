"""The meaning of a declaration without an engine: canonical forms of values, and what a backend refuses."""

from __future__ import annotations

from collections.abc import Iterable
from pkgutil import resolve_name
from typing import Protocol

from replicator.backends import REGISTRY
from replicator.capabilities import TABLE
from replicator.errors import ReplicatorError
from replicator.model import End, Endpoint, Stream


class DeclarationRules(Protocol):
    """The rules of one backend, as a module of functions. None of them uses a disk or a network."""

    def canonical_uri(self, endpoint: Endpoint, end: End) -> str:
        """Return the canonical spelling of a place; raise `ReplicatorError` or ValueError for an invalid URI."""

    def is_same_place(self, one: Endpoint, other: Endpoint, end: End) -> bool:
        """Tell whether two valid URIs name one place, even if they reach it in different ways."""

    def refusals(self, stream: Stream) -> Iterable[ReplicatorError]:
        """Return the backend's refusals, with the property: one error for each cause."""


def canonical(stream: Stream) -> Stream:
    """Return the stream with each value in canonical form: declarations with the same meaning are then equal.

    Use it only for comparisons; it is neither recorded nor sent to an engine.
    """
    return with_canonical_options(stream).model_copy(
        update={
            "source": _canonical_endpoint(stream, stream.source, "source"),
            "destination": _canonical_endpoint(stream, stream.destination, "destination"),
        }
    )


def keeps_ends(old: Stream, new: Stream) -> bool:
    """Tell whether both ends of two declarations are the same endpoints, with the same logins."""
    was, now = canonical(old), canonical(new)
    return was.source == now.source and was.destination == now.destination


def with_canonical_options(stream: Stream) -> Stream:
    """Return the stream with its options in the form that is recorded and sent to the engine."""
    row = TABLE.get(stream.backend or "")
    return stream.model_copy(update={"options": row.canonical_options(stream.options)}) if row else stream


def refusals(stream: Stream) -> list[ReplicatorError]:
    """Return the refusals of the stream's backend that need no engine."""
    rules = _rules_of(stream)
    return list(rules.refusals(stream)) if rules else []


def is_same_place(one: Stream, other: Stream, end: End) -> bool:
    """Tell whether an end of two streams of one backend is the same place, even if it is reached in different ways."""
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
