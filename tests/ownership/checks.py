"""What must hold, of a stack and of all stacks together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set

from replicator.lifecycle.check import Identity, stream_name
from replicator.model import Stream

from tests.dynamic.harness import Refused
from tests.lifecycle.builders import stream as as_stream
from tests.ownership.cli import Cli, Outcome, Stack
from tests.ownership.engine import Memory
from tests.ownership.ledger import Entry, data
from tests.ownership.world import World

Records = Mapping[str, Stream]


async def one_owner(world: World) -> None:
    """Only the resource that holds a stream may change it, an import that has not acted yet beside it."""
    await world.cli.start_plugin()
    for stack in world.stacks:
        for entry in stack.live().values():
            record = world.memory.record(entry.stream)
            if record is None or entry.pending_replacement or world.ledger.rightful(entry, record):
                continue
            with world.memory.undone():
                assert not await _accepted(world.cli, entry), (
                    f"{entry.urn} may change {record.name}, and is not its owner"
                )


async def _accepted(cli: Cli, entry: Entry) -> bool:
    try:
        await cli.face.update(entry.urn, entry.state, entry.state.inputs)
    except Refused as error:
        return "RPL-OWNER" not in str(error)
    return True


def nothing_only_for_the_program(memory: Memory) -> None:
    """What an agent records holds no token in clear, and nothing that only the program needs."""
    for record in memory.records.values():
        assert record == record.recorded()


def named(stack: Stack, resource: str, old: Entry | None) -> str:
    """Return the name of the stream that a resource of the program stands for."""
    given = stack.program[resource].inputs.get("name")
    name = given or (old.stream if old else stream_name(Identity.of_urn(stack.urn(resource))))
    return str(name)


def matched(stack: Stack, resource: str) -> Entry | None:
    """Return the entry that the CLI takes for a resource of the program."""
    live = stack.live()
    aliases = stack.program[resource].aliases
    return next((live[urn] for urn in map(stack.urn, (resource, *aliases)) if urn in live), None)


def will_succeed(world: World, stack: Stack, replacing: str | None) -> bool:
    """Return whether an `up` surely succeeds, so that a refusal would be a fault."""
    if any(entry.pending_delete or entry.pending_replacement or entry.restored for entry in stack.entries):
        return False
    if len({entry.stream for entry in stack.entries}) < len(stack.entries):  # one stream, imported twice
        return False
    wanted = {resource: matched(stack, resource) for resource in stack.program}
    names = {resource: named(stack, resource, old) for resource, old in wanted.items()}
    aliases = [alias for declared in stack.program.values() for alias in declared.aliases]
    if len(set(names.values())) < len(names) or len(set(aliases)) < len(aliases) or set(aliases) & set(wanted):
        return False
    met = [old.urn for old in wanted.values() if old]
    removed = [entry for entry in stack.entries if entry.urn not in met]
    return (
        _destinations_are_free(stack, names, world.memory.records)
        and all(map(world.may_remove, removed))
        and all(_resource_will_succeed(world, stack, name, old, replacing) for name, old in wanted.items())
    )


def _resource_will_succeed(world: World, stack: Stack, resource: str, old: Entry | None, replacing: str | None) -> bool:
    urn, name = stack.urn(resource), named(stack, resource, old)
    record = world.memory.record(name)
    wanted = as_stream(**{**stack.program[resource].inputs, "name": name})
    may_create = record is None or (
        record.owner is not None and record.owner.urn == urn and data(record) == data(wanted)
    )
    if old is None:
        return may_create
    if name != old.stream:
        return may_create and world.may_remove(old)
    if urn == replacing:  # it is checked as a new resource, whose name may be made again
        return world.rightful(old) and may_create and name == named(stack, resource, None)
    return world.rightful(old)


def _destinations_are_free(stack: Stack, names: Mapping[str, str], records: Records) -> bool:
    uris = {names[resource]: declared.inputs["destination"]["uri"] for resource, declared in stack.program.items()}
    taken = [(name, record.destination.uri) for name, record in records.items()]
    return len(set(uris.values())) == len(uris) and all(
        uris[name] != uri for name in uris for other, uri in taken if other != name
    )


def holding(world: World, stack: Stack) -> set[int]:
    """Return the resources of a stack that hold their streams, by a state that is not old.

    Where a stack has imported one stream twice, a person has let one resource take it from the other.
    """
    streams = Counter(entry.stream for entry in stack.live().values())
    return {
        entry.resource
        for entry in stack.live().values()
        if streams[entry.stream] == 1
        and not entry.restored
        and entry.stream in world.memory.records
        and world.rightful(entry)
    }


def after_up(world: World, stack: Stack, outcome: Outcome, held_before: Set[int]) -> None:
    """A green run leaves no declared stream missing, or another's, unless the state was old before it began."""
    streams = Counter(entry.stream for entry in stack.live().values())
    for urn, entry in stack.live().items():
        did = outcome.did.get(urn)
        if did == "same" and entry.resource not in held_before:
            continue
        record = world.memory.record(entry.stream)
        assert record is not None, f"{urn}: {did}, and its stream {entry.stream} is missing"
        if streams[entry.stream] == 1:
            assert world.ledger.rightful(entry, record), f"{urn}: {did}, and its stream {entry.stream} is another's"


def after_destroy(world: World, removed: Iterable[str]) -> None:
    """A green destroy leaves no stream of the stack."""
    for name in removed:
        assert world.memory.record(name) is None, f"{name} is left"
