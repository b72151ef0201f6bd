"""An idempotency key belongs to one replay."""

from __future__ import annotations

from collections.abc import Iterable

from replicator.errors import ReplayKeyReused, ReplayNotFound
from replicator.model import Checkpoint, format_time
from replicator.replicator import ReplayMethod, ReplayProgress


def refuse_reuse(
    known: ReplayProgress,
    start: Checkpoint,
    method: ReplayMethod,
    target: str | None,
    *,
    began_there: bool | None = None,
) -> None:
    """Raise `ReplayKeyReused` where a key's replay is another one than what is asked for now.

    :param known: the replay that has the key.
    :param began_there: whether it was asked for with `start`, where the record of the replay does not hold the start
        as it was given.
    """
    same_start = known.start == start if began_there is None else began_there
    if same_start and method in (ReplayMethod.AUTO, known.method) and known.target == target:
        return
    before = f"lsn {known.start.lsn}" if known.start.wall is None else format_time(known.start.wall)
    raise ReplayKeyReused(
        f"key {known.key!r} was used for a replay from {before}"
        + (f" to {known.target}" if known.target else "")
        + f" by {known.method}, started {format_time(known.started_at)}",
        stream=known.stream,
        property="idempotencyKey",
        fix="use another idempotencyKey for another replay",
    )


def newest_first(replays: Iterable[ReplayProgress]) -> list[ReplayProgress]:
    """Return replays by the time of their start."""
    return sorted(replays, key=lambda replay: replay.started_at, reverse=True)


def unknown_key(key: str, stream: str) -> ReplayNotFound:
    """Return the error for a key that no replay of the stream has."""
    return ReplayNotFound(
        f"no replay has the key {key!r}", stream=stream, fix="correct the key, or start a replay with it"
    )
