"""A Replicator over HTTP on a Unix socket: `server` serves one, `client` is one."""
