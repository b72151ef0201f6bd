"""The operations of the `Replicator` interface as one table. It is the contract that server and client share.

A path contains `{kind}` and the arguments that are names; every other argument is a field of the body.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Generic, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter

from replicator.model import TEXT_LIMIT, Checkpoint, Endpoint, Instant, Model, Owner, Stream, StreamStatus, Text
from replicator.replicator import (
    LOG_LINES,
    Adoption,
    Description,
    EndHints,
    Finding,
    LogLines,
    Proposal,
    ReplayMethod,
    ReplayPlan,
    ReplayProgress,
    Takeover,
    Unmanaged,
)

PROTOCOL = 2
"""The version of this table."""

OLDEST = 1
"""The oldest supported version; `versions` translates. Older and later peers are refused."""

PROTOCOL_HEADER = "Replicator-Protocol"

INFO_PATH = "/v1/info"

OPERATION_PATH = "/v1/operations/{operation}"
"""The path at which a client asks for the answer to an operation that outlasted its request."""

PREFER_HEADER = "Prefer"
"""The header of RFC 7240: `respond-async, wait=10` lets the agent answer after 10 s that an operation still runs."""

ACCEPTED = 202
"""The status of that answer."""

GONE = 410
"""The status for an operation that the agent does not know after a restart: the client repeats its request."""


HEAD_LIMIT = 64 * 1024
"""The limit of a request's head, in bytes."""

BODY_LIMIT = 1024 * 1024
"""The limit of a request's body, in bytes."""


def is_older(spoken: str) -> bool:
    """Tell whether a peer's protocol is older than this one; one that is not a number is later."""
    return _number(spoken) < PROTOCOL


def is_spoken(spoken: str) -> bool:
    """Tell whether this side speaks a peer's version of the protocol."""
    return OLDEST <= _number(spoken) <= PROTOCOL


def _number(spoken: str) -> float:
    return int(spoken) if re.fullmatch(r"[0-9]{1,9}", spoken) else math.inf


T = TypeVar("T")


@dataclass(frozen=True)
class Operation(Generic[T]):
    """One row of the table.

    :param method: the method of the interface.
    :param verb: the HTTP verb.
    :param path: the path, with `{…}` where an argument goes; `{key:path}` may hold slashes.
    :param result: the type of the answer.
    :param body: the arguments that are not in the path; `None` where all of them are.
    """

    method: str
    verb: str
    path: str
    result: type[T]
    body: type[Model] | None = None

    @cached_property
    def adapter(self) -> TypeAdapter[T]:
        """Return the adapter that parses and serializes the answer."""
        return TypeAdapter(self.result)

    @cached_property
    def in_path(self) -> frozenset[str]:
        """Return the names of the arguments in the path."""
        return frozenset(re.findall(r"{(\w+)", self.path)) - {"kind"}


class StreamBody(Model):
    """A complete stream."""

    stream: Stream


class AdoptBody(StreamBody):
    """A complete stream, and whether the call is a dry run."""

    dry_run: bool = False


class LookAtDestinationBody(Model):
    """A destination, and a database to compare with it."""

    destination: Endpoint
    database: Endpoint | None = None


class TakeOverBody(Model):
    """A destination, and the agent that has to claim it."""

    destination: Endpoint
    former: Text | None


class ProposeBody(Model):
    """Something that runs at an engine, and what it does not tell of the ends."""

    name: Text
    source: EndHints
    destination: EndHints


class DeleteBody(Model):
    """The owner that deletes."""

    owner: Owner | None = None


class PlanBody(Model):
    """The start of a replay, and its method."""

    start: Checkpoint
    method: ReplayMethod = ReplayMethod.AUTO
    target: Text | None = None


class ReplayBody(PlanBody):
    """A replay and its idempotency key, which later appears in a path."""

    key: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$", max_length=TEXT_LIMIT)]


class DescribeBody(Model):
    """The streams to describe; all if left out."""

    names: list[Text] | None = None


class LogBody(Model):
    """The cursor after which lines are asked for, and how many of them."""

    after: Text | None = None
    lines: Annotated[int, Field(ge=0, le=LOG_LINES)] = 100


class Fault(Model):
    """An error as it travels: the parts of a `ReplicatorError`."""

    code: str
    message: str
    stream: str | None = None
    property: str | None = None
    fix: str | None = None


class Accepted(Model):
    """An operation that is still running.

    :param operation: its id.
    :param progress: the current step, for people; empty if unknown.
    """

    operation: str
    progress: str = ""


class Info(Model):
    """The identity of the agent at an address.

    :param protocol: the version of the protocol.
    :param version: the version of the package.
    :param kinds: the served backends.
    :param started_at: when the server was built.
    :param calls: the number of calls of each operation since then, by method.
    """

    model_config = ConfigDict(extra="allow")

    protocol: int
    version: str
    kinds: list[str]
    pid: int
    started_at: Instant
    calls: dict[str, int] = Field(default_factory=dict)


_STREAM = "/v1/{kind}/streams/{name}"

UPSERT_STREAM: Operation[None] = Operation("upsert_stream", "PUT", "/v1/{kind}/streams", type(None), StreamBody)
ADOPT_STREAM: Operation[Adoption] = Operation(
    "adopt_stream",
    "POST",
    "/v1/{kind}/adoptions",
    Adoption,
    AdoptBody,
)
LOOK_AT_DESTINATION: Operation[Takeover] = Operation(
    "look_at_destination",
    "POST",
    "/v1/{kind}/destinations/look",
    Takeover,
    LookAtDestinationBody,
)
TAKE_OVER: Operation[None] = Operation(
    "take_over",
    "POST",
    "/v1/{kind}/destinations/take-over",
    type(None),
    TakeOverBody,
)
UNMANAGED: Operation[list[Unmanaged]] = Operation(
    "unmanaged",
    "GET",
    "/v1/{kind}/unmanaged",
    list[Unmanaged],
)
PROPOSE: Operation[Proposal] = Operation(
    "propose",
    "POST",
    "/v1/{kind}/proposals",
    Proposal,
    ProposeBody,
)
DELETE_STREAM: Operation[bool] = Operation(
    "delete_stream",
    "DELETE",
    _STREAM,
    bool,
    DeleteBody,
)
LIST_STREAMS: Operation[list[Stream]] = Operation(
    "list_streams",
    "GET",
    "/v1/{kind}/streams",
    list[Stream],
)
GET_STATUS: Operation[StreamStatus] = Operation(
    "get_status",
    "GET",
    f"{_STREAM}/status",
    StreamStatus,
)
LOG: Operation[LogLines] = Operation(
    "log",
    "POST",
    f"{_STREAM}/log",
    LogLines,
    LogBody,
)
PAUSE: Operation[None] = Operation(
    "pause",
    "POST",
    f"{_STREAM}/pause",
    type(None),
)
RESUME: Operation[None] = Operation(
    "resume",
    "POST",
    f"{_STREAM}/resume",
    type(None),
)
REPLAY: Operation[ReplayProgress] = Operation(
    "replay",
    "POST",
    f"{_STREAM}/replays",
    ReplayProgress,
    ReplayBody,
)
GET_REPLAY: Operation[ReplayProgress] = Operation(
    "get_replay",
    "GET",
    f"{_STREAM}/replays/{{key:path}}",
    ReplayProgress,
)
LIST_REPLAYS: Operation[list[ReplayProgress]] = Operation(
    "list_replays",
    "GET",
    f"{_STREAM}/replays",
    list[ReplayProgress],
)
PLAN_REPLAY: Operation[ReplayPlan] = Operation("plan_replay", "POST", f"{_STREAM}/replay-plan", ReplayPlan, PlanBody)
PREFLIGHT: Operation[list[Finding]] = Operation(
    "preflight",
    "POST",
    "/v1/{kind}/preflight",
    list[Finding],
    StreamBody,
)
DESCRIBE: Operation[list[Description]] = Operation(
    "describe",
    "POST",
    "/v1/{kind}/describe",
    list[Description],
    DescribeBody,
)
OVERVIEW: Operation[list[Description]] = Operation(
    "overview",
    "GET",
    "/v1/{kind}/overview",
    list[Description],
)

IDENTITY: Operation[str | None] = Operation(
    "identity",
    "GET",
    "/v1/{kind}/identity",
    str | None,  # type: ignore[arg-type]
)

OPERATIONS: tuple[Operation[Any], ...] = (
    UPSERT_STREAM,
    ADOPT_STREAM,
    LOOK_AT_DESTINATION,
    TAKE_OVER,
    UNMANAGED,
    PROPOSE,
    DELETE_STREAM,
    LIST_STREAMS,
    GET_STATUS,
    LOG,
    PAUSE,
    RESUME,
    REPLAY,
    GET_REPLAY,
    LIST_REPLAYS,
    PLAN_REPLAY,
    PREFLIGHT,
    DESCRIBE,
    OVERVIEW,
    IDENTITY,
)
