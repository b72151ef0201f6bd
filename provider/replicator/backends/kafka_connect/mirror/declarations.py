"""The rules of a mirror's declaration: spellings of its clusters, and checks that need no worker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

from replicator.backends.kafka.endpoint import canonical_kafka_uri, is_same_cluster, kafka_endpoint
from replicator.backends.kafka_connect.mirror.topics import Naming, include_patterns
from replicator.backends.kafka_connect.placeholders import refuse_one_value
from replicator.errors import InvalidStream, ReplicatorError
from replicator.model import End, Endpoint, Mode, Stream

_GLOB = re.compile(r"[A-Za-z0-9._*?-]+")
_REGEX = re.compile(r"^\.\*|[\^$|()\[\]{}+\\]")
_ANY = re.compile(r"\.[*+]\??")
_REPEATED = re.compile(r"[^.][*?+]")
_WHAT_GLOBS_ARE = "topics hold letters, digits, . _ and -; * and ? stand for some of them, but for no dot"


canonical_uri = canonical_kafka_uri
is_same_place = is_same_cluster


def refusals(stream: Stream) -> Iterator[ReplicatorError]:
    """Yield the reasons why no worker could run this mirror."""
    checks: tuple[Callable[[], object], ...] = (
        partial(_refuse_end, stream.source, "source"),
        partial(_refuse_end, stream.destination, "destination"),
        partial(Naming.of, stream),
        *(partial(refuse_regex, pattern, "include") for pattern in stream.include),
        *(partial(refuse_regex, pattern, "exclude") for pattern in stream.exclude),
    )
    for check in checks:
        try:
            check()
        except ReplicatorError as error:
            yield error


def begins_at_the_beginning(stream: Stream) -> bool:
    """Tell whether the first record to copy is the oldest one retained at the source."""
    return stream.start_from == "earliest" or (stream.start_from is None and stream.mode is not Mode.CDC)


def _refuse_end(endpoint: Endpoint, end: End) -> None:
    ref = kafka_endpoint(endpoint, end).ref
    if ref is not None:
        refuse_one_value(ref, f"{end}.authRef")


def refuse_regex(pattern: str, property: str) -> None:
    """Raise `InvalidStream` for a text that is not a glob, with the globs that mean the same as a regular expression.

    A glob that begins with a dot matches only topics that MirrorMaker 2 never copies, so `.*` there is a regular
    expression, as in MirrorMaker 2's own files. `orders.*` is a glob.
    """
    if _GLOB.fullmatch(pattern) and not pattern.startswith(".*"):
        return
    if not _REGEX.search(pattern):
        raise InvalidStream(f"{pattern!r} can match no topic", property=property, fix=_WHAT_GLOBS_ARE)
    problem = f"{pattern!r} is a regular expression, and {property} takes globs"
    globs = globs_of(pattern)
    if globs is None:
        raise InvalidStream(problem, property=property, fix=f"write each name, or a glob: {_WHAT_GLOBS_ARE}")
    fix = f"write {', '.join(map(json.dumps, globs))}"
    if any("*" in glob for glob in globs):
        fix += "; in a glob, * stands for no dot"
    if property == "include" and globs == ["*"]:
        fix += ", so leave include out to take every topic"
    raise InvalidStream(problem, property=property, fix=fix)


def globs_of(regex: str) -> list[str] | None:
    """Return the globs that match what a regular expression matches, except for dots; `None` if none do."""
    found = []
    for part in regex.removeprefix("^").removesuffix("$").removeprefix("(").removesuffix(")").split("|"):
        bare = part.removeprefix("^").removesuffix("$")
        glob = re.sub(r"\\([.\-_])", r"\1", _ANY.sub("*", bare))
        if _REPEATED.search(bare) or not _GLOB.fullmatch(glob):
            return None
        found.append(glob)
    return found


def misread_globs(globs: Iterable[str], topics: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each glob such as `orders.*` that matches no topic, with its matches as a regular expression."""
    for glob in globs:
        if ".*" not in glob or any(_takes(include_patterns([glob])[0], topic) for topic in topics):
            continue
        if meant := [topic for topic in sorted(topics) if _takes(glob, topic)]:
            yield glob, meant


def _takes(regex: str, topic: str) -> bool:
    try:
        return re.fullmatch(regex, topic) is not None
    except re.error:  # a glob such as `a.**`
        return False
