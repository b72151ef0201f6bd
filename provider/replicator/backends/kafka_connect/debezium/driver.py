"""debezium: the Replicator of Debezium's connectors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from replicator.authref import Redactor
from replicator.backends.kafka_connect.cluster import RECENT, ConnectCluster
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.backends.kafka_connect.connector_life import ConnectorLife
from replicator.backends.kafka_connect.debezium.between import KafkaBetween
from replicator.backends.kafka_connect.debezium.debezium_recipe import DebeziumRecipe
from replicator.backends.kafka_connect.debezium.delivery_recipe import DeliveryRecipe
from replicator.backends.kafka_connect.debezium.routed_recipe import RoutedFacts, RoutedRecipe
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.backends.kafka_connect.worker_access import open_cluster
from replicator.backends.postgres.session import Sessions
from replicator.backends.settings import DEFAULT_ALIASES, DebeziumConfig
from replicator.model import EndpointKind

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


class Debezium(ConnectorLife[RoutedFacts, Any, Any]):
    """Streams from PostgreSQL to Kafka or to PostgreSQL, and from Kafka to PostgreSQL, by one Connect cluster.

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
        ends, sessions = ClusterClients(environ, redactor), Sessions(environ, redactor)
        tables = DebeziumRecipe(cluster, ends=ends, sessions=sessions, aliases=aliases, kafka=kafka, claims=claims)
        topics = DeliveryRecipe(cluster, ends, sessions, aliases)
        recipe = RoutedRecipe({EndpointKind.POSTGRES: tables, EndpointKind.KAFKA: topics})
        super().__init__(cluster, address, recipe, claims=claims, previewed=previewed)
