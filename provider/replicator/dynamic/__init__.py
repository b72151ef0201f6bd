"""Streams in a Python program without the plugin: a resource, and functions on it."""

from __future__ import annotations

from replicator.dynamic.functions import get_stream_status, replay
from replicator.dynamic.outputs import Checkpoint, Finding, ReplayResult, StreamReport, StreamStatus
from replicator.dynamic.resource import Stream

__all__ = [
    "Checkpoint",
    "Finding",
    "ReplayResult",
    "Stream",
    "StreamReport",
    "StreamStatus",
    "get_stream_status",
    "replay",
]
