"""Typed records of Kafka Connect's answers about a connector."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Self

from replicator.backends.kafka_connect.validation import holds_secrets

_TRACE_LIMIT = 500
_THROWN = re.compile(r"^(?:Caused by: )?((?:[a-z_]\w*\.)+[A-Z][\w$]*)(?:: (.*))?$", re.MULTILINE)
_QUOTES_ROWS = "JdbcSinkConnector"
"""The end of classes of connectors whose traces quote the rows that they could not write."""
_HARMLESS = re.compile(
    r"Could not find table: [\w.\"$ ]+|Cannot alter table [\w.\"$ ]+ because schema evolution is disabled|"
    r"permission denied for \w+ [\w\"$]+|null value in column \"[^\"]+\" of relation \"[^\"]+\"|"
    r"violates [a-z-]+ constraint \"[^\"]+\"|value too long for type [a-z ]+\([0-9]+\)|numeric field overflow|"
    r"no unique or exclusion constraint matching the ON CONFLICT specification|"
    r"column \"[^\"]+\" is of type [a-z ]+ but expression is of type [a-z ]+"
)
"""What a database or a sink says without values of rows."""
_PROTOCOL_ERRORS = "org.apache.kafka.common.errors."


class ConnectorState(StrEnum):
    """The state of a connector or of a task."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    UNASSIGNED = "UNASSIGNED"
    RESTARTING = "RESTARTING"

    @classmethod
    def _missing_(cls, value: object) -> Self:
        # A state of a later Kafka. Like an unassigned connector, such a connector has an unknown state.
        return cls("UNASSIGNED")


class Initial(Enum):
    """The state in which a connector is created."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a connector.

    :param worker: `host:port` of the worker that it was last on, or None.
    :param trace: why it failed, trimmed and redacted.
    """

    id: int
    state: ConnectorState
    worker: str | None
    trace: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a connector as the workers report it, perhaps some seconds ago.

    :param type: `source`, `sink` or `unknown`.
    :param fault: why the connector itself failed, trimmed and redacted.
    """

    name: str
    type: str
    state: ConnectorState
    worker: str | None
    fault: str | None
    tasks: tuple[Task, ...]

    @property
    def running(self) -> bool:
        """Tell whether it and each task runs. Without tasks it does nothing, so it is not running."""
        return self._all(ConnectorState.RUNNING) and bool(self.tasks)

    @property
    def idle(self) -> bool:
        """Tell whether it runs without tasks: it has found nothing to do, or has not started yet."""
        return self.state is ConnectorState.RUNNING and not self.tasks

    @property
    def paused(self) -> bool:
        """Tell whether it and each task is paused."""
        return self._all(ConnectorState.PAUSED)

    @property
    def pausing(self) -> bool:
        """Tell whether its tasks are paused while it is still starting: it pauses only once its source answers."""
        return self.state is ConnectorState.UNASSIGNED and {task.state for task in self.tasks} == {
            ConnectorState.PAUSED
        }

    @property
    def at_work(self) -> bool:
        """Tell whether a task runs, and the connector is not being stopped."""
        return self.state is not ConnectorState.STOPPED and any(
            task.state is ConnectorState.RUNNING for task in self.tasks
        )

    @property
    def stopped(self) -> bool:
        """Tell whether it is stopped without tasks."""
        return self.state is ConnectorState.STOPPED and not self.tasks

    @property
    def failed(self) -> bool:
        """Tell whether it or a task failed."""
        return ConnectorState.FAILED in (self.state, *(task.state for task in self.tasks))

    @property
    def trace(self) -> str | None:
        """Return why it failed: its own trace, or that of the first task that failed."""
        return self.fault or next((task.trace for task in self.tasks if task.state is ConnectorState.FAILED), None)

    @property
    def summary(self) -> str:
        """Return its states as text for people."""
        tasks = ", ".join(f"task {task.id} {task.state}" for task in self.tasks) or "no tasks"
        return f"{self.state} with {tasks}"

    def _all(self, state: ConnectorState) -> bool:
        return {self.state, *(task.state for task in self.tasks)} == {state}


@dataclass(frozen=True, slots=True)
class Connector(Status):
    """A connector with its configuration, in which secrets are unresolved placeholders."""

    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Offset:
    """A connector's offset in one partition of its source; the keys are the connector's own.

    :param offset: None resets it to the beginning.
    """

    partition: Mapping[str, Any]
    offset: Mapping[str, Any] | None


def read_status(
    body: Mapping[str, Any], redact: Callable[[str], str], config: Mapping[str, str] | None = None
) -> Status:
    """Read the answer of `/connectors/NAME/status`.

    :param config: of the connector, if it is known. Traces may contain the values of its placeholders.
    """
    connector = body["connector"]
    secretive = config is None or holds_secrets(config) or config.get("connector.class", "").endswith(_QUOTES_ROWS)

    def told(trace: str | None) -> str | None:
        return _trimmed(reduced(trace, config or ()) if trace and secretive else trace, redact)

    return Status(
        name=body["name"],
        type=body["type"],
        state=ConnectorState(connector["state"]),
        worker=connector.get("worker_id"),
        fault=told(connector.get("trace")),
        tasks=tuple(
            Task(task["id"], ConnectorState(task["state"]), task.get("worker_id"), told(task.get("trace")))
            for task in body["tasks"]
        ),
    )


def reduced(trace: str, settings: Collection[str]) -> str:
    """Return the classes of a Java stack trace, the settings that it names, and names of tables, without any value.

    Errors of Kafka's protocol keep their messages: brokers and clients write them without Connect's configuration.

    :param settings: the names that may be told.
    """
    found = []
    for match in _THROWN.finditer(trace):
        kind, message = match[1], match[2] or ""
        if kind.startswith(_PROTOCOL_ERRORS):
            found.append(f"{kind}: {message}" if message else kind)
        else:
            named = ", ".join(name for name in settings if name in re.split(r"[^\w.-]+", message))
            if harmless := _HARMLESS.search(message):
                found.append(f"{kind}: {harmless[0]}")
            else:
                found.append(f"{kind} (setting {named})" if named else kind)
    return " Caused by: ".join(found) or "the trace is not shown, because the configuration has secrets"


def read_connector(
    info: Mapping[str, Any], status: Mapping[str, Any] | None, redact: Callable[[str], str]
) -> Connector:
    """Read the answers of `/connectors/NAME` and of its status, which is None for some moments after a creation."""
    if status is None:
        status = {"connector": {"state": ConnectorState.UNASSIGNED}, "tasks": []}
    config = read_config(info)
    status = {**status, "name": info["name"], "type": info["type"]}
    found = read_status(status, redact, config)
    return Connector(found.name, found.type, found.state, found.worker, found.fault, found.tasks, config)


def read_config(info: Mapping[str, Any]) -> dict[str, str]:
    """Read the configuration in the answer of `/connectors/NAME`, without settings that are null."""
    config = {key: value for key, value in info["config"].items() if value is not None}
    if not all(isinstance(value, str) for value in config.values()):
        raise TypeError("a setting is no text")
    return config


def unreadable(name: str, why: str, config: Mapping[str, str] | None = None) -> Connector:
    """Return a connector for which the engine gives only an error, and perhaps its configuration."""
    return Connector(name, "unknown", ConnectorState.FAILED, None, why, (), config or {})


def read_offsets(body: Mapping[str, Any]) -> list[Offset]:
    """Read the answer of `/connectors/NAME/offsets`."""
    return [Offset(dict(item["partition"]), _copied(item["offset"])) for item in body["offsets"]]


def write_offsets(offsets: Sequence[Offset]) -> dict[str, Any]:
    """Return the request body for `/connectors/NAME/offsets`."""
    return {"offsets": [{"partition": dict(item.partition), "offset": _copied(item.offset)} for item in offsets]}


def _copied(offset: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if offset is None else dict(offset)


def _trimmed(trace: str | None, redact: Callable[[str], str]) -> str | None:
    """Return the messages of a Java stack trace, without its frames."""
    if not trace:
        return None
    lines = (line.strip() for line in redact(trace).splitlines())
    text = " ".join(line for line in lines if line and not line.startswith(("at ", "... ")))
    return text if len(text) <= _TRACE_LIMIT else f"{text[:_TRACE_LIMIT]}…"
