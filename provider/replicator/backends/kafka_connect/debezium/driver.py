"""debezium: the Replicator of Debezium's connectors."""

from __future__ import annotations

import os
from collections.abc import Mapping

from replicator.authref import Redactor
from replicator.backends.kafka_connect.cluster import RECENT, ConnectCluster
from replicator.backends.kafka_connect.connector_life import ConnectorLife
from replicator.backends.kafka_connect.debezium.between import KafkaBetween
from replicator.backends.kafka_connect.debezium.debezium_recipe import DebeziumRecipe, Facts
from replicator.backends.kafka_connect.debezium.positions import Progress
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.backends.kafka_connect.worker_access import open_cluster
from replicator.backends.settings import DEFAULT_ALIASES, DebeziumConfig

# Process-wide: a program may have streams on several Connect clusters, and each cluster has its own driver.
_CLAIMS = PendingChanges(RECENT, RECENT)
_PREVIEWED = PendingChanges(30.0, 30.0)


def open_debezium(address: str, settings: DebeziumConfig) -> Debezium:
    """Open the streams of the Connect cluster at an address; raise `SecretNotFound` if the login cannot be read."""
    redactor = Redactor()
    return Debezium(
        open_cluster(address, settings, redactor),
        address,
        aliases={**DEFAULT_ALIASES, **settings.secret_providers},
        kafka=KafkaBetween(settings.brokers_of(address), settings.kafka_auth_ref),
        redactor=redactor,
        claims=_CLAIMS,
        previewed=_PREVIEWED,
    )


class Debezium(ConnectorLife[Facts, None, Progress]):
    """Streams from PostgreSQL to Kafka or to PostgreSQL, run as connectors of one Connect cluster.

    :param address: the Connect cluster's.
    :param aliases: names of the worker's config providers, by `authRef` scheme.
    :param kafka: the brokers of the workers' Kafka cluster, which has the topics between.
    :param claims: the streams that this process is changing, in any cluster.
    :param previewed: the streams that this process has previewed.
    """

    def __init__(
        self,
        cluster: ConnectCluster,
        address: str,
        *,
        aliases: Mapping[str, str],
        kafka: KafkaBetween,
        redactor: Redactor,
        claims: PendingChanges,
        previewed: PendingChanges,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        recipe = DebeziumRecipe(
            cluster, aliases=aliases, kafka=kafka, redactor=redactor, claims=claims, environ=environ
        )
        super().__init__(cluster, address, recipe, claims=claims, previewed=previewed)
