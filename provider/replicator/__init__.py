"""Cross-region replication streams: one interface over the engines that people run.

Names are imported on first use, so a process that needs only part of the package starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replicator.errors import ReplicatorError
    from replicator.model import Checkpoint, Endpoint, Owner, Stream, StreamStatus
    from replicator.replicator import Replicator

__version__ = "0.2.0"

__all__ = [
    "Checkpoint",
    "Endpoint",
    "Owner",
    "Replicator",
    "ReplicatorError",
    "Stream",
    "StreamStatus",
    "__version__",
]

_HOME = {
    "Checkpoint": "replicator.model",
    "Endpoint": "replicator.model",
    "Owner": "replicator.model",
    "Replicator": "replicator.replicator",
    "ReplicatorError": "replicator.errors",
    "Stream": "replicator.model",
    "StreamStatus": "replicator.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
