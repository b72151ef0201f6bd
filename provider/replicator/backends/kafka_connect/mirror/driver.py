"""kafka-mirror: the Replicator of MirrorMaker 2."""

from __future__ import annotations

import os
from collections.abc import Mapping

from replicator.authref import Redactor
from replicator.backends.kafka.positions import Offsets
from replicator.backends.kafka_connect.cluster import RECENT, ConnectCluster
from replicator.backends.kafka_connect.connector_life import ConnectorLife
from replicator.backends.kafka_connect.mirror.mirror_recipe import Facts, MirrorRecipe
from replicator.backends.kafka_connect.mirror.peer_clusters import HOLDS, PATIENCE, PeerClusters
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.backends.kafka_connect.worker_access import open_cluster
from replicator.backends.settings import DEFAULT_ALIASES, ConnectConfig

# Process-wide: a program may have mirrors on several Connect clusters, and each cluster has its own driver.
_CLAIMS = PendingChanges(RECENT, HOLDS)
_PREVIEWED = PendingChanges(HOLDS, HOLDS)


def open_mirror(address: str, settings: ConnectConfig) -> KafkaMirror:
    """Open the mirrors of the Connect cluster at an address; raise `SecretNotFound` if the login cannot be read."""
    redactor = Redactor()
    aliases = {**DEFAULT_ALIASES, **settings.secret_providers}
    elsewhere = sorted({settings.address or address, *settings.regions.values()} - {address})
    peers = PeerClusters([open_cluster(at, settings, redactor, patience=PATIENCE) for at in elsewhere])
    return KafkaMirror(
        open_cluster(address, settings, redactor),
        address,
        aliases=aliases,
        redactor=redactor,
        peers=peers,
        claims=_CLAIMS,
        previewed=_PREVIEWED,
    )


class KafkaMirror(ConnectorLife[Facts, Offsets, Offsets]):
    """Streams from Kafka to Kafka, run as connectors of one Connect cluster.

    :param address: the Connect cluster's.
    :param aliases: names of the worker's config providers, by `authRef` scheme.
    :param peers: other Connect clusters whose mirrors may conflict with those here.
    :param claims: the streams that this process is changing, in any cluster.
    :param previewed: the streams that this process has previewed.
    """

    def __init__(
        self,
        cluster: ConnectCluster,
        address: str,
        *,
        aliases: Mapping[str, str],
        redactor: Redactor,
        peers: PeerClusters,
        claims: PendingChanges,
        previewed: PendingChanges,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        recipe = MirrorRecipe(cluster, aliases=aliases, redactor=redactor, peers=peers, claims=claims, environ=environ)
        super().__init__(cluster, address, recipe, claims=claims, previewed=previewed)
