"""What Kafka Connect tells of its log: over its REST interface, only the traces of what has failed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from replicator.backends.kafka_connect.connector import Connector, ConnectorState
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.shared.log_bounds import fitting_last
from replicator.errors import Unsupported
from replicator.replicator import LogLines

NOTE = "these are the errors that Kafka Connect reports; its own log is on the host of the worker"


def traces_of(deployed: DeployedStream, after: str | None, most: int) -> LogLines:
    """Return a line for each connector and task that has failed.

    After a cursor, return them only if they are not the same ones as before, or nothing if there are none.

    :param most: how many lines.
    :raises Unsupported: nothing has failed, and there is no cursor.
    """
    lines = [line for connector in deployed.all for line in _traces(connector)]
    if not lines and after is None:
        raise _no_log(deployed)
    cursor = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    shown = () if cursor == after else fitting_last(lines, most)
    return LogLines(lines=tuple(shown), cursor=cursor, note=NOTE if lines else None)


def _traces(connector: Connector) -> Iterator[str]:
    """Yield the lines of a connector; the traces are redacted already."""
    if connector.state is ConnectorState.FAILED:
        yield _line(f"connector {connector.name}", connector.worker, connector.fault)
    for task in connector.tasks:
        if task.state is ConnectorState.FAILED:
            yield _line(f"task {task.id} of connector {connector.name}", task.worker, task.trace)


def _line(what: str, worker: str | None, trace: str | None) -> str:
    return f"{what} failed on {worker or 'an unknown worker'}: {trace or 'Connect gives no reason'}"


def _no_log(deployed: DeployedStream) -> Unsupported:
    names = ", ".join(connector.name for connector in deployed.all)
    workers = ", ".join(_workers(deployed))
    where = f"its connectors are on {workers}" if workers else "no worker has its connectors now"
    log = f"the log of {workers}" if workers else "the logs of the workers"
    return Unsupported(
        f"Kafka Connect does not give out its log, and reports no error; {where}",
        stream=deployed.name,
        fix=f"look in {log} for lines with the name of a connector of the stream: {names}",
    )


def _workers(deployed: DeployedStream) -> list[str]:
    """Return the addresses of the workers that have a connector or a task of the stream."""
    found = {connector.worker for connector in deployed.all}
    found |= {task.worker for connector in deployed.all for task in connector.tasks}
    return sorted(worker for worker in found if worker is not None)
