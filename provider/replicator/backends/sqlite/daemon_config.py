"""The configuration of a litestream daemon, as text. Nothing here starts or writes anything.

There are two kinds. A *shared* daemon has no database of its own; databases are registered over its control socket,
and each is uploaded once a second. A *single* daemon has one database with an upload interval of its own, which
`/register` cannot set; it has a control socket too, for `/sync`, `/list` and `/txid`.

No configuration holds a secret or a placeholder for one: a daemon has one identity, and gets it in its environment
(`replica.engine_environment`). So `daemon_argv` turns off the engine's expansion of `$`, and a path may contain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from replicator.backends.sqlite.litestream import checked_path
from replicator.backends.sqlite.replica import ReplicaLocation
from replicator.http_unix import SOCKET_PATH_MAX

_MONITOR = timedelta(seconds=1)  # how often the engine looks at the WAL unless told otherwise


@dataclass(frozen=True)
class DaemonSettings:
    """Settings of both kinds.

    `replay_window` is how long each single transaction stays restorable (the engine's `l0-retention`); afterwards only
    the ends of compacted ranges are. `snapshot_retention` limits how far back a restore can go. `shutdown_timeout` is
    how long the engine tries to upload the rest of one database when it stops; it stops them one after the other, so
    with an unreachable destination this adds up. It also limits `/unregister`. `metrics_port` serves Prometheus metrics
    on 127.0.0.1.
    """

    socket: Path
    replay_window: timedelta = timedelta(hours=1)
    snapshot_interval: timedelta = timedelta(hours=24)
    snapshot_retention: timedelta = timedelta(hours=24)
    shutdown_timeout: timedelta = timedelta(seconds=5)
    metrics_port: int | None = None


def shared_daemon(settings: DaemonSettings) -> str:
    """Return the YAML of a daemon whose databases are registered later.

    Raise ValueError for a socket path that is too long.
    """
    return _render(_common(settings))


def single_daemon(
    settings: DaemonSettings,
    database: Path,
    replica: ReplicaLocation,
    upload_interval: timedelta,
    *,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Return the YAML of a daemon for one `database`, uploaded each `upload_interval`.

    `options` are the engine's own settings of a database, as in its YAML.

    Raise ValueError for an interval that is not positive, a socket path that is too long, or a database's path that
    the engine would misread.
    """
    if upload_interval <= timedelta(0):
        raise ValueError(f"an upload interval is longer than 0 s, not {upload_interval}")
    entry = {
        "path": checked_path(database),
        # An upload carries what the monitor has read from the WAL, so the monitor must run at least as often.
        "monitor-interval": _duration(min(_MONITOR, upload_interval)),
        **(options or {}),
        "replica": {"url": replica.url_for_engine(), "sync-interval": _duration(upload_interval)},
    }
    return _render({**_common(settings), "dbs": [entry]})


def daemon_argv(binary: Path, config: Path) -> list[str]:
    """Return the command line of a daemon whose YAML is in the file `config`."""
    return [str(binary), "replicate", "-config", str(config), "-no-expand-env"]


def _common(settings: DaemonSettings) -> dict[str, Any]:
    socket = str(settings.socket)
    if len(socket.encode()) > SOCKET_PATH_MAX:
        raise ValueError(f"the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes: {socket}")
    config: dict[str, Any] = {
        "socket": {"enabled": True, "path": socket, "permissions": 0o600},
        "logging": {"level": "info", "type": "json"},
        "snapshot": {
            "interval": _duration(settings.snapshot_interval),
            "retention": _duration(settings.snapshot_retention),
        },
        "l0-retention": _duration(settings.replay_window),
        "shutdown-sync-timeout": _duration(settings.shutdown_timeout),
    }
    if settings.metrics_port is not None:
        config["addr"] = f"127.0.0.1:{settings.metrics_port}"
    return config


def _render(config: dict[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=4096)


def _duration(value: timedelta) -> str:
    """Return a duration in the engine's notation (Go's), exact to the microsecond."""
    return f"{value // timedelta(microseconds=1)}us"
