"""The policy of an agent: granted databases, destinations, references and folders for copies. It reads no file.

Paths are compared with links resolved, endpoints by scheme, host and port as written: the owner of a host's name
decides what it resolves to.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field

from replicator import authref
from replicator.backends.shared.identity import Look
from replicator.backends.sqlite.declarations import canonical_endpoint
from replicator.backends.sqlite.handles import Untrusted, settled
from replicator.backends.sqlite.locations import source_path
from replicator.backends.sqlite.replica import FolderLocation, ReplicaLocation, S3Location, parse_replica
from replicator.errors import PolicyMissing, PolicyRefused, PolicyUnusable, ReplicatorError, SecretExposed
from replicator.model import Model, Stream
from replicator.replicator import Finding, Severity

_WHOLE_BUCKET = "whole-bucket"
_ANY = "/*"


def _folder(path: str) -> str:
    if not Path(path).is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _place(uri: str) -> str:
    _parse(uri)
    return uri


def _reference(text: str) -> str:
    try:
        authref.parse(text)
    except ReplicatorError as error:
        raise ValueError(error.message) from None
    return text


class _Grant(Model):
    model_config = ConfigDict(strict=True)


class FolderGrant(_Grant):
    """A folder, and all below it; or one file."""

    folder: Annotated[str, AfterValidator(_folder)]


class DestinationGrant(_Grant):
    """A destination, all below it, and the identity that may be used there.

    :param uri: `s3://bucket/prefix?endpoint=…`, `s3://bucket` for all of a bucket, or `file:///folder`.
    :param auth_ref: the reference, as programs write it; `file:///folder/*` or `dir:///folder/*` for all below a
        folder. Left out, no reference: a folder, or the host's own role.
    """

    uri: Annotated[str, AfterValidator(_place)]
    auth_ref: Annotated[str, AfterValidator(_reference)] | None = None


class Policy(Model):
    """All that is granted.

    :param source: where databases may be.
    :param destination: where replicas may be, and as whom.
    :param replay: where copies may be written to.
    """

    source: list[FolderGrant] = Field(default_factory=list)
    destination: list[DestinationGrant] = Field(default_factory=list)
    replay: list[FolderGrant] = Field(default_factory=list)

    def grants_source(self, database: Path) -> bool:
        """Tell whether a stream may read and write this file."""
        return _is_below(database, self.source)

    def grants_copy(self, target: Path) -> bool:
        """Tell whether a replay may write this file. A link of another user is not followed."""
        asked = _settled(target)
        return any(asked.is_relative_to(_settled(Path(grant.folder))) for grant in self.replay)

    def grants_destination(self, uri: str, auth_ref: str | None) -> bool:
        """Tell whether a stream may use a destination with an identity."""
        return any(_covers(grant, uri) and _same_reference(grant.auth_ref, auth_ref) for grant in self.destination)


class Policies(Protocol):
    """Where an agent's policy comes from."""

    @property
    def path(self) -> Path:
        """Return the path of the policy file."""

    def current(self) -> Policy | None:
        """Return the current policy, or `None` without a file. Raise `PolicyUnusable`."""


class Gate:
    """A check that refuses what the policy does not grant. Its methods may block on the disk.

    :param policies: `None` for a driver without a policy.
    :param declared: every stream on record.
    """

    def __init__(self, policies: Policies | None, declared: Callable[[], Iterable[Stream]]) -> None:
        self._policies = policies
        self.declared = declared

    async def admit(self, check: Callable[[Stream], None], stream: Stream) -> None:
        """Run a check of this gate, in a thread if it reads more than the policy file."""
        if self._current() is None:
            check(stream)
        else:
            await asyncio.to_thread(check, stream)

    def check_source(self, stream: Stream) -> None:
        """Raise `PolicyRefused` where the database may not be opened."""
        if (policy := self._current()) is not None and not policy.grants_source(source_path(stream)):
            where = _real(source_path(stream))
            raise self._refused(stream.name, "source.uri", f"no database at {where}", source_lines(where.parent))

    def check_destination(self, stream: Stream) -> None:
        """Raise `PolicyRefused` if destination or identity is not granted, `SecretExposed` for a key in clear."""
        end, policy = stream.destination, self._current()
        if policy is None:
            self._refuse_new_in_clear(stream)
            return
        if policy.grants_destination(end.uri, end.auth_ref):
            return
        shown = _shown(end.uri)
        if any(_covers(grant, end.uri) for grant in policy.destination):
            whose = f"the reference {end.auth_ref}" if end.auth_ref else "the host's own role"
            found = "destination.authRef", f"{whose} not for {shown}"
        else:
            found = "destination.uri", f"no destination at {shown}"
        raise self._refused(stream.name, *found, destination_lines(end.uri, end.auth_ref))

    def check_copy(self, stream: str, target: Path) -> None:
        """Raise `PolicyRefused` where no copy may be written to a path."""
        if (policy := self._current()) is not None and not policy.grants_copy(target):
            raise self._refused(stream, "target", f"no copy at {target}", replay_lines(_settled(target).parent))

    def findings(self) -> list[Finding]:
        """Return a warning where the agent has no policy."""
        try:
            if self._policies is None or self._current() is not None:
                return []
        except PolicyUnusable:  # each refusal reports it
            return []
        return [Finding.of(missing(self._policies.path), Severity.WARNING)]

    def _current(self) -> Policy | None:
        return self._policies.current() if self._policies is not None else None

    def _refused(self, stream: str, property: str, what: str, lines: str) -> PolicyRefused:
        path = self._policies.path if self._policies is not None else None
        return PolicyRefused(
            f"the agent's policy grants {what}",
            stream=stream,
            property=property,
            fix=f"where this is meant, add to {path} on the agent's host:\n{lines}",
        )

    def _refuse_new_in_clear(self, stream: Stream) -> None:
        """Refuse http without a policy, except for the endpoint of a recorded stream, which worked before."""
        uri = stream.destination.uri
        if not sends_in_clear(uri):
            return
        endpoint = _endpoint_of(_parse(uri))
        for other in self.declared():
            with suppress(ValueError):  # a record may hold what this release refuses
                if _endpoint_of(_parse(other.destination.uri)) == endpoint:
                    return
        where = f" to {self._policies.path}" if self._policies is not None else ""
        raise SecretExposed(
            f"the key would go to {endpoint} over http, in clear",
            stream=stream.name,
            property="destination.uri",
            fix="use an https endpoint; where the network is your own, run replicator agent init on the agent's host, "
            f"and add{where}:\n{destination_lines(uri, stream.destination.auth_ref)}",
        )


def missing(path: Path) -> PolicyMissing:
    """Return the error for a missing policy."""
    return PolicyMissing(
        f"the agent has no policy file {path}. So a program that is only previewed may name any secret of its host, "
        "and any endpoint to send it to",
        fix="run on the agent's host: replicator agent init",
    )


def sends_in_clear(uri: str) -> bool:
    """Tell whether a destination is reached over http on another host."""
    location = _parse(uri)
    endpoint = location.endpoint if isinstance(location, S3Location) else None
    parts = urlsplit(endpoint or "")
    return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


# --- The lines of a file ---------------------------------------------------------------------------------------------


def source_lines(folder: Path) -> str:
    """Return the lines that grant the databases below a folder."""
    return _lines("source", folder=str(folder))


def replay_lines(folder: Path) -> str:
    """Return the lines that grant copies below a folder."""
    return _lines("replay", folder=str(folder))


def destination_lines(uri: str, auth_ref: str | None) -> str:
    """Return the lines that grant a destination to an identity."""
    return _lines("destination", uri=_shown(uri), **({"authRef": auth_ref} if auth_ref else {}))


def lines_for(policy: Policy, streams: Iterable[Stream], targets: Iterable[Path] = ()) -> list[str]:
    """Return the lines that a policy lacks for streams, and for copies to paths, each once."""
    return list(dict.fromkeys(_lacking(policy, streams, targets)))


def _lacking(policy: Policy, streams: Iterable[Stream], targets: Iterable[Path]) -> Iterator[str]:
    kept = list(streams)
    for stream in kept:
        if not policy.grants_source(source_path(stream)):
            yield source_lines(_real(source_path(stream)).parent)
    for stream in kept:
        if not policy.grants_destination(stream.destination.uri, stream.destination.auth_ref):
            yield destination_lines(stream.destination.uri, stream.destination.auth_ref)
    for target in targets:
        if not policy.grants_copy(target):
            yield replay_lines(_settled(target).parent)


def _lines(table: str, **values: str) -> str:
    return "\n".join([f"[[{table}]]", *(f"{key} = {_text(value)}" for key, value in values.items())])


def _text(value: str) -> str:
    """Return a basic string of TOML, which uses JSON's escapes."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# --- Coverage --------------------------------------------------------------------------------------------------------


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _settled(path: Path) -> Path:
    try:
        return settled(path)
    except Untrusted:
        return Path(os.path.normpath(path))


def _is_below(path: Path, grants: Iterable[FolderGrant]) -> bool:
    real = _real(path)
    return any(real.is_relative_to(_real(Path(grant.folder))) for grant in grants)


def _covers(grant: DestinationGrant, uri: str) -> bool:
    granted, asked = _parse(grant.uri), _parse(uri)
    if isinstance(granted, FolderLocation) or isinstance(asked, FolderLocation):
        return type(granted) is type(asked) and Look().at(grant.uri).contains(Look().at(uri))
    if not (isinstance(granted, S3Location) and isinstance(asked, S3Location)):
        return False
    names, below = _names(granted), _names(asked)
    return _endpoint_of(granted) == _endpoint_of(asked) and below[: len(names)] == names


def _parse(uri: str) -> ReplicaLocation:
    """Read a destination, or a bucket as a whole. Raise ValueError."""
    parts = urlsplit(uri)
    if parts.scheme == "s3" and not parts.path.strip("/"):
        uri = parts._replace(path=f"/{_WHOLE_BUCKET}").geturl()
        location = parse_replica(uri)
        assert isinstance(location, S3Location)
        return S3Location(location.bucket, "", location.endpoint, location.region)
    return parse_replica(uri)


def _endpoint_of(location: ReplicaLocation) -> str:
    endpoint = location.endpoint if isinstance(location, S3Location) else None
    return canonical_endpoint(endpoint) if endpoint else ""


def _names(location: S3Location) -> list[str]:
    return [location.bucket, *(name for name in location.prefix.split("/") if name)]


def _shown(uri: str) -> str:
    """Return a destination as a grant names it: without the region, with links of a folder resolved."""
    location = _parse(uri)
    if isinstance(location, FolderLocation):
        return f"file://{_real(location.folder)}"
    assert isinstance(location, S3Location)
    return S3Location(location.bucket, location.prefix, location.endpoint).url_for_engine()


def _same_reference(granted: str | None, asked: str | None) -> bool:
    if granted is None or asked is None:
        return granted is asked
    mine, theirs = authref.parse(granted), authref.parse(asked)
    if (mine.scheme, mine.key, dict(mine.fields)) != (theirs.scheme, theirs.key, dict(theirs.fields)):
        return False
    if mine.scheme != "env" and mine.path.endswith(_ANY):
        folder, file = _real(Path(mine.path.removesuffix(_ANY))), _real(Path(theirs.path))
        return file != folder and file.is_relative_to(folder)
    return mine.path == theirs.path


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
