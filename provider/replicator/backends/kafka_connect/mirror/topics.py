"""The topics that a mirror copies, and their names at the destination."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from replicator.backends.kafka.topic_globs import glob_regex
from replicator.backends.kafka_connect.mirror.globs import ANYTHING, Names, Pattern, literal, parse
from replicator.errors import InvalidStream
from replicator.model import Endpoint, Stream

PREFIX_POLICY = "org.apache.kafka.connect.mirror.DefaultReplicationPolicy"
IDENTITY_POLICY = "org.apache.kafka.connect.mirror.IdentityReplicationPolicy"
_POLICY = "replication.policy.class"
_SEPARATOR = "replication.policy.separator"
_ALIAS = "source.cluster.alias"
_INTERNAL = (r".*[\-\.]internal", r".*\.replica", "__.*", r"\..*")  # never copied, or not by default


CONNECT_TOPICS = ("connect-configs", "connect-offsets", "connect-status")
"""The usual names of a Connect cluster's internal topics: a worker on a copy would run the same connectors."""


@dataclass(frozen=True, slots=True)
class Naming:
    """MirrorMaker 2's names of clusters and topics.

    :param source: alias of the source's cluster, the prefix of its topics at the destination.
    :param target: alias of the destination's cluster; topics with this prefix came from there, and are left out.
    :param prefixed: whether topics get the source's alias.
    """

    source: str
    target: str
    prefixed: bool
    separator: str = "."

    @classmethod
    def of(cls, stream: Stream) -> Naming:
        """Return a stream's naming. Aliases are the regions, unless `options` name the source's.

        Raise `InvalidStream` for another replication policy.
        """
        options = stream.options
        return _naming(
            str(options.get(_POLICY, PREFIX_POLICY)),
            str(options.get(_ALIAS, _alias(stream.source, "source"))),
            _alias(stream.destination, "target"),
            str(options.get(_SEPARATOR, ".")),
        )

    def at_destination(self, topic: str) -> str:
        """Return the name of a topic's copy."""
        return f"{self.source}{self.separator}{topic}" if self.prefixed else topic

    def came_from(self, topic: str, alias: str) -> bool:
        """Tell whether a topic's name is that of a copy from another cluster."""
        return self.prefixed and topic.startswith(f"{alias}{self.separator}")

    def came_through(self, topic: str, alias: str) -> bool:
        """Tell whether its name is that of a copy, or of a copy of a copy, that passed another cluster.

        MirrorMaker 2 reads each part of a name but the last one as a cluster.
        """
        return self.prefixed and alias in topic.split(self.separator)[:-1]


@lru_cache(maxsize=4096)  # a preview compares each stream with every other one
def _naming(policy: str, alias: str, target: str, separator: str) -> Naming:
    if policy not in (PREFIX_POLICY, IDENTITY_POLICY):
        raise InvalidStream(
            f"{policy!r} is a policy whose names are not known here",
            property=f"options.{_POLICY}",
            fix=f"take {PREFIX_POLICY}, which prefixes, or {IDENTITY_POLICY}, which keeps the names",
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", alias):
        raise InvalidStream(
            f"{alias!r} cannot begin the name of a topic",
            property=f"options.{_ALIAS}",
            fix="write letters, digits, - and _",
        )
    if alias == target:
        raise InvalidStream(
            f"both clusters have the alias {alias!r}",
            property="destination.region",
            fix=f"give each end its own region, or set options.{_ALIAS}",
        )
    if not re.fullmatch(r"[A-Za-z0-9._-]+", separator):
        raise InvalidStream(
            f"{separator!r} cannot stand in the name of a topic",
            property=f"options.{_SEPARATOR}",
            fix="write letters, digits, . - and _",
        )
    return Naming(alias, target, policy == PREFIX_POLICY, separator)


def _alias(endpoint: Endpoint, word: str) -> str:
    return endpoint.region or word


def matching_topics(stream: Stream, topics: Iterable[str]) -> list[str]:
    """Return the topics that the mirror copies, sorted."""
    include, exclude = _patterns(tuple(stream.include), tuple(stream.exclude))
    naming = Naming.of(stream)
    return sorted(
        topic
        for topic in topics
        if include.fullmatch(topic) and not exclude.fullmatch(topic) and not naming.came_through(topic, naming.target)
    )


def named(stream: Stream) -> list[str]:
    """Return the topics that `include` names literally, and that the mirror copies if they exist."""
    return matching_topics(stream, (glob for glob in stream.include if not {"*", "?"}.intersection(glob)))


def some(names: Sequence[str]) -> str:
    """Return the first of some names, and the number of the others."""
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def takes_no_more(before: Stream, stream: Stream) -> bool:
    """Tell whether a declaration's globs match only topics that those of an earlier declaration match too."""
    if before.include:
        narrower = bool(stream.include) and set(stream.include) <= set(before.include)
    else:
        narrower = set(CONNECT_TOPICS).isdisjoint(stream.include)  # which are copied only by name
    return narrower and set(before.exclude) <= set(stream.exclude)


def names(stream: Stream) -> Names:
    """Return the names of all topics that the mirror would copy, including future ones."""
    naming = Naming.of(stream)
    return _names(tuple(stream.include), tuple(stream.exclude), naming if naming.prefixed else None)


@lru_cache(maxsize=4096)  # a preview compares each stream with every other one
def _names(include: tuple[str, ...], exclude: tuple[str, ...], prefixed: Naming | None) -> Names:
    excluded = [*read_patterns(exclude_patterns(exclude, include)), *(came_through(prefixed) if prefixed else ())]
    return Names(tuple(read_patterns(include_patterns(include))), tuple(excluded))


def read_patterns(regexes: Iterable[str]) -> list[Pattern]:
    """Return the patterns of expressions, without those that no pattern can express."""
    return [pattern for regex in regexes if (pattern := parse(regex)) is not None]


def came_through(naming: Naming) -> tuple[Pattern, ...]:
    """Return the patterns of names that passed the destination, as `Naming.came_through` decides.

    Return none if the separator may overlap with itself or with the alias: a pattern would match too many.
    """
    between, alias = literal(naming.separator), literal(naming.target)
    overlaps = any(naming.separator.endswith(naming.separator[:size]) for size in range(1, len(naming.separator)))
    if overlaps or naming.separator in naming.target:
        return ()
    first = (*alias, *between, *ANYTHING)
    return first, (*ANYTHING, *between, *first)


@lru_cache(maxsize=4096)  # a preview compares each stream with every other one
def _patterns(include: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    return re.compile("|".join(include_patterns(include))), re.compile("|".join(exclude_patterns(exclude, include)))


def include_patterns(globs: Iterable[str]) -> list[str]:
    """Return MirrorMaker 2's `topics`: regular expressions that match whole names."""
    return [glob_regex(glob, "include") for glob in globs] or [".*"]


def exclude_patterns(globs: Iterable[str], include: Collection[str]) -> list[str]:
    """Return MirrorMaker 2's `topics.exclude`.

    :param include: the included globs; an internal topic of Connect is copied only by its full name.
    """
    matching_topics = [re.compile(pattern) for pattern in include_patterns(include)]
    own = [
        name for name in CONNECT_TOPICS if name not in include and any(one.fullmatch(name) for one in matching_topics)
    ]
    return [
        *_INTERNAL,
        *(glob_regex(name, "exclude") for name in own),
        *(glob_regex(glob, "exclude") for glob in globs),
    ]


def exclude_patterns_of_0_1(globs: Iterable[str]) -> list[str]:
    """Return the same as release 0.1 wrote it, which did not exclude Connect's internal topics."""
    return [*_INTERNAL, *(glob_regex(glob, "exclude") for glob in globs)]
