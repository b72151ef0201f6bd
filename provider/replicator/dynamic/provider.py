"""The dynamic provider: translates Pulumi's calls to the life cycle that it shares with the plugin.

Its host passes on less than the plugin gets. It has no URN, so the resource sends its own in a hidden input. It has no
answer for a partially failed creation, so the output `trouble` has the reasons, and the program fails on them. It does
not call Create and Update in a preview, so Check and Diff send the messages that the plugin sends there.

The state of every resource holds the pickled provider, a reference to `StreamProvider` by module and name. So neither
may change, and an instance has no attributes before `configure`.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)
from pulumi.runtime import rpc

from replicator.dynamic import event_loop
from replicator.dynamic.pulumi_engine import PulumiDiagnostics, engine_address
from replicator.errors import InvalidConfig, InvalidStream, ReplicatorError
from replicator.lifecycle.resource import Applied, StreamResource, Values
from replicator.lifecycle.wait import Limits
from replicator.model import Stream, parse_duration
from replicator.property_values import UNKNOWN, strip

URN = "__urn"
"""The hidden input that holds the resource's URN."""

TIMEOUTS = "__timeouts"
"""The hidden input that holds the resource's custom timeouts: durations by operation."""

WRITTEN = "__written"
"""The hidden output that names the inputs: Diff and Read get only the outputs, which also hold defaults."""

TROUBLE = "trouble"
"""The output with the reasons why the stream is unhealthy."""

PROPERTIES = {name: field.alias or name for name, field in Stream.model_fields.items() if name != "owner"}
"""The properties of a declaration: their names in Python, and in the state."""

T = TypeVar("T")


class StreamProvider(ResourceProvider):
    """Check, diff, create, read, update and delete of `replicator.dynamic.Stream`."""

    serialize_as_secret_always = False

    def configure(self, req: ConfigureRequest) -> None:
        """Take the stack's configuration. Errors in it are reported when a stream is checked."""
        self._messages = PulumiDiagnostics(engine_address(sys.argv[1:]))
        self._resource: StreamResource | InvalidConfig
        try:
            self._resource = StreamResource(event_loop.connections(req.config.get), lambda: self._messages)
        except InvalidConfig as error:
            self._resource = error

    @property
    def _streams(self) -> StreamResource:
        if isinstance(self._resource, InvalidConfig):
            raise self._resource
        return self._resource

    def check(self, _olds: Values, news: Values) -> CheckResult:
        """Fill in name and backend, and refuse invalid inputs; check a new stream at its agent or cluster."""
        return _run(self._check(_olds, news))

    async def _check(self, olds: Values, news: Values) -> CheckResult:
        urn, given = _urn(news), _visible(news)
        try:
            inputs, reasons = await self._streams.check(urn, _visible(olds), given)
            if not reasons and not olds:
                await self._streams.preview_create(urn, inputs)
        except ReplicatorError as error:
            inputs, reasons = given, [str(error)]
        filled = {key: news.get(key, value) for key, value in inputs.items()}
        return CheckResult({**filled, **_hidden(news)}, [CheckFailure("", reason) for reason in reasons])

    def diff(self, _id: str, _olds: Values, _news: Values) -> DiffResult:
        """Return the differences between the state and the declaration, and their effects on the data."""
        return _run(self._diff(_id, _olds, _news))

    async def _diff(self, id: str, olds: Values, news: Values) -> DiffResult:
        urn, old, new = _urn(news), _declared(olds), _visible(news)
        changes = await self._streams.diff(urn, id, old, olds, new)
        replaces = sorted({change.root for change in changes if change.replaces})
        if not replaces and (changes or olds.get(TROUBLE)):
            try:
                await self._streams.preview_update(urn, id, old, olds, new)
            except ReplicatorError as error:  # a refresh calls this too, and has to end
                await self._messages.warn_once(urn, f"this change would fail: {error}")
        # Without an answer, Pulumi compares the inputs itself, and shows the differences within each of them.
        inputs_differ = any(not change.output for change in changes)
        opinion = None if inputs_differ else bool(changes or olds.get(TROUBLE))
        return DiffResult(opinion, replaces, delete_before_replace=self._streams.removed_first)

    def create(self, props: Values) -> CreateResult:
        """Create the stream, or adopt the one that an earlier attempt of the same resource created."""
        made = _run(self._streams.create(_urn(props), _visible(props), _limits(props, "create")))
        return CreateResult(made.id, _outputs(made, props))

    def update(self, _id: str, _olds: Values, _news: Values) -> UpdateResult:
        """Change the stream in place."""
        limits = _limits(_news, "update")
        made = _run(self._streams.update(_urn(_news), _declared(_olds), _olds, _visible(_news), limits))
        return UpdateResult(_outputs(made, _news))

    def read(self, id_: str, props: Values) -> ReadResult:
        """Return the current stream. Return inputs only if they were changed outside of Pulumi."""
        return _run(self._read(id_, props))

    async def _read(self, id: str, props: Values) -> ReadResult:
        urn, old = _urn(props), _declared(props)
        found = await self._streams.read(urn, id, old, props)
        if found is None:
            return ReadResult("", {})
        changed = found.inputs != old
        return ReadResult(id, _outputs(found, props), {**found.inputs, **_hidden(props)} if changed else None)

    def delete(self, _id: str, _props: Values) -> None:
        """Remove the stream."""
        _run(self._streams.delete(_urn(_props), _id, _props, _limits(_props, "delete")))


def _run(call: Coroutine[Any, Any, T]) -> T:
    """Return the result of a call. Errors carry no traceback of their own, since the host shows it."""
    try:
        return event_loop.submit(call).result()
    except ReplicatorError as error:
        raise error.with_traceback(None) from None


def _urn(props: Mapping[str, Any]) -> str:
    return str(props.get(URN, ""))


def _hidden(props: Mapping[str, Any]) -> Values:
    return {key: props[key] for key in (URN, TIMEOUTS) if key in props}


def _visible(props: Mapping[str, Any]) -> Values:
    return {key: _value(item) for key, item in props.items() if not key.startswith("__")}


def _declared(outputs: Mapping[str, Any]) -> Values:
    """Return the inputs that produced these outputs."""
    return {key: _value(outputs[key]) for key in outputs.get(WRITTEN, PROPERTIES.values()) if key in outputs}


def _outputs(made: Applied, props: Mapping[str, Any]) -> Values:
    return {**strip(made.outputs), TROUBLE: list(made.trouble), WRITTEN: sorted(made.inputs), **_hidden(props)}


def _limits(props: Mapping[str, Any], operation: str) -> Limits:
    text = props.get(TIMEOUTS, {}).get(operation)
    try:
        return Limits(parse_duration(text).total_seconds() if text else 0)
    except ValueError as error:
        raise InvalidStream(str(error), property=f"customTimeouts.{operation}") from None


def _value(value: Any) -> Any:
    """Return a value in the life cycle's form: it has its own mark for unknown values, and 5.0 on the wire is 5."""
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return UNKNOWN if value == rpc.UNKNOWN else value
