"""The provider's resources by type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from replicator.errors import InvalidStream
from replicator.lifecycle.connect import Connections
from replicator.lifecycle.diff import Change
from replicator.lifecycle.replay_run import ReplayRunResource
from replicator.lifecycle.resource import Applied, StreamResource
from replicator.lifecycle.wait import Limits
from replicator.messages import Messages

Values = dict[str, Any]


class Resource(Protocol):
    """What Pulumi asks of a resource. Inputs may hold secrets and, in a preview, what is not known yet."""

    @property
    def stables(self) -> tuple[str, ...]:
        """Outputs that no update changes."""

    @property
    def removed_first(self) -> bool:
        """Whether a replacement waits for the removal of what it replaces."""

    async def check(self, urn: str, old: Values, new: Values) -> tuple[Values, list[str]]:
        """The inputs to go on with, and what is wrong with them."""

    async def diff(self, urn: str, id: str, old_inputs: Values, new: Values) -> list[Change]:
        """What differs."""

    async def preview_create(self, urn: str, inputs: Values) -> Values:
        """The outputs as far as they are known before a create."""

    async def create(self, urn: str, inputs: Values, limits: Limits) -> Applied:
        """Make it."""

    async def preview_update(self, urn: str, id: str, old_inputs: Values, old: Values, new: Values) -> Values:
        """The outputs as far as they are known before an update."""

    async def update(self, urn: str, old: Values, new: Values, limits: Limits) -> Applied:
        """Change it in place."""

    async def read(self, urn: str, id: str, old_inputs: Values, old: Values) -> Applied | None:
        """What is there; `None` for nothing."""

    async def delete(self, urn: str, id: str, state: Values, limits: Limits) -> None:
        """Remove it."""


RESOURCES: Mapping[str, Callable[[Connections, Callable[[], Messages]], Resource]] = {
    "replicator:index:Stream": StreamResource,
    "replicator:index:ReplayRun": ReplayRunResource,
}


def type_of(urn: str) -> str:
    """The type in `urn:pulumi:<stack>::<project>::<parents$type>::<name>`; raise `InvalidStream` for one not ours."""
    token = "".join(urn.split("::", 3)[2:3]).rpartition("$")[2]
    if token not in RESOURCES:
        raise InvalidStream(f"{token} is not a resource of this release", fix="update the plugin")
    return token
