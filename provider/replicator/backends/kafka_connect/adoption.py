"""Reading the configuration of a connector as a declaration: what the adoptions of all backends have in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from pydantic import ValidationError

from replicator.backends.kafka_connect.connector import Connector
from replicator.backends.kafka_connect.record import PART_OF, RECORD_KEYS
from replicator.backends.kafka_connect.validation import PLACEHOLDER
from replicator.backends.shared.supported import refused_options
from replicator.capabilities import Capabilities
from replicator.errors import EngineUnavailable, InvalidStream, Unsupported
from replicator.model import STREAM_NAME, DesiredState, End, Endpoint, EndpointKind, Stream
from replicator.replicator import EndHints, Finding, Severity, Unmanaged

_STOPPED = ("PAUSED", "STOPPED")
RESTART = (
    "the connector's configuration gets the stream's record, and its tasks restart once; its other settings and its "
    "offsets stay as they are"
)


def unmanaged(connectors: Iterable[Connector], classes: Collection[str]) -> list[Unmanaged]:
    """Return the connectors of some classes that belong to no stream, by name."""
    found = [item for item in connectors if is_unmanaged(item) and item.config.get("connector.class") in classes]
    return [
        Unmanaged(name=item.name, what=short(item.config["connector.class"]), state=item.state)
        for item in sorted(found, key=lambda item: item.name)
    ]


def is_unmanaged(connector: Connector) -> bool:
    """Tell whether a connector belongs to no stream, of any backend."""
    return not {*RECORD_KEYS, PART_OF} & connector.config.keys()


def short(connector_class: str) -> str:
    """Return the last part of a class's name."""
    return connector_class.rpartition(".")[2]


def refuse_class(connector: Connector, classes: Collection[str], backend: str) -> None:
    """Raise `Unsupported` if a connector is of another class, and `EngineUnavailable` if its class is not known."""
    known = connector.config.get("connector.class")
    if known is None:
        raise EngineUnavailable("Kafka Connect does not show its configuration", stream=connector.name)
    if known not in classes:
        raise Unsupported(
            f"it is a {short(known)}, and {backend} adopts {', '.join(sorted(set(map(short, classes))))}",
            stream=connector.name,
        )


def plain(config: Mapping[str, str], key: str) -> str | None:
    """Return a setting; `None` without one, or if it holds a placeholder."""
    value = config.get(key)
    return None if value is None or PLACEHOLDER in value else value


def end_of(
    hints: EndHints, kind: EndpointKind, uri: str | None, end: End, example: str, region: str | None = None
) -> Endpoint:
    """Return one end of a stream; raise `InvalidStream` if nothing tells where it is.

    :param uri: what the configuration tells; `None` for nothing.
    :param region: the same of the region.
    """
    at = hints.uri or uri
    if at is None:
        raise InvalidStream(
            "the connector's configuration does not tell where it is", property=f"{end}.uri", fix=f"name it: {example}"
        )
    try:
        return Endpoint(
            kind=kind,
            uri=at,
            region=hints.region or region,
            auth_ref=hints.auth_ref,
            admin_auth_ref=hints.admin_auth_ref,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at_field = first["loc"][0] if first["loc"] else "uri"
        raise InvalidStream(
            str(first["msg"]).removeprefix("Value error, ").removeprefix("uri: "), property=f"{end}.{at_field}"
        ) from None


def named(stream: Stream, options: Mapping[str, object], connector: Connector) -> Stream:
    """Return a declaration with its options, and in the state in which the connector is."""
    state = DesiredState.PAUSED if connector.state in _STOPPED else DesiredState.RUNNING
    return stream.model_copy(update={"options": dict(options), "desired_state": state})


def options_of(config: Mapping[str, str], row: Capabilities, *, without: Collection[str]) -> dict[str, object]:
    """Return the settings that a stream's options can say. Those with a placeholder, or like a secret, are none.

    :param without: those that mean something else in a stream.
    """
    names = [key for key in sorted(config) if key in (row.options or {}) and key not in without]
    found: dict[str, object] = {key: config[key] for key in names if PLACEHOLDER not in config[key]}
    return row.canonical_options(
        {key: value for key, value in found.items() if not list(refused_options({key: value}, row))}
    )


def told(text: str, property: str) -> Finding:
    """Return the warning about something that the declaration does not say of a connector."""
    return Finding(severity=Severity.WARNING, code=InvalidStream.code, message=text, property=property)


def name_of(connector: Connector) -> str:
    """Return the name of a connector; raise `Unsupported` if no stream can have it."""
    if not re.fullmatch(STREAM_NAME, connector.name):
        raise Unsupported(
            f"no stream can have this name: it matches {STREAM_NAME}, and Kafka Connect renames no connector",
            stream=connector.name,
            property="name",
            fix="make the connector again under such a name, with the offsets of GET /connectors/NAME/offsets",
        )
    return connector.name
