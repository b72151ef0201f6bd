"""Which place a URI names, however it is written.

An identity is computed when it is compared, and never stored: a link may point elsewhere tomorrow, and a folder that
does not exist today has an inode then.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

FILES = "file://"
"""The store of folders and files of this host."""

AWS = "s3.amazonaws.com"
"""The store of buckets at AWS, where a bucket's name is unique in all regions."""

Node = tuple[int, int]

_LOOPBACK = ("127.0.0.1", "::1")
_DEFAULT_PORTS = (80, 443)


@dataclass(frozen=True, slots=True)
class Identity:
    """One place in one store.

    :param store: the files of this host, or the resolved address of a server.
    :param path: the names on the way to it, links resolved.
    :param nodes: device and inode at each of the first names; fewer than names where the rest does not exist.
    """

    store: str
    path: tuple[str, ...]
    nodes: tuple[Node, ...] = ()

    def contains(self, other: Identity) -> bool:
        """Return whether the other place is this one, or lies inside it."""
        if self.store != other.store:
            return False
        if other.path[: len(self.path)] == self.path:
            return True
        if not self.nodes:
            return False
        nearest, missing = self.nodes[-1], self.path[len(self.nodes) :]
        return any(
            node == nearest and other.path[depth : depth + len(missing)] == missing
            for depth, node in enumerate(other.nodes, start=1)
        )

    def overlaps(self, other: Identity) -> bool:
        """Return whether both are one place, or one lies inside the other."""
        return self.contains(other) or other.contains(self)

    def is_same(self, other: Identity) -> bool:
        """Return whether both are one place."""
        return self.contains(other) and other.contains(self)

    def __str__(self) -> str:
        """Return one spelling for each place: a URI with the real path, or with the endpoint of the store."""
        if self.store == FILES:
            return FILES + "/".join(["", *self.path[1:]])
        if self.store.startswith("s3://"):
            return f"s3://{'/'.join(self.path)}?endpoint={self.store.removeprefix('s3://')}"
        return "/".join([self.store, *self.path])


class Look:
    """One look at the stores' addresses and at this host's disk, which asks for each folder once."""

    def __init__(self) -> None:
        self._real: dict[Path, Path] = {}
        self._nodes: dict[Path, tuple[Node, ...]] = {}

    def at(self, uri: str) -> Identity:
        """Return the identity of an endpoint's place."""
        parts = urlsplit(uri)
        if parts.scheme in ("file", "sqlite", "base"):
            return self.at_path(unquote(parts.path))
        if parts.scheme == "s3":
            return _at_bucket(parts)
        return Identity(f"{parts.scheme}://{parts.netloc.lower()}", _names(parts.path))

    def at_path(self, path: str | Path) -> Identity:
        """Return the identity of an absolute path."""
        real = self._resolve(Path("/", path))
        return Identity(FILES, real.parts, self._existing(real))

    def _resolve(self, path: Path) -> Path:
        """Follow every link on the way. What does not exist keeps its name."""
        if path not in self._real:
            self._real[path] = self._follow(path)
        return self._real[path]

    def _follow(self, path: Path) -> Path:
        if path.parent == path:
            return path
        candidate = self._resolve(path.parent) / path.name
        try:
            return candidate.resolve() if path.name == ".." or candidate.is_symlink() else candidate
        except (OSError, RuntimeError):  # links in a circle, or a folder that the agent may not search
            return candidate

    def _existing(self, real: Path) -> tuple[Node, ...]:
        if real not in self._nodes:
            above = () if real.parent == real else self._existing(real.parent)
            self._nodes[real] = above + (_node(real) if len(above) == len(real.parts) - 1 else ())
        return self._nodes[real]


def _node(real: Path) -> tuple[Node, ...]:
    try:
        found = real.stat()
    except OSError:  # it does not exist, or the agent may not see it: then its name has to do
        return ()
    return ((found.st_dev, found.st_ino),)


def resolved_endpoint(endpoint: str | None) -> str:
    """Return the address of an S3 store in one spelling; `AWS` for all endpoints of AWS, and for none."""
    try:
        parts = urlsplit(endpoint or f"https://{AWS}")
        number = parts.port
    except ValueError:  # no request can be sent there
        return endpoint or AWS
    host = (parts.hostname or "").rstrip(".")
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return AWS
    port = "" if number is None or number in _DEFAULT_PORTS else f":{number}"
    return f"{'localhost' if host in _LOOPBACK else host}{port}{parts.path.rstrip('/')}"


def _at_bucket(parts: SplitResult) -> Identity:
    endpoint = dict(parse_qsl(parts.query)).get("endpoint")
    return Identity(f"s3://{resolved_endpoint(endpoint)}", (parts.netloc, *_names(parts.path)))


def _names(path: str) -> tuple[str, ...]:
    return tuple(name for name in unquote(path).split("/") if name)
