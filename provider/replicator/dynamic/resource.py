"""The resource that a program declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import pulumi
from pulumi.dynamic import Resource

from replicator.dynamic.outputs import StreamStatus
from replicator.dynamic.provider import PROPERTIES, TIMEOUTS, TROUBLE, URN, StreamProvider
from replicator.model import Checkpoint, Endpoint, Model

_NAMES = {name: field.alias or name for name, field in Endpoint.model_fields.items()}
_ENDPOINTS = ("source", "destination")
_OUTPUTS = {
    "status": "status",
    "engine_objects": "engineObjects",
    "owner_token": "ownerToken",
    "owner_urn": "ownerUrn",
    TROUBLE: TROUBLE,
}

EndpointInput = pulumi.Input[Endpoint | Mapping[str, Any]]
"""An endpoint, or a dict with the same names; a value in it may be an output."""


class Stream(Resource, module="replicator", name="Stream"):
    """A replication stream.

    It has the properties and the behavior of the resource `replicator:index:Stream`. Its outputs are the declaration,
    with defaults filled in, and what the engine reported.
    """

    name: pulumi.Output[str]
    source: pulumi.Output[dict[str, Any]]
    destination: pulumi.Output[dict[str, Any]]
    backend: pulumi.Output[str]
    mode: pulumi.Output[str]
    include: pulumi.Output[list[str]]
    exclude: pulumi.Output[list[str]]
    filter: pulumi.Output[str | None]
    conflict: pulumi.Output[str]
    checkpoint_interval: pulumi.Output[str | None] = pulumi.property("checkpointInterval")
    desired_state: pulumi.Output[str] = pulumi.property("desiredState")
    start_from: pulumi.Output[Any] = pulumi.property("startFrom")
    wait_for: pulumi.Output[str] = pulumi.property("waitFor")
    deletion_protection: pulumi.Output[bool] = pulumi.property("deletionProtection")
    purge_destination: pulumi.Output[bool] = pulumi.property("purgeDestination")
    drain_before_delete: pulumi.Output[str | None] = pulumi.property("drainBeforeDelete")
    bookmarks: pulumi.Output[list[str] | None]
    on_delete: pulumi.Output[str | None] = pulumi.property("onDelete")
    options: pulumi.Output[dict[str, Any]]

    status: pulumi.Output[StreamStatus]
    """The engine's report at the last update or refresh; `get_stream_status` returns the current one."""

    engine_objects: pulumi.Output[dict[str, Any]] = pulumi.property("engineObjects")
    """The objects that exist at the engine for this stream."""

    owner_token: pulumi.Output[str] = pulumi.property("ownerToken")
    """Identifies this resource to the engine, kept so that a rename keeps the stream."""

    owner_urn: pulumi.Output[str] = pulumi.property("ownerUrn")
    """URN of the resource that the engine's record names as the owner of the stream."""

    trouble: pulumi.Output[list[str]]
    """Why the stream was unhealthy at the last update or refresh; empty if it was healthy."""

    def __init__(
        self,
        resource_name: str,
        opts: pulumi.ResourceOptions | None = None,
        *,
        source: EndpointInput,
        destination: EndpointInput,
        name: pulumi.Input[str] | None = None,
        backend: pulumi.Input[str] | None = None,
        mode: pulumi.Input[str] | None = None,
        include: pulumi.Input[Sequence[pulumi.Input[str]]] | None = None,
        exclude: pulumi.Input[Sequence[pulumi.Input[str]]] | None = None,
        filter: pulumi.Input[str] | None = None,
        conflict: pulumi.Input[str] | None = None,
        checkpoint_interval: pulumi.Input[str] | None = None,
        desired_state: pulumi.Input[str] | None = None,
        start_from: pulumi.Input[str | Checkpoint | Mapping[str, Any]] | None = None,
        wait_for: pulumi.Input[str] | None = None,
        deletion_protection: pulumi.Input[bool] | None = None,
        purge_destination: pulumi.Input[bool] | None = None,
        drain_before_delete: pulumi.Input[str] | None = None,
        bookmarks: pulumi.Input[Sequence[pulumi.Input[str]]] | None = None,
        on_delete: pulumi.Input[str] | None = None,
        options: pulumi.Input[Mapping[str, Any]] | None = None,
    ) -> None:
        given = locals()
        props = {key: _wire(given[name], key) for name, key in PROPERTIES.items()}
        opts = _named(opts or pulumi.ResourceOptions())
        if opts.custom_timeouts is not None:
            limits = opts.custom_timeouts
            props[TIMEOUTS] = {"create": limits.create, "update": limits.update, "delete": limits.delete}
        props[URN] = pulumi.Output.from_input(self._own_urn(resource_name, opts.parent))
        super().__init__(StreamProvider(), resource_name, {**props, **dict.fromkeys(_OUTPUTS.values())}, opts)
        for attribute, key in (PROPERTIES | _OUTPUTS).items():
            setattr(self, attribute, vars(self)[key])
        if not pulumi.runtime.is_dry_run():
            self.trouble.apply(lambda reasons: _fail_on(resource_name, reasons))

    @classmethod
    async def _own_urn(cls, name: str, parent: pulumi.Resource | None) -> str:
        """Return the URN that Pulumi will give the resource. It depends on nothing: a parent waits for its children."""
        urn = pulumi.create_urn(name, f"pulumi-python:{cls._resource_type_name}", parent)
        return str(await urn.future())


def _named(opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """Return the options with properties by their names in the state, and the plugin's secret outputs as secrets."""
    named = copy(opts)
    named.additional_secret_outputs = [*(opts.additional_secret_outputs or ()), _OUTPUTS["owner_token"]]
    for option in ("ignore_changes", "replace_on_changes"):
        if given := getattr(opts, option):
            setattr(named, option, [PROPERTIES.get(name, name) for name in given])
    return named


def _wire(value: Any, key: str) -> Any:
    """Return a property in the form of the state: models as plain values, an endpoint's names in camelCase."""
    if isinstance(value, pulumi.Output):
        return value.apply(lambda known: _wire(known, key))
    if isinstance(value, Model):
        return value.wire()
    if isinstance(value, Mapping) and key in _ENDPOINTS:
        return {_NAMES.get(name, name): item for name, item in value.items()}
    return value


def _fail_on(resource_name: str, trouble: Sequence[str]) -> None:
    """End the program if the stream was created but is unhealthy; it is in the state by then."""
    if trouble:
        raise pulumi.RunError(f"{resource_name} is created, and unhealthy: {'; '.join(trouble)}")
