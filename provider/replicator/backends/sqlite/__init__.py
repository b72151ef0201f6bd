"""The SQLite family: databases that are files, replicated by a daemon beside them."""
