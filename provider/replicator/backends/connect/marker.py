"""The record of a stream, kept in its connector's configuration. Connect passes on keys that no connector knows.

Connect puts the values of ConfigProviders into every `${…}`, so `$` is written as its JSON escape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, ValidationError

from replicator.model import Model, Stream
from replicator.replicator import ReplayProgress

KEY = "replicator.stream"
PART_OF = "replicator.part-of"
"""In a stream's further connectors: the name of the stream."""

KEPT_REPLAYS = 20


class Rewind(Model):
    """A replay.

    :param start: the next offsets that it sets, as a checkpoint's text.
    :param until: the next offsets when it was asked for, as a checkpoint's text; past them, it is done.
    :param applied: the engine's offsets are set back.
    """

    progress: ReplayProgress
    start: str
    until: str
    applied: bool = False


class Marker(Model):
    """What the engine's side knows of a stream.

    :param stream: the declaration with its owner; no secret.
    :param source_cluster: id of the cluster that its positions are of; `None` where it could not be seen.
    :param destination_cluster: id of the cluster that it writes to; `None` where it could not be seen.
    :param side: the end whose cluster the workers stand on, as it was seen or said; not as its connectors are now.
    :param topics: topic ids of the source when it was made or last changed: another id is another topic.
    :param making: its start is not set yet.
    :param rewinds: replays by key, the oldest first.
    """

    stream: Stream
    source_cluster: str | None = None
    destination_cluster: str | None = None
    side: Literal["source", "destination"] = "destination"
    topics: dict[str, str] = Field(default_factory=dict)
    making: bool = False
    rewinds: tuple[Rewind, ...] = ()

    @classmethod
    def read(cls, config: Mapping[str, str]) -> Self | None:
        """The marker in a connector's configuration; `None` where there is none, or none that we can read."""
        try:
            return cls.model_validate_json(config[KEY])
        except (KeyError, ValidationError):
            return None

    def rewind(self, key: str) -> Rewind | None:
        """The replay that has this key."""
        return next((rewind for rewind in self.rewinds if rewind.progress.key == key), None)

    def with_rewind(self, changed: Rewind) -> Self:
        """The record with another version of one replay."""
        key = changed.progress.key
        rewinds = tuple(changed if rewind.progress.key == key else rewind for rewind in self.rewinds)
        return self.model_copy(update={"rewinds": rewinds})

    def cut_off(self) -> Rewind | None:
        """The replay that is recorded, and neither applied nor given up."""
        open_ = (rewind for rewind in self.rewinds if not rewind.applied and rewind.progress.finished_at is None)
        return next(open_, None)

    def text(self) -> str:
        """As it stands in the configuration."""
        return json.dumps(self.wire(), separators=(",", ":"), sort_keys=True).replace("$", "\\u0024")
