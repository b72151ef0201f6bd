"""A stream as a resource: converts a declaration's values for the life cycle, and its results to values of a state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import indent
from typing import Any, ClassVar

from replicator.backends import REGISTRY
from replicator.backends.shared.declarations import with_canonical_options
from replicator.capabilities import TABLE
from replicator.diagnostics import Diagnostics
from replicator.errors import (
    BY_CODE,
    AgentUnreachable,
    Category,
    DestinationInUse,
    InvalidStream,
    PolicyMissing,
    RecordUnreadable,
    ReplicatorError,
    WaitCancelled,
    WaitTimeout,
)
from replicator.lifecycle import apply
from replicator.lifecycle.check import Checked, Identity, NameRule, check, with_known_kinds
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.consequence import Consequence, consequences
from replicator.lifecycle.diff import Change, Kind, diff
from replicator.lifecycle.failure import read_inputs
from replicator.lifecycle.preflight import preflight, sentence
from replicator.lifecycle.previewed import PreviewedStreams
from replicator.lifecycle.wait import Limits, Progress
from replicator.model import (
    OF_THE_PROGRAM,
    DesiredState,
    Owner,
    Stream,
    StreamState,
    StreamStatus,
    parse_duration_of_0_1,
)
from replicator.property_values import Secret, drop_unknown, path_text, secret_paths, strip, wrap_secrets
from replicator.replicator import Severity

Values = dict[str, Any]

LAST_LOOK = 2.0
"""Seconds for reading the result after a cancel or a timeout; the Pulumi engine kills after 5."""

_UNSEEN = "what was done at the engine is unknown; pulumi up completes it, and pulumi destroy removes the stream"


@dataclass(frozen=True, slots=True)
class Applied:
    """A stream after an operation, as values for the state.

    :param trouble: why it is unhealthy, one sentence each; empty if it is healthy.
    :param cut_off: a wait was interrupted. Whatever the stream's health, the next run has to wait again.
    """

    id: str
    inputs: Values
    outputs: Values
    trouble: tuple[str, ...] = ()
    cut_off: bool = False


class StreamResource:
    """Check, diff and the effects of a declared stream.

    :param messages: returns the current receiver of messages to the user.
    :cvar stables: outputs that no update changes.
    :cvar removed_first: a replacement may use the same names, so the old stream is removed first.
    """

    stables: ClassVar[tuple[str, ...]] = ("name", "backend")
    removed_first: ClassVar[bool] = True

    def __init__(self, connections: Connections, messages: Callable[[], Diagnostics]) -> None:
        self._connections = connections
        self._messages = messages
        self._replaced: dict[str, str | None] = {}
        self._previewed = PreviewedStreams()

    async def check(
        self, urn: str, old: Values, new: Values, naming: NameRule | None = None
    ) -> tuple[Values, list[str]]:
        """Return the program's inputs, with name and backend filled in, and their errors."""
        new = with_known_kinds({key: value for key, value in new.items() if strip(value) is not None})
        checked = self._checked(urn, new, strip(old), naming)
        filled: Values = {key: checked.inputs[key] for key in ("name", "backend") if key in checked.inputs}
        if "backend" in filled and "backend" not in {**old, **new}:
            kinds = [strip(new[end])["kind"] for end in ("source", "destination")]
            chosen = f"backend: {filled['backend']}, the only one here that moves {kinds[0]} to {kinds[1]}"
            await self._messages().info_once(chosen)
        return {**filled, **new}, [str(failure) for failure in checked.failures]

    def _checked(self, urn: str, new: Values, old_inputs: Values, naming: NameRule | None = None) -> Checked:
        known, holes = drop_unknown(new)
        unknown = [path_text(path) for path in holes]
        return check(strip(known), unknown, old_inputs, Identity.of_urn(urn), self._connections.config, naming)

    async def diff(self, urn: str, id: str, old_inputs: Values, outputs: Values, new: Values) -> list[Change]:
        """Return the differences. Report which property forces a replacement, because the CLI does not.

        :param outputs: those in the state.
        """
        old = _stream_in_state(old_inputs)
        known, holes = drop_unknown(new)
        unknown = [path_text(path) for path in holes]
        after = strip(known) if unknown else _stream_in_state(strip(known))  # a refresh swaps the sides
        changes = diff(old, after, unknown) + _new_urn(urn, outputs)
        replacing = [change for change in changes if change.replaces]
        if replacing:
            self._replaced[urn] = _owner_of(urn, outputs).token
        for item in consequences(old, replacing, purges=old.purge_destination):
            await self._messages().warn_once(
                urn, f"{item.property}: forces replacement: {item.verdict.value}: {item.text}"
            )
        if replacing and old.deletion_protection:
            text = (
                "deletionProtection is on, so the replacement will fail; set it to false in an update of its own first"
            )
            await self._messages().warn_once(urn, text)
        return changes

    async def preview_create(self, urn: str, inputs: Values) -> Values:
        """Return the known outputs of a stream that does not exist yet. Checks both ends, changes nothing."""
        checked = self._checked(urn, inputs, {})
        if checked.stream is not None:
            await self._look(checked.stream, Owner(urn=urn, token=self._replaced.get(urn)))
        return _known_outputs(checked, inputs)

    async def preview_update(self, urn: str, id: str, old_inputs: Values, old: Values, new: Values) -> Values:
        """Return the known outputs of a stream after an update. Warn about each change that is not harmless."""
        checked = self._checked(urn, new, old_inputs)
        before = _stream_in_state(old_inputs)
        unknown = [path_text(path) for path in drop_unknown(new)[1]]
        changes = diff(before, checked.stream or checked.inputs, unknown) + _new_urn(urn, old)
        harmful = await self._warn_of_harm(urn, before, changes, purges=bool(checked.inputs.get("purgeDestination")))
        if any(change.path == "desiredState" for change in changes) and (
            checked.inputs.get("desiredState") == DesiredState.PAUSED
        ):
            await self._messages().info(
                f"desiredState: while it is paused, {TABLE[before.backend or ''].route(before).pause_cost}", urn
            )
        owner = _owner_of(urn, old)
        if not changes:
            await self._say_why_unchanged(urn, id)
        elif checked.stream is not None:
            await self._look(checked.stream, owner)
        for change in _new_urn(urn, old):
            await self._messages().info(
                f"{change.path}: the engine's record names {old[change.path]}; this update names this resource",
                urn,
            )
        stable = {"ownerToken": not owner.issue, "engineObjects": not harmful}
        kept = wrap_secrets({key: old[key] for key in stable if stable[key] and key in old}, [("ownerToken",)])
        return {**_known_outputs(checked, new), **kept, "ownerUrn": urn}

    async def _warn_of_harm(
        self, urn: str, before: Stream, changes: Sequence[Change], *, purges: bool
    ) -> list[Consequence]:
        harmful = consequences(before, changes, purges=purges)
        for item in harmful:
            await self._messages().warn_once(urn, str(item))
        return harmful

    async def _say_why_unchanged(self, urn: str, id: str) -> None:
        """Explain an update without differences, as the CLI does not: the stream was unhealthy after the last run."""
        text = "the stream was unhealthy after the last run; this update tries again"
        try:
            found = await apply.read(self._connections, StreamId.parse(id))
        except ReplicatorError as error:
            found, text = None, f"{text} ({error.message})"
        if found and found.trouble:
            text = f"{text}: {found.trouble[0]}"
        await self._messages().warn_once(urn, text)

    async def _look(self, stream: Stream, owner: Owner) -> None:
        """Show the backend's findings at source and destination; raise if the change will certainly fail."""
        urn = owner.urn
        beside = self._previewed.conflicts(self._connections.place(StreamId.of(stream)), urn, stream)
        found = await preflight(self._connections, stream.model_copy(update={"owner": owner}), list(beside))
        if urn in self._replaced:  # the replaced stream still writes there, and is removed first
            found = [item for item in found if item.code != DestinationInUse.code]
        for item in found:
            if item.severity is Severity.WARNING:
                shared = issubclass(BY_CODE.get(item.code, ReplicatorError), AgentUnreachable | PolicyMissing)
                await self._messages().warn_once("" if shared else urn, sentence(item))
            elif item.severity is Severity.INFO:
                await self._messages().info(sentence(item), urn)
        errors = [item for item in found if item.severity is Severity.ERROR]
        if len(errors) == 1:
            raise errors[0].error(stream.name)
        if errors:
            listed = "".join(f"\n{indent(sentence(item), '    ')}" for item in errors)
            raise InvalidStream(
                f"it would fail for {len(errors)} reasons", stream=stream.name, fix=f"fix each of them:{listed}"
            )

    async def create(self, urn: str, inputs: Values, limits: Limits) -> Applied:
        """Create the stream. Return it even if it is unhealthy, so that its id is not lost."""
        return await self._make_it_so(_stream(strip(inputs)), inputs, apply.new_owner(urn), limits)

    async def update(self, urn: str, old_inputs: Values, old: Values, new: Values, limits: Limits) -> Applied:
        """Change the stream in place. Warn again of what is not harmless: the preview may have been skipped.

        :param old: the outputs in the state.
        """
        stream, before = _stream(strip(new)), _stream_in_state(old_inputs)
        await self._warn_of_harm(urn, before, diff(before, stream), purges=stream.purge_destination)
        return await self._make_it_so(stream, new, _owner_of(urn, old), limits)

    async def _make_it_so(self, stream: Stream, inputs: Values, owner: Owner, limits: Limits) -> Applied:
        try:
            made = await apply.make_it_so(self._connections, stream, owner, limits, self._progress(owner.urn))
        except (WaitCancelled, WaitTimeout) as error:
            return await self._look_back(stream, inputs, owner, error)
        except ReplicatorError as error:
            if not error.unfinished:
                raise
            return await self._look_back(stream, inputs, owner, error)
        return _applied(made, inputs)

    async def _look_back(self, stream: Stream, inputs: Values, owner: Owner, error: ReplicatorError) -> Applied:
        """Return the stream after a call that ended early, to keep it in the state, so that a destroy removes it.

        Raise the error if the engine answers that nothing was created, or that the stream is not this resource's.
        """
        try:
            async with asyncio.timeout(LAST_LOOK):
                found = await apply.look(self._connections, StreamId.of(stream))
        except (TimeoutError, ReplicatorError) as unseen_because:
            unavailable = getattr(unseen_because, "category", Category.UNAVAILABLE) is Category.UNAVAILABLE
            if owner.claim or not unavailable:  # an update keeps the state that it had
                raise error from None
            unseen = StreamStatus(name=stream.name, state=StreamState.FAILED, last_error=error.message)
            found = apply.Outcome(StreamId.of(stream), stream, unseen, {}, (_UNSEEN,), owner.issue)
        else:
            found = found and replace(found, token=apply.proven_token(owner, found.stream.owner))
        if found is None or found.token is None:
            raise error
        return replace(_applied(found, inputs), trouble=(str(error), *found.trouble), cut_off=True)

    async def read(self, urn: str, id: str, old_inputs: Values, old: Values) -> Applied | None:
        """Return the current stream: the program's inputs as far as they still apply, and outputs."""
        at, known = StreamId.parse(id), _owner_of(urn, strip(old))
        try:
            found = await apply.read(self._connections, at, known)
        except RecordUnreadable as error:
            if not old_inputs:
                raise
            failed = StreamStatus(name=at.name, state=StreamState.FAILED, last_error=error.message)
            return Applied(id, old_inputs, {**old, "status": failed.wire()}, (str(error),))
        if found is None:
            return None
        if not old_inputs:
            _refuse_another_id(found)
        live = _with_what_the_program_needs(found.stream, strip(old_inputs))
        inputs = wrap_secrets(_project(live, strip(old_inputs)), secret_paths(old_inputs) | secret_paths(old))
        owner, held = live.owner, strip(old.get("ownerToken"))
        if not old_inputs:
            held = apply.imported_token(owner)
            if owner and owner.urn != urn:
                await self._messages().warning(_recorded_for(owner.urn), urn)
        elif owner and (proven := apply.proven_token(known, owner)):
            if proven == known.issue:  # the answer to a rename, or to an import's first update, was lost
                held = proven
        elif owner and (held or owner.urn != urn):
            whose = "a newer state of this resource" if owner.urn == urn else owner.urn
            await self._messages().warning(f"{whose} owns this stream now; this resource will not change it", urn)
        return _applied(replace(found, stream=live, token=held), inputs)

    async def delete(self, urn: str, id: str, state: Values, limits: Limits) -> None:
        """Remove the stream, unless another resource owns it by now.

        :param state: the outputs in the state.
        """
        owner = _owner_of(urn, state)
        protected = bool(state.get("deletionProtection"))
        at = StreamId.parse(id)
        removed = await apply.delete(
            self._connections, at, owner, protected=protected, limits=limits, progress=self._progress(urn)
        )
        if not removed:
            text = "this state does not own the stream any more, so this delete left the stream as it is"
            await self._messages().info(text, urn)

    def _progress(self, urn: str) -> Progress:
        return lambda text: self._messages().status(text, urn)


def _refuse_another_id(found: apply.Outcome) -> None:
    """Raise if a stream has another id than the one asked for: an address may serve every region."""
    if (right := StreamId.of(found.stream)) != found.id:
        raise InvalidStream(
            f"it has the id {right}, not {found.id}", stream=found.stream.name, fix="import it under its own id"
        )


def _recorded_for(other: str) -> str:
    """Return a warning for an import of a stream whose record names another resource, which a state may still hold."""
    return (
        f"this stream is owned by {other}; the next update takes ownership. If that resource is still in a stack, run "
        "pulumi state delete there first"
    )


def _new_urn(urn: str, outputs: Values) -> list[Change]:
    """Return a change if the record has another URN, as after an alias, a stack rename or an import."""
    recorded = strip(outputs.get("ownerUrn"))
    return [] if recorded in (None, urn) else [Change("ownerUrn", Kind.UPDATE, output=True)]


def _owner_of(urn: str, outputs: Values) -> Owner:
    backend = REGISTRY.get(str(outputs.get("backend")))
    identified_by = backend.identified_by if backend else None
    manager = (outputs.get("engineObjects") or {}).get(identified_by)
    return apply.known_owner(urn, outputs.get("ownerToken"), outputs.get("ownerUrn"), manager)


def _with_what_the_program_needs(live: Stream, old_inputs: Values) -> Stream:
    """Return the stream with the program's values of what the record does not hold; an import has none."""
    if not old_inputs:
        return live.model_copy(update=OF_THE_PROGRAM)
    try:
        old = _stream_in_state(old_inputs)
    except InvalidStream:  # inputs of another release
        return live
    return live.model_copy(update={name: getattr(old, name) for name in OF_THE_PROGRAM})


def _stream(inputs: Mapping[str, Any]) -> Stream:
    return with_canonical_options(read_inputs(Stream, inputs, stream=str(inputs.get("name"))))


def _stream_in_state(inputs: Mapping[str, Any]) -> Stream:
    """Return the declaration in a state, as read by the release that wrote it; raise `InvalidStream`."""
    try:
        return _stream(inputs)
    except InvalidStream:
        text = inputs.get("checkpointInterval")
        try:
            interval = parse_duration_of_0_1(text if isinstance(text, str) else "")
        except ValueError:
            interval = None
        if interval is None:
            raise
        return _stream({**inputs, "checkpointInterval": interval})


def _known_outputs(checked: Checked, inputs: Values) -> Values:
    """Return a preview's outputs: inputs and defaults. Omitted outputs are unknown."""
    defaults = _wire(checked.stream) if checked.stream else {}
    return {**defaults, **checked.inputs, **inputs}


def _applied(found: apply.Outcome, inputs: Values) -> Applied:
    return Applied(str(found.id), inputs, _outputs(found, inputs), found.trouble)


def _outputs(found: apply.Outcome, inputs: Values) -> Values:
    outputs = {
        **_wire(found.stream),
        **inputs,
        "status": found.status.wire(),
        "engineObjects": found.engine_objects,
    }
    if found.token:
        outputs["ownerToken"] = Secret(found.token)
    if found.stream.owner:
        outputs["ownerUrn"] = found.stream.owner.urn
    return outputs


def _wire(stream: Stream) -> Values:
    wire = stream.wire()
    wire.pop("owner", None)
    return wire


def declared(stream: Stream) -> Values:
    """Return the inputs that declare the live stream, without defaults."""
    return _project(stream, {})


def _defaults(stream: Stream) -> Values:
    """Return the defaults of a stream between the same ends."""
    return _wire(Stream(name=stream.name, source=stream.source, destination=stream.destination))


def _project(live: Stream, old_inputs: Values) -> Values:
    """Return the live stream as inputs: inputs with an unchanged meaning keep their text, and defaults are omitted."""
    wire = _wire(live)
    drifted = set(wire)
    if old_inputs:
        try:
            drifted = {change.root for change in diff(_stream_in_state(old_inputs), live)}
        except InvalidStream:
            old_inputs = {}
    required = ("name", "backend", "source", "destination")
    defaults = _defaults(live) if drifted else {}
    kept = {key: value for key, value in old_inputs.items() if key not in drifted}
    changed = {
        key: value
        for key, value in wire.items()
        if key not in kept and (key in drifted or key in required) and (key in required or value != defaults.get(key))
    }
    return {**kept, **changed}
