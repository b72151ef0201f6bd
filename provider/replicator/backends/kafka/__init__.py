"""Kafka clusters as endpoints: their URIs, their brokers, and positions in their topics."""
