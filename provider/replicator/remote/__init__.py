"""Any Replicator over HTTP on a Unix socket: `server` gives one, `client` is one."""
