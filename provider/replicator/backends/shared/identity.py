"""The identity of the place that a URI names, whatever its spelling.

An identity is computed for each comparison and never stored: a link may point elsewhere tomorrow, and a folder that
does not exist today may have an inode then.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

FILES = "file://"
"""The store of this host's folders and files."""

AWS = "s3.amazonaws.com"
"""The store of buckets at AWS, where a bucket's name is unique across regions."""

Node = tuple[int, int]

_LOOPBACK = ("127.0.0.1", "::1")
_DEFAULT_PORTS = (80, 443)


@dataclass(frozen=True, slots=True)
class Identity:
    """One place in one store.

    :param store: the files of this host, or the resolved address of a server.
    :param path: the names on its path, with links resolved.
    :param nodes: device and inode of each existing name, from the first one. The root of a file system has none.
    """

    store: str
    path: tuple[str, ...]
    nodes: tuple[Node, ...] = ()

    def contains(self, other: Identity) -> bool:
        """Tell whether the other place is this one, or is inside it."""
        if self.store != other.store:
            return False
        if other.path[: len(self.path)] == self.path:
            return True
        if not self.nodes or self.nodes[-1] not in other.nodes:
            return False
        depth, missing = other.nodes.index(self.nodes[-1]) + 1, self.path[len(self.nodes) :]
        return other.path[depth : depth + len(missing)] == missing

    def overlaps(self, other: Identity) -> bool:
        """Tell whether both are one place, or one is inside the other."""
        return self.contains(other) or other.contains(self)

    def is_same(self, other: Identity) -> bool:
        """Tell whether both are one place."""
        return self.contains(other) and other.contains(self)

    def __str__(self) -> str:
        """Return the place's canonical spelling: a URI with the real path, or with the store's endpoint."""
        if self.store == FILES:
            return FILES + "/".join(["", *self.path])
        if self.store.startswith("s3://"):
            return f"s3://{'/'.join(self.path)}?endpoint={self.store.removeprefix('s3://')}"
        return "/".join([self.store, *self.path])


class Sight(NamedTuple):
    """A name on this host's disk, as it is now.

    :param target: a symbolic link's target; the name itself if the target does not exist.
    """

    node: Node
    target: str | None


def sight_of(path: str) -> Sight | None:
    """Look at a name; return `None` if it does not exist, or the agent may not see it."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    node = found.st_dev, found.st_ino
    if not stat.S_ISLNK(found.st_mode):
        return Sight(node, None)
    try:
        return Sight(node, os.path.realpath(path, strict=True))
    except FileNotFoundError:
        return Sight(node, os.path.realpath(path))
    except OSError:  # circular links
        return Sight(node, path)


class Look:
    """One pass over the stores' addresses and this host's disk, which looks up each name once.

    :ivar sights: the result for each name.
    """

    def __init__(self) -> None:
        self.sights: dict[str, Sight | None] = {}
        self._found: dict[str, Identity] = {}

    def at(self, uri: str) -> Identity:
        """Return the identity of an endpoint's place."""
        place = _read(uri)
        return place if isinstance(place, Identity) else self.at_path(place)

    def at_path(self, path: str) -> Identity:
        """Return the identity of an absolute path: links are followed, and names that do not exist are kept."""
        if path not in self._found:
            folder, _, name = path.rstrip("/").rpartition("/")
            self._found[path] = self._below(self.at_path(folder), name) if name else _ROOT
        return self._found[path]

    def _below(self, folder: Identity, name: str) -> Identity:
        if name == ".":
            return folder
        if name == "..":
            return Identity(FILES, folder.path[:-1], folder.nodes[: len(folder.path) - 1]) if folder.path else folder
        path = (*folder.path, name)
        if len(folder.nodes) < len(folder.path):
            return Identity(FILES, path, folder.nodes)
        real = "/" + "/".join(path)
        sight = self.sights[real] = sight_of(real)
        if sight is None or sight.target == real:  # the name itself has to suffice
            return Identity(FILES, path, folder.nodes)
        if sight.target is not None:
            return self.at_path(sight.target)
        return Identity(FILES, path, (*folder.nodes, sight.node))


@lru_cache(maxsize=8192)
def _read(uri: str) -> Identity | str:
    """Return the place, or its path if only the disk can tell the place."""
    parts = urlsplit(uri)
    if parts.scheme in ("file", "sqlite", "base"):
        return unquote(parts.path)
    if parts.scheme == "s3":
        endpoint = dict(parse_qsl(parts.query)).get("endpoint")
        return Identity(f"s3://{resolved_endpoint(endpoint)}", (parts.netloc, *_names(parts.path)))
    return Identity(f"{parts.scheme}://{parts.netloc.lower()}", _names(parts.path))


_ROOT = Identity(FILES, ())


def resolved_endpoint(endpoint: str | None) -> str:
    """Return the canonical address of an S3 store; `AWS` for every endpoint of AWS, and without one."""
    try:
        parts = urlsplit(endpoint or f"https://{AWS}")
        number = parts.port
    except ValueError:  # no request could reach it
        return endpoint or AWS
    host = (parts.hostname or "").rstrip(".")
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return AWS
    port = "" if number is None or number in _DEFAULT_PORTS else f":{number}"
    return f"{'localhost' if host in _LOOPBACK else host}{port}{parts.path.rstrip('/')}"


def _names(path: str) -> tuple[str, ...]:
    return tuple(name for name in unquote(path).split("/") if name)
