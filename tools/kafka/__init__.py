"""Kafka for tests, the demo and people who try the examples: its jars, and clusters made of them."""
