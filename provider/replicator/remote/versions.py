"""The translation to and from protocol 1, of release 0.1, which an agent or a client may still speak.

Protocol 1 has no `issue` in an owner, no findings, no description without a declaration, and no answer to a delete. Its
agents create the owner's token, send it in clear, and keep `waitFor` and `deletionProtection` in the record.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, TypeVar

from replicator.errors import AgentVersion
from replicator.model import OF_THE_PROGRAM, Owner, Stream, StreamStatus
from replicator.remote.routes import DELETE_STREAM, Operation
from replicator.replicator import Description

T = TypeVar("T")

_SINCE_2: dict[str, Any] = {
    name: Stream.model_fields[name].default for name in ("drain_before_delete", "bookmarks", "on_delete")
}
"""Properties of a stream that protocol 1 refuses, with their defaults."""

_STATUS_SINCE_2: dict[str, Any] = {"uploaded_bytes": None, "upload_total_bytes": None}
"""Properties of a status that protocol 1 refuses, with their defaults."""


def to_agent(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call without those that only the program needs, so that no record holds them."""
    stream = arguments.get("stream")
    if not isinstance(stream, Stream):
        return arguments
    return {**arguments, "stream": stream.model_copy(update=OF_THE_PROGRAM)}


def to_older_agent(arguments: dict[str, Any], address: str) -> dict[str, Any]:
    """Return the arguments of a call for protocol 1; raise `AgentVersion` if it cannot express them."""
    changed = dict(arguments)
    if isinstance(stream := arguments.get("stream"), Stream):
        for name, default in _SINCE_2.items():
            if getattr(stream, name) != default:
                raise AgentVersion(
                    f"the agent at {address} is too old for this property",
                    stream=stream.name,
                    property=Stream.model_fields[name].alias,
                    fix="upgrade replicator-provider on the agent's host, and restart the agent",
                )
        changed["stream"] = stream.model_copy(update={"owner": _for_older_agent(stream.owner)})
    if isinstance(owner := arguments.get("owner"), Owner):
        changed["owner"] = _for_older_agent(owner)
    return changed


def _for_older_agent(owner: Owner | None) -> Owner | None:
    return owner and owner.model_copy(update={"issue": None, "manager": None})


def from_older_agent(operation: Operation[T], content: bytes) -> bytes:
    """Return the answer of an agent of protocol 1 in the current form."""
    return b"true" if operation.method == DELETE_STREAM.method else content


def from_older_client(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of protocol 1, with the token that such a client expects the agent to create."""
    stream = arguments.get("stream")
    if not isinstance(stream, Stream) or stream.owner is None or stream.owner.token is not None:
        return arguments
    owner = stream.owner.model_copy(update={"issue": secrets.token_hex(16)})
    return {**arguments, "stream": stream.model_copy(update={"owner": owner})}


def to_older_client(operation: Operation[Any], result: Any, names: Sequence[str] | None) -> bytes:
    """Return an answer for protocol 1. A listing omits streams without a declaration.

    Raise the finding of such a stream if it is requested by name: the client takes a missing stream for removed.

    :param names: the requested streams.
    """
    if operation.method == DELETE_STREAM.method:
        return b"null"
    if isinstance(result, list):
        lacking = [item for item in result if isinstance(item, Description) and item.declaration is None]
        if lacking and names is not None and len(names) == 1:
            raise lacking[0].findings[0].error(lacking[0].name)
        result = [_known(item) for item in result if item not in lacking]
    result = _known(result)
    return bytes(operation.adapter.dump_json(result, by_alias=True))


def _known(item: Any) -> Any:
    if isinstance(item, Description):
        known = {"declaration": _known(item.stream), "status": _known(item.status), "findings": ()}
        return item.model_copy(update=known)
    if isinstance(item, StreamStatus):
        return item.model_copy(update=_STATUS_SINCE_2)
    return item.model_copy(update=_SINCE_2) if isinstance(item, Stream) else item
