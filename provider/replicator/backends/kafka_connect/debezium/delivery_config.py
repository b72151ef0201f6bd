"""A stream from topics to a database: which table a topic is written to, and the configuration of the sink."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from replicator.backends.kafka.endpoint import kafka_endpoint
from replicator.backends.kafka_connect.debezium.connector_config import BACKEND
from replicator.backends.kafka_connect.debezium.delivery_options import COLLECTION, collection_of
from replicator.backends.kafka_connect.debezium.sink_config import build_sink
from replicator.backends.kafka_connect.options import option_text
from replicator.backends.kafka_connect.placeholders import placeholders
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres.endpoint import postgres_endpoint
from replicator.backends.postgres.identifiers import Table, read_table
from replicator.model import Endpoint, Model

KEY_MODE = "primary.key.mode"


class DeliveryDetails(Model):
    """What the record of a stream from topics keeps of its destination.

    :param claim: a random word that names the stream in the destination database.
    :param tables: the table of each topic.
    :param left_destinations: the databases of before, where the stream's claims are still to be dropped.
    """

    claim: str
    tables: dict[str, str] = Field(default_factory=dict)
    left_destinations: tuple[Endpoint, ...] = Field(default=(), exclude_if=lambda value: not value)

    @property
    def names(self) -> list[Table]:
        """Return the tables, in order."""
        return sorted({read_table(text) for text in self.tables.values()})


def delivery_details(record: StreamRecord) -> DeliveryDetails:
    """Return what a record keeps of the destination."""
    return DeliveryDetails.model_validate(record.details)


def build_delivery(record: StreamRecord, aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the configuration of a stream's sink, with the record.

    :param aliases: names of the worker's config providers, by `authRef` scheme.
    """
    stream, details = record.stream, delivery_details(record)
    at = postgres_endpoint(stream.destination, "destination")
    schema, _, table = collection_of(stream).partition(".")
    by_key = str(stream.options.get(KEY_MODE, "record_key")) == "record_key"
    return {
        **build_sink(stream.name, details.tables, at, f'"{schema}"."{table}"', aliases),
        "delete.enabled": str(by_key).lower(),  # a delete has a key alone
        "truncate.enabled": "false",  # it has no key, so it has no place among the partitions
        "schema.evolution": "basic",  # only the records say which columns there are
        **_consumer(record, aliases),
        **{key: option_text(value) for key, value in stream.options.items() if key != COLLECTION},
        **record.keys(BACKEND),
    }


def _consumer(record: StreamRecord, aliases: Mapping[str, str]) -> dict[str, str]:
    """Return where records are read if the worker's own cluster is another one."""
    if record.side == "source":
        return {}
    at = kafka_endpoint(record.stream.source, "source")
    properties = at.worker_properties(placeholders(at.ref, aliases, "source.authRef"))
    return {f"consumer.override.{key}": value for key, value in properties.items()}
