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
    """The operations of a resource. Inputs may hold secrets and, in a preview, unknown values."""

    @property
    def stables(self) -> tuple[str, ...]:
        """Return the outputs that no update changes."""

    @property
    def removed_first(self) -> bool:
        """Tell whether the old resource is removed before its replacement is created."""

    async def check(
        self, urn: str, old: Values, new: Values, naming: NameRule | None = None
    ) -> tuple[Values, list[str]]:
        """Return the checked inputs, and their errors.

        :param naming: the rule of pulumi:autonaming for a resource without a name.
        """

    async def diff(self, urn: str, id: str, old_inputs: Values, outputs: Values, new: Values) -> list[Change]:
        """Return the differences. `outputs` are those in the state."""

    async def preview_create(self, urn: str, inputs: Values) -> Values:
        """Return the outputs that are known before a create."""

    async def create(self, urn: str, inputs: Values, limits: Limits) -> Applied:
        """Create the resource."""

    async def preview_update(self, urn: str, id: str, old_inputs: Values, old: Values, new: Values) -> Values:
        """Return the outputs that are known before an update."""

    async def update(self, urn: str, old_inputs: Values, old: Values, new: Values, limits: Limits) -> Applied:
        """Change the resource in place."""

    async def read(self, urn: str, id: str, old_inputs: Values, old: Values) -> Applied | None:
        """Return the current resource; `None` if it does not exist."""

    async def delete(self, urn: str, id: str, state: Values, limits: Limits) -> None:
        """Remove the resource."""


RESOURCES: Mapping[str, str] = {
    "replicator:index:Stream": "replicator.lifecycle.resource:StreamResource",
    "replicator:index:ReplayRun": "replicator.lifecycle.replay_run:ReplayRunResource",
}


def type_of(urn: str) -> str:
    """Return the type in `urn:pulumi:<stack>::<project>::<parents$type>::<name>`."""
    return "".join(urn.split("::", 3)[2:3]).rpartition("$")[2]


def resource_of(type: str, connections: Connections, messages: Callable[[], Diagnostics]) -> Resource:
    """Return the resource of a type; raise `InvalidStream` for a type of another release."""
    if type not in RESOURCES:
        raise InvalidStream(f"{type} is not a resource of this release", fix="update the plugin")
    made: Resource = resolve_name(RESOURCES[type])(connections, messages)
    return made
