"""Globs over topics: `*` and `?` stand for some characters of a name, but for no dot."""

from __future__ import annotations

import json
import re

from replicator.errors import InvalidStream

_GLOB = re.compile(r"[A-Za-z0-9._*?-]+")
_REGEX = re.compile(r"^\.\*|[\^$|()\[\]{}+\\]")
_ANY = re.compile(r"\.[*+]\??")
_REPEATED = re.compile(r"[^.][*?+]")
_WORDS = {"*": r"[^.]*", "?": r"[^.]"}
_WHAT_GLOBS_ARE = "topics hold letters, digits, . _ and -; * and ? stand for some of them, but for no dot"


def refuse_regex(pattern: str, property: str) -> None:
    """Raise `InvalidStream` for a text that is not a glob, with the globs that mean the same as a regular expression.

    A glob that begins with a dot matches only topics that MirrorMaker 2 never copies, so `.*` there is a regular
    expression, as in MirrorMaker 2's own files. `orders.*` is a glob.
    """
    if _GLOB.fullmatch(pattern) and not pattern.startswith(".*"):
        return
    if not _REGEX.search(pattern):
        raise _matches_nothing(pattern, property)
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


def glob_regex(glob: str, property: str) -> str:
    """Return a glob as a regular expression for Java and Python alike, without a comma, Java's separator."""
    if not _GLOB.fullmatch(glob):
        raise _matches_nothing(glob, property)
    return "".join(_WORDS.get(char, rf"\{char}" if char in ".-" else char) for char in glob)


def _matches_nothing(glob: str, property: str) -> InvalidStream:
    return InvalidStream(f"{glob!r} can match no topic", property=property, fix=_WHAT_GLOBS_ARE)
