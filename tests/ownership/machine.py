"""Random sequences of what people do with stacks, over the real provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.lifecycle.builders import S3, SQLITE, inputs
from tests.lifecycle.builders import stream as as_stream
from tests.ownership import checks
from tests.ownership.cli import Declared, Outcome, Stack
from tests.ownership.engine import Fault
from tests.ownership.world import opened

T = TypeVar("T")

RESOURCES = ("a", "b")
NAMES = ("orders", "bills")
stacks = st.integers(0, 2)
resources = st.sampled_from(RESOURCES)
faults = st.one_of(st.none(), st.none(), st.sampled_from(Fault))
reverses = st.booleans()
rarely = st.integers(0, 4).map(lambda number: number == 4)


def declare(name: str | None, source: str, place: str, protected: bool, purges: bool) -> Declared:
    values = inputs(
        name=name or ...,
        backend="memory",
        source={**SQLITE, "uri": f"sqlite:///srv/{source}.db"},
        destination={**S3, "uri": f"s3://bucket/{place}"},
        deletionProtection=protected or ...,
        purgeDestination=purges or ...,
    )
    return Declared(values)


declarations = st.builds(
    declare,
    st.sampled_from([*NAMES, None]),
    st.sampled_from(["one", "two"]),
    st.sampled_from(["x", "y", "z"]),
    rarely,
    rarely,
)


class Ownership(RuleBasedStateMachine):
    """Three stacks, two of which have one name in two backends, over one engine that survives.

    :cvar remote: the engine is behind an agent.
    """

    remote: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self.world = self._run(self._open.enter_async_context(opened(remote=self.remote)))
        self.stacks, self.cli, self.memory = self.world.stacks, self.world.cli, self.world.memory

    def teardown(self) -> None:
        self._run(self._open.aclose())
        self._runner.close()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)

    # --- programs and runs ---

    @rule(stack=stacks, resource=resources, declared=declarations)
    def write(self, stack: int, resource: str, declared: Declared) -> None:
        self.stacks[stack].program[resource] = declared

    @rule(stack=stacks, resource=resources, declared=declarations, fault=faults, after=st.integers(0, 1))
    def write_and_up(self, stack: int, resource: str, declared: Declared, fault: Fault | None, after: int) -> None:
        self.write(stack, resource, declared)
        self._up(self.stacks[stack], fault=fault, after=after)

    @rule(stack=stacks, resource=resources, protected=st.booleans())
    def protect(self, stack: int, resource: str, protected: bool) -> None:
        at = self.stacks[stack]
        if resource in at.program:
            declared = at.program[resource]
            values = {**declared.inputs, "deletionProtection": protected}
            at.program[resource] = replace(declared, inputs=values)
            self._up(at)

    @rule(stack=stacks, resource=resources, fault=faults)
    def leave_out_and_up(self, stack: int, resource: str, fault: Fault | None) -> None:
        at = self.stacks[stack]
        if at.program.pop(resource, None):
            self._up(at, fault=fault)

    @rule(stack=stacks, reverse=reverses, preview=st.booleans(), fault=faults, after=st.integers(0, 2))
    def up(self, stack: int, reverse: bool, preview: bool, fault: Fault | None, after: int) -> None:
        self._up(self.stacks[stack], reverse=reverse, preview=preview, fault=fault, after=after)

    @rule(stack=stacks, resource=resources, fault=faults, after=st.integers(0, 1))
    def replace_unasked(self, stack: int, resource: str, fault: Fault | None, after: int) -> None:
        at = self.stacks[stack]
        if at.urn(resource) in at.live() and resource in at.program:
            self._up(at, replacing=at.urn(resource), fault=fault, after=after)

    @rule(
        stack=stacks,
        resource=resources,
        alias=st.booleans(),
        former=st.none() | declarations,
        reverse=reverses,
        fault=faults,
    )
    def rename_resource(
        self,
        stack: int,
        resource: str,
        alias: bool,
        former: Declared | None,
        reverse: bool,
        fault: Fault | None,
    ) -> None:
        """Another name, with an alias or without, and perhaps another resource under the former one at once."""
        at = self.stacks[stack]
        (other,) = set(RESOURCES) - {resource}
        if resource not in at.program or other in at.program:
            return
        declared = at.program.pop(resource)
        at.program[other] = replace(declared, aliases=(resource,) if alias else ())
        if former is not None:
            at.program[resource] = former
        self._up(at, reverse=reverse, fault=fault)

    @rule(stack=stacks, fault=faults, after=st.integers(0, 1))
    def destroy(self, stack: int, fault: Fault | None, after: int) -> None:
        at = self.stacks[stack]
        sound = not any(entry.pending_delete for entry in at.entries) and all(map(self.world.may_remove, at.entries))
        own = [entry.stream for entry in at.entries if not entry.restored and self.world.rightful(entry)]
        outcome = self._command(at, lambda: self.cli.destroy(at), fault, after)
        if outcome.green:
            checks.after_destroy(self.world, own)
        assert outcome.green or fault or not sound, f"refused: {outcome.refusals}"

    @rule(stack=stacks)
    def refresh(self, stack: int) -> None:
        at = self.stacks[stack]
        assert self._command(at, lambda: self.cli.refresh(at)).green

    # --- states ---

    @rule(stack=stacks, name=st.sampled_from(["dev", "prod", "eu"]))
    def rename_stack(self, stack: int, name: str) -> None:
        at = self.stacks[stack]
        if all((other.backend, other.name) != (at.backend, name) for other in self.stacks):
            at.rename(name)

    @rule(stack=stacks, to=stacks, resource=resources, program=st.booleans())
    def move(self, stack: int, to: int, resource: str, program: bool) -> None:
        """`pulumi state move`, and what the programs declare with it or not."""
        source, target = self.stacks[stack], self.stacks[to]
        entry = source.live().get(source.urn(resource))
        if entry is None or source is target or target.urn(resource) in target.live():
            return
        source.entries.remove(entry)
        target.entries.append(replace(entry, urn=target.urn(resource)))
        if program and resource in source.program:
            target.program[resource] = source.program.pop(resource)

    @rule(stack=stacks, resource=resources, name=st.integers(0, 5), declares=st.booleans())
    def import_(self, stack: int, resource: str, name: int, declares: bool) -> None:
        """`pulumi import`, and the declaration that it prints, in the program or not."""
        at, there = self.stacks[stack], sorted(self.memory.records)
        if not there:
            return
        outcome = self._command(
            at, lambda: self.cli.import_(at, resource, f"memory/default/{there[name % len(there)]}")
        )
        if outcome.green and declares:
            at.program[resource] = Declared(dict(at.live()[at.urn(resource)].state.inputs))

    @rule(stack=stacks, resource=resources)
    def delete_state(self, stack: int, resource: str) -> None:
        at = self.stacks[stack]
        at.entries = [entry for entry in at.entries if entry.urn != at.urn(resource)]

    @rule(stack=stacks)
    def delete_whole_state(self, stack: int) -> None:
        self.stacks[stack].entries = []

    @precondition(lambda self: any(stack.history for stack in self.stacks))
    @rule(stack=stacks, age=st.integers(1, 4))
    def restore(self, stack: int, age: int) -> None:
        at = self.stacks[stack]
        if age <= len(at.history) and at.history[-age][0] == at.name:
            at.entries = [replace(entry, restored=True) for entry in at.history[-age][1]]

    # --- the engine's side ---

    @rule(name=st.integers(0, 5))
    def lose_record(self, name: int) -> None:
        if there := sorted(self.memory.records):
            self.memory.lose(there[name % len(there)])

    @rule()
    def lose_all_records(self) -> None:
        for name in self.memory.records:
            self.memory.lose(name)

    @rule(name=st.sampled_from(NAMES), declared=declarations)
    def make_by_hand(self, name: str, declared: Declared) -> None:
        """An operator makes a stream, which no resource manages."""
        wanted = as_stream(**{**declared.inputs, "name": name})
        if name not in self.memory.records and not self._run(self.memory.preflight(wanted)):
            self._run(self.world.engine.upsert_stream(wanted))

    # --- what holds after each of them ---

    @invariant()
    def nothing_changes_hands(self) -> None:
        assert not self.world.ledger.faults, "; ".join(self.world.ledger.faults)

    @invariant()
    def one_stream_has_one_owner(self) -> None:
        self._run(checks.one_owner(self.world))

    @invariant()
    def records_hold_no_secret(self) -> None:
        if self.remote:
            checks.nothing_only_for_the_program(self.memory)

    def _up(
        self,
        stack: Stack,
        *,
        reverse: bool = False,
        preview: bool = False,
        replacing: str | None = None,
        fault: Fault | None = None,
        after: int = 0,
    ) -> None:
        order = sorted(stack.program, reverse=reverse)
        sure = checks.will_succeed(self.world, stack, replacing)
        held = checks.holding(self.world, stack)
        outcome = self._command(
            stack, lambda: self.cli.up(stack, order, preview=preview, replacing=replacing), fault, after
        )
        if outcome.green:
            checks.after_up(self.world, stack, outcome, held)
        assert outcome.green or fault or not sure, f"refused: {outcome.refusals}"

    def _command(
        self,
        stack: Stack,
        command: Callable[[], Coroutine[Any, Any, Outcome]],
        fault: Fault | None = None,
        after: int = 0,
    ) -> Outcome:
        stack.keep()
        self.world.engine.fault, self.world.engine.after = fault, after
        try:
            return self._run(command())
        finally:
            self.world.engine.fault = None
