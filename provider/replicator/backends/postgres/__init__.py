"""What backends that read or write PostgreSQL share."""
