"""The rules of litestream's declarations: spellings of places, and what is refused without the agent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

from replicator import authref
from replicator.backends.sqlite.places import KEY_PAIR, check_source_path, file_of, parse_location
from replicator.backends.sqlite.replica import DEFAULT_REGION, S3Location, parse_replica
from replicator.errors import ReplicatorError
from replicator.model import Endpoint, Stream

_DEFAULT_PORTS = {"http": 80, "https": 443}


def canonical_uri(endpoint: Endpoint, end: Literal["source", "destination"]) -> str:
    """Return one spelling of a database, or of a replica; raise ValueError for a destination that is none."""
    if end == "source":
        return f"sqlite://{quote(str(file_of(endpoint.uri)))}"
    location = parse_replica(endpoint.uri)
    if isinstance(location, S3Location):
        region = None if location.region == DEFAULT_REGION else location.region
        location = replace(
            location, endpoint=location.endpoint and _canonical_endpoint(location.endpoint), region=region
        )
    return location.url_for_engine()


def refusals(stream: Stream) -> Iterator[ReplicatorError]:
    """Yield what litestream cannot read or write as it is declared."""
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


def _canonical_endpoint(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return urlunsplit((parts.scheme, f"{host}{port}", parts.path.rstrip("/"), parts.query, ""))
