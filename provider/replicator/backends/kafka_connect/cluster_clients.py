"""Clients of the Kafka clusters at the ends of streams."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from replicator import authref
from replicator.authref import Redactor
from replicator.backends.kafka.admin import KafkaAdmin
from replicator.backends.kafka.endpoint import KafkaEndpoint, kafka_endpoint
from replicator.errors import ReplicatorError
from replicator.model import End, Stream


class ClusterClients:
    """Clients of the clusters at the ends of streams, created on first use and cached.

    :param environ: the environment for `env://` references of the provider's own connections.
    :param redactor: receives every value that is read.
    """

    def __init__(self, environ: Mapping[str, str], redactor: Redactor) -> None:
        self._environ = environ
        self._redactor = redactor
        self._clients: dict[KafkaEndpoint, KafkaAdmin] = {}

    async def brokers(self, stream: Stream, end: End) -> KafkaAdmin:
        """Return the client; raise `SecretNotFound` if the credentials cannot be read on this host."""
        return await self.at(kafka_endpoint(stream.source if end == "source" else stream.destination, end, admin=True))

    async def at(self, at: KafkaEndpoint) -> KafkaAdmin:
        """Return the client of a cluster; raise as `brokers` does."""
        if at not in self._clients:
            self._clients[at] = KafkaAdmin(at, await self._credentials(at))
        return self._clients[at]

    async def _credentials(self, at: KafkaEndpoint) -> dict[str, str]:
        if at.ref is None:
            return {}
        fields = ("username", "password")
        try:
            found = await asyncio.to_thread(authref.resolve, at.ref, fields, required=fields, environ=self._environ)
        except ReplicatorError as error:
            error.property = f"{at.end}.authRef"
            raise
        self._redactor.add(found["password"])
        return found
