"""The Kafka Connect family: streams that connectors of a Kafka Connect cluster carry."""
