"""debezium: streams of changes from PostgreSQL."""
