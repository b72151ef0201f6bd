"""The provider's resources by type, each imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Protocol

from replicator.errors import InvalidStream

if TYPE_CHECKING:
    from replicator.diagnostics import Diagnostics
    from replicator.lifecycle.check import NameRule
    from replicator.lifecycle.connections import Connections
    from replicator.lifecycle.diff import Change
    from replicator.lifecycle.resource import Applied, Values
    from replicator.lifecycle.wait import Limits


class Resource(Protocol):
    """What Pulumi asks of a resource. Inputs may hold secrets and, in a preview, what is not known yet."""

    @property
    def stables(self) -> tuple[str, ...]:
        """Outputs that no update changes."""

    @property
    def removed_first(self) -> bool:
        """Tell whether a replacement waits for the removal of what it replaces."""

    async def check(
        self, urn: str, old: Values, new: Values, naming: NameRule | None = None
    ) -> tuple[Values, list[str]]:
        """Return the inputs to go on with, and what is wrong with them.

        :param naming: what pulumi:autonaming says of a resource that needs a name and has none.
        """

    async def diff(self, urn: str, id: str, old_inputs: Values, outputs: Values, new: Values) -> list[Change]:
        """Return what differs. `outputs` are those in the state."""

    async def preview_create(self, urn: str, inputs: Values) -> Values:
        """Return the outputs as far as they are known before a create."""

    async def create(self, urn: str, inputs: Values, limits: Limits) -> Applied:
        """Make it."""

    async def preview_update(self, urn: str, id: str, old_inputs: Values, old: Values, new: Values) -> Values:
        """Return the outputs as far as they are known before an update."""

    async def update(self, urn: str, old: Values, new: Values, limits: Limits) -> Applied:
        """Change it in place."""

    async def read(self, urn: str, id: str, old_inputs: Values, old: Values) -> Applied | None:
        """Return what is there; `None` for nothing."""

    async def delete(self, urn: str, id: str, state: Values, limits: Limits) -> None:
        """Remove it."""


RESOURCES: Mapping[str, str] = {
    "replicator:index:Stream": "replicator.lifecycle.resource:StreamResource",
    "replicator:index:ReplayRun": "replicator.lifecycle.replay_run:ReplayRunResource",
}


def type_of(urn: str) -> str:
    """Return the type in `urn:pulumi:<stack>::<project>::<parents$type>::<name>`."""
    return "".join(urn.split("::", 3)[2:3]).rpartition("$")[2]


def resource_of(type: str, connections: Connections, messages: Callable[[], Diagnostics]) -> Resource:
    """Return what a type stands for; raise `InvalidStream` for one of another release."""
    if type not in RESOURCES:
        raise InvalidStream(f"{type} is not a resource of this release", fix="update the plugin")
    made: Resource = resolve_name(RESOURCES[type])(connections, messages)
    return made
