"""Intersection of topic patterns: decides whether a name can exist that several mirrors copy, without sampling names.

A pattern is the subset of Java's regular expressions that globs and MirrorMaker 2's defaults use: characters,
escapes, `.`, and classes of single characters, each possibly with `*` or `+`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

_LEGAL = string.ascii_letters + string.digits + "._-"
_ATOM = re.compile(r"(?P<any>\.)|\[(?P<not>\^?)(?P<class>(?:\\\W|[\w.])+)\]|(?P<one>\\\W|[\w-])", re.ASCII)
_TIMES = re.compile(r"[*+]?(?![*+?{])")


class Token(NamedTuple):
    """One position of a pattern.

    :param chars: the characters that it matches, or those that it does not match.
    :param repeats: it matches any number of them, including none.
    """

    chars: frozenset[str]
    negated: bool = False
    repeats: bool = False

    def takes(self, char: str) -> bool:
        """Tell whether a character matches here."""
        return (char in self.chars) is not self.negated


Pattern = tuple[Token, ...]
ANYTHING: Pattern = (Token(frozenset(), negated=True, repeats=True),)

_Places = frozenset[tuple[int, int]]
"""The patterns that a name may still match: the index of each, and the index of its next token."""


@lru_cache(maxsize=4096)
def parse(regex: str) -> Pattern | None:
    """Return the pattern of a regular expression that matches whole names; `None` if it is outside of the subset."""
    found: list[Token] = []
    at = 0
    while at < len(regex):
        atom = _ATOM.match(regex, at)
        times = atom and _TIMES.match(regex, atom.end())
        if not atom or not times:
            return None
        chars = frozenset(re.sub(r"\\(.)", r"\1", atom["class"] or atom["one"] or ""))
        token = Token(chars, negated=bool(atom["any"] or atom["not"]))
        if times[0] != "*":
            found.append(token)
        if times[0]:
            found.append(token._replace(repeats=True))
        at = times.end()
    return tuple(found)


def literal(text: str) -> Pattern:
    """Return the pattern that matches one name only."""
    return tuple(Token(frozenset(char)) for char in text)


@dataclass(frozen=True)
class Names:
    """The names that match any of `include` and none of `exclude`."""

    include: tuple[Pattern, ...]
    exclude: tuple[Pattern, ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.include, self.exclude))

    @cached_property
    def whole(self) -> frozenset[str] | None:
        """Return the names in `include`, regardless of `exclude`; `None` if it has more than literal names."""
        if any(len(token.chars) != 1 or token.negated or token.repeats for token in _tokens(self.include)):
            return None
        return frozenset("".join(char for token in pattern for char in token.chars) for pattern in self.include)

    @cached_property
    def chars(self) -> frozenset[str]:
        """Return the characters that some pattern distinguishes from others."""
        return frozenset(char for token in _tokens(self.include + self.exclude) for char in token.chars)

    def has(self, name: str) -> bool:
        """Tell whether a name is one of them."""
        state = self.after(name)
        return state is not None and state.accepted

    def after(self, text: str) -> _State | None:
        """Return the state after a name's beginning `text`; `None` if no such name exists."""
        return _State(self, _begin(self.include), _begin(self.exclude)).after(text)

    def solutions(self, before: str) -> list[str] | None:
        """Return the texts that may follow `before` in the names, shorter ones first; `None` if `whole` is `None`."""
        if self.whole is None:
            return None
        found = (name.removeprefix(before) for name in self.whole if name.startswith(before) and self.has(name))
        return sorted(filter(None, found), key=lambda name: (len(name), name))


class _State(NamedTuple):
    """The beginning of a name."""

    names: Names
    included: _Places
    excluded: _Places

    @property
    def accepted(self) -> bool:
        return _ends(self.names.include, self.included) and not _ends(self.names.exclude, self.excluded)

    def after(self, text: str) -> _State | None:
        """Return the state once `text` follows; `None` if no such name exists."""
        state: _State | None = self
        for char in text:
            state = state and state.step(char)
        return state

    @property
    def heads(self) -> frozenset[str] | None:
        """Return the characters that may come next; `None` if they cannot be listed."""
        include = self.names.include
        nexts = [include[index][at] for index, at in self.included if at < len(include[index])]
        return None if any(token.negated for token in nexts) else frozenset(_chars(nexts))

    def step(self, char: str) -> _State | None:
        included = _step(self.names.include, self.included, char)
        excluded = _step(self.names.exclude, self.excluded, char)
        if not included or _holds_for_good(self.names.exclude, excluded):
            return None
        return _State(self.names, included, excluded)


@lru_cache(maxsize=16384)  # a preview compares each stream with every other one
def common(asked: tuple[tuple[str, Names], ...]) -> str | None:
    """Return the shortest name that, prefixed with each text in `asked`, is in its names; `None` without one."""
    found = listed(asked)
    if found is not None:
        return next(iter(found), None)
    return _search(asked)


def listed(asked: tuple[tuple[str, Names], ...]) -> list[str] | None:
    """Return all names that `common` may return, shorter ones first; `None` if they cannot be listed."""
    for text, names in asked:
        if (words := names.solutions(text)) is not None:
            return [word for word in words if _all_have(asked, word)]
    return None


@lru_cache(maxsize=16384)
def can_follow(names: Names, first: str, prefixes: tuple[str, ...], text: str) -> bool:
    """Tell whether one of `names` may be `first`, then any of the prefixes any number of times, then `text`, then more.

    It may return True without such a name, but never False with one.
    """
    return any(state.after(text) is not None for state in _reached(names, first, prefixes))


@lru_cache(maxsize=4096)
def _reached(names: Names, first: str, prefixes: tuple[str, ...]) -> frozenset[_State]:
    """Return the states after `first` and any number of prefixes."""
    begun = names.after(first)
    waiting = [] if begun is None else [begun]
    found = set(waiting)
    while waiting:
        state = waiting.pop()
        for prefix in prefixes:
            if (longer := state.after(prefix)) is not None and longer not in found:
                found.add(longer)
                waiting.append(longer)
    return frozenset(found)


def _all_have(asked: Iterable[tuple[str, Names]], word: str) -> bool:
    return all(names.has(text + word) for text, names in asked)


def _search(asked: tuple[tuple[str, Names], ...]) -> str | None:
    """Search all beginnings of names in parallel, shorter ones first."""
    told = frozenset[str]().union(*(names.chars for _, names in asked))
    other = next((char for char in "x" + _LEGAL if char not in told), "")  # stands for all others
    alphabet = sorted({*told.intersection(_LEGAL), *other}, key=_LEGAL.index)
    begun = [names.after(text) for text, names in asked]
    first = tuple(state for state in begun if state is not None)
    waiting = {first: ""} if len(first) == len(begun) else {}
    seen = set(waiting)
    while waiting:
        longer: dict[tuple[_State, ...], str] = {}
        for states, word in waiting.items():
            for char in _next(states, alphabet):
                stepped = tuple(filter(None, (state.step(char) for state in states)))
                if len(stepped) == len(states) and all(state.accepted for state in stepped):
                    return word + char
                if len(stepped) == len(states) and stepped not in seen:
                    seen.add(stepped)
                    longer[stepped] = word + char
        waiting = longer
    return None


def _next(states: Iterable[_State], alphabet: list[str]) -> list[str]:
    heads = [heads for state in states if (heads := state.heads) is not None]
    return [char for char in alphabet if all(char in known for known in heads)]


def _tokens(patterns: Iterable[Pattern]) -> Iterator[Token]:
    return (token for pattern in patterns for token in pattern)


def _chars(tokens: Iterable[Token]) -> Iterator[str]:
    return (char for token in tokens for char in token.chars)


def _begin(patterns: tuple[Pattern, ...]) -> _Places:
    return frozenset(
        kafka_endpoint for index, pattern in enumerate(patterns) for kafka_endpoint in _from(pattern, index, 0)
    )


def _from(pattern: Pattern, index: int, at: int) -> Iterator[tuple[int, int]]:
    """Yield a position, and the later ones that are reachable without a character."""
    yield index, at
    while at < len(pattern) and pattern[at].repeats:
        at += 1
        yield index, at


def _step(patterns: tuple[Pattern, ...], places: _Places, char: str) -> _Places:
    return frozenset(
        kafka_endpoint
        for index, at in places
        if at < len(pattern := patterns[index]) and (token := pattern[at]).takes(char)
        for kafka_endpoint in _from(pattern, index, at if token.repeats else at + 1)
    )


def _holds_for_good(patterns: tuple[Pattern, ...], places: _Places) -> bool:
    """Tell whether a pattern matches any continuation."""
    return any(patterns[index][at:] == ANYTHING for index, at in places)


def _ends(patterns: tuple[Pattern, ...], places: _Places) -> bool:
    return any(at == len(patterns[index]) for index, at in places)
