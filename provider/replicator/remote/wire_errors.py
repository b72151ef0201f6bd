"""Errors in the protocol, with the same class, stream, property and fix on both sides."""

from __future__ import annotations

from pydantic import ValidationError

from replicator.errors import BY_CODE, AgentFault, Category, InvalidStream, ReplicatorError
from replicator.remote.routes import Fault

STATUS: dict[Category, int] = {
    Category.INVALID: 422,
    Category.MISSING: 404,
    Category.CONFLICT: 409,
    Category.DENIED: 403,
    Category.UNAVAILABLE: 503,
    Category.TIMEOUT: 504,
    Category.CANCELLED: 499,
    Category.FAILED: 500,
}


def to_wire(error: ReplicatorError) -> Fault:
    """Return the parts of an error."""
    return Fault(code=error.code, message=error.message, stream=error.stream, property=error.property, fix=error.fix)


def from_wire(content: bytes, status: int) -> ReplicatorError:
    """Return the error in an answer; `AgentFault` if it holds no known one.

    :param status: the HTTP status of the answer, for the text.
    """
    try:
        fault = Fault.model_validate_json(content)
    except ValidationError:
        return AgentFault(f"it answered HTTP {status} without saying why", fix="read the agent's log")
    known = BY_CODE.get(fault.code)
    message = fault.message if known else f"{fault.message} [{fault.code}]"
    return (known or AgentFault)(message, stream=fault.stream, property=fault.property, fix=fault.fix)


def invalid(error: ValidationError, stream: str | None) -> InvalidStream:
    """Return the error for a model's validation error, without the value, which may be a secret."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    first = problems[0]
    place = [str(part) for part in first["loc"]]
    if place[:1] == ["stream"]:
        del place[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidStream(
        first["msg"].removeprefix("Value error, ") + more, stream=stream, property=".".join(place) or None
    )
