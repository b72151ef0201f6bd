"""The rules of litestream's declarations: canonical URIs, and refusals that need no agent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote, urlsplit, urlunsplit

from replicator import authref
from replicator.backends.shared.identity import resolved_endpoint
from replicator.backends.sqlite.locations import KEY_PAIR, check_source_path, file_of, parse_location
from replicator.backends.sqlite.replica import DEFAULT_REGION, ReplicaLocation, S3Location, parse_replica
from replicator.errors import ReplicatorError
from replicator.model import End, Endpoint, Stream

_DEFAULT_PORTS = {"http": 80, "https": 443}


def canonical_uri(endpoint: Endpoint, end: End) -> str:
    """Return the canonical URI of a database or replica; raise ValueError for an invalid destination.

    At AWS a bucket has one region, so it does not identify the place. Other stores may require it in signatures.
    """
    if end == "source":
        return f"sqlite://{quote(str(file_of(endpoint.uri)))}"
    location = parse_replica(endpoint.uri)
    if isinstance(location, S3Location):
        store = location.endpoint and canonical_endpoint(location.endpoint)
        region = location.region if store and location.region != DEFAULT_REGION else None
        location = replace(location, endpoint=store, region=region)
    return location.url_for_engine()


def is_same_place(one: Endpoint, other: Endpoint, end: End) -> bool:
    """Tell whether two URIs name the same database path, or the same prefix of one store. Raise ValueError."""
    if end == "source":
        return file_of(one.uri) == file_of(other.uri)
    return _place(parse_replica(one.uri)) == _place(parse_replica(other.uri))


def refusals(stream: Stream) -> Iterator[ReplicatorError]:
    """Yield an error for each declared end that litestream cannot read or write."""
    for check in (check_source_path, parse_location, _refuse_one_value):
        try:
            check(stream)
        except ReplicatorError as error:
            yield error


def _refuse_one_value(stream: Stream) -> None:
    if stream.destination.auth_ref is None:
        return
    try:
        authref.refuse_one_value(authref.parse(stream.destination.auth_ref), KEY_PAIR)
    except ReplicatorError as error:
        error.property = "destination.authRef"
        raise


def _place(location: ReplicaLocation) -> tuple[str, str]:
    store = resolved_endpoint(location.endpoint) if isinstance(location, S3Location) else ""
    return store, str(location)


def canonical_endpoint(endpoint: str) -> str:
    """Return the canonical spelling of an endpoint: lower case, without the scheme's default port."""
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return urlunsplit((parts.scheme, f"{host}{port}", parts.path.rstrip("/"), parts.query, ""))
