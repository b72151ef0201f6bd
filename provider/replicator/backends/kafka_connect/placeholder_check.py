"""Whether a worker resolves the placeholders of a stream, before a connector needs them."""

from __future__ import annotations

from collections.abc import Collection

from replicator.backends.kafka_connect.cluster import ConnectCluster, Problem
from replicator.errors import SecretNotFound


async def refuse_unresolved(
    cluster: ConnectCluster,
    wanted: Collection[str],
    connector_class: str,
    field: str,
    *,
    stream: str,
    property: str,
    harmless: Collection[Problem] = (),
) -> None:
    """Raise `SecretNotFound` if the worker cannot resolve a placeholder, which would itself become the password.

    :param field: as in `ConnectCluster.resolves`.
    :param property: what names the secret.
    :param harmless: problems that this use of the value does not have.
    """
    problems = await cluster.resolves(list(wanted), connector_class, field) if wanted else {}
    for text, problem in problems.items():
        if problem is not None and problem not in harmless:
            raise SecretNotFound(
                f"the worker puts no usable value in the place of {text}: {problem.value}",
                stream=stream,
                property=property,
                fix="let the worker's config.providers read it: docs/kafka-mirror.md has the lines",
            )
