"""A small Pulumi CLI: stacks of several resources, driven through one way to the life cycle.

It does what release 3.274 of the CLI does with states: it looks a resource up by its URN and then by its aliases,
refuses two resources that lay claim to one state, creates the replacement first where it was told to replace (`up
--target-replace`), and deletes what is left at the end. A delete that fails leaves what it was to delete in the state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from tests.dynamic.harness import Plugin, Refused, State
from tests.ownership.ledger import Actor, Entry, Ledger
from tests.plugin import builders

Values = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Declared:
    """A resource of a program.

    :param aliases: names that it had before.
    """

    inputs: Values
    aliases: tuple[str, ...] = ()


@dataclass
class Stack:
    """A program, and the state of what it made.

    :param backend: where the state is kept; the same name in two backends gives the same URNs.
    """

    backend: str
    name: str
    program: dict[str, Declared] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    history: list[tuple[str, list[Entry]]] = field(default_factory=list)

    def urn(self, resource: str) -> str:
        return f"urn:pulumi:{self.name}::shop::replicator:index:Stream::{resource}"

    def live(self) -> dict[str, Entry]:
        """Return the entries that a program can meet, by URN."""
        return {entry.urn: entry for entry in self.entries if not entry.pending_delete}

    def keep(self) -> None:
        """Keep the state as it is, as a backup."""
        self.history.append((self.name, [replace(entry) for entry in self.entries]))

    def rename(self, name: str) -> None:
        """Do what `pulumi stack rename` does: every URN changes, the outputs stay as they are."""
        old, self.name = self.urn(""), name
        for entry in self.entries:
            entry.urn = self.urn(entry.urn.removeprefix(old))


@dataclass
class Outcome:
    """What a command came to.

    :param did: to each resource: create, same, update or replace.
    :param refusals: what went wrong; empty for a green run.
    """

    did: dict[str, str] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    @property
    def green(self) -> bool:
        return not self.refusals


class Cli:
    """The commands. Each one starts a plugin of its own, so that nothing is remembered from one to the next."""

    def __init__(self, provider: builders.Provider, ledger: Ledger) -> None:
        self._provider = provider
        self._ledger = ledger
        self.face = Plugin(provider)

    async def up(
        self, stack: Stack, order: Iterable[str], *, preview: bool = False, replacing: str | None = None
    ) -> Outcome:
        """Run the program.

        :param order: the names of its resources, in the order in which they are registered.
        :param replacing: the URN that is replaced although no property asks for it.
        """
        order = list(order)
        if preview:
            planned = await self._run(_Run(self, stack, replacing, dry=True), order)
            if not planned.green:
                return planned
        return await self._run(_Run(self, stack, replacing), order)

    async def _run(self, run: _Run, order: Iterable[str]) -> Outcome:
        await self.start_plugin()
        stack, outcome = run.stack, Outcome()
        for name in order:
            try:
                outcome.did[stack.urn(name)] = await run.register(name, stack.program[name])
            except Refused as error:
                outcome.refusals.append(str(error))
                return outcome
        if not run.dry:
            left = [entry for entry in stack.entries if entry.pending_delete or entry.urn not in run.operated]
            outcome.refusals += await self._delete(stack, left)
        return outcome

    async def destroy(self, stack: Stack) -> Outcome:
        await self.start_plugin()
        return Outcome(refusals=await self._delete(stack, list(stack.entries)))

    async def _delete(self, stack: Stack, entries: Iterable[Entry]) -> list[str]:
        refusals = []
        for entry in entries:
            try:
                if not entry.pending_replacement:
                    await self.delete(entry)
            except Refused as error:
                refusals.append(str(error))
            else:
                stack.entries.remove(entry)
        return refusals

    async def delete(self, entry: Entry) -> None:
        await self.acting(Actor("delete", entry.urn, entry), self.face.delete(entry.urn, entry.state))

    async def refresh(self, stack: Stack) -> Outcome:
        """Read every resource, one that waits for its deletion too."""
        await self.start_plugin()
        outcome = Outcome()
        for entry in list(stack.entries):
            if entry.pending_replacement:
                continue
            try:
                found = await self.face.read(entry.urn, entry.state)
            except Refused as error:
                outcome.refusals.append(str(error))
                continue
            if found is None:
                stack.entries.remove(entry)
            else:
                entry.state = found
        return outcome

    async def import_(self, stack: Stack, resource: str, id: str) -> Outcome:
        await self.start_plugin()
        urn = stack.urn(resource)
        try:
            if urn in stack.live():
                raise Refused("the resource exists already")
            found = await self.face.read(urn, State(id, {}, {}))
            if found is None:
                raise Refused("the resource does not exist")
            checked = await self.face.check(urn, found.inputs, found.inputs)
        except Refused as error:
            return Outcome(refusals=[str(error)])
        stack.entries.append(self._ledger.imported(urn, replace(found, inputs=checked)))
        return Outcome()

    async def start_plugin(self) -> None:
        await self._provider.configure(**builders.CONFIG)

    async def acting(self, actor: Actor, call: Awaitable[T]) -> T:
        """Let the ledger know whose effects these are."""
        self._ledger.actor = actor
        try:
            return await call
        finally:
            self._ledger.actor = None


class _Run:
    """One run of a program: registrations in their order.

    :param dry: a preview.
    :ivar operated: URNs in the state that this run has met.
    """

    def __init__(self, cli: Cli, stack: Stack, replacing: str | None, *, dry: bool = False) -> None:
        self._cli = cli
        self._face = cli.face
        self.stack = stack
        self.dry = dry
        self._replacing = replacing
        self._olds: Mapping[str, Entry] = stack.live()
        self._seen: set[str] = set()
        self._aliased: dict[str, str] = {}
        self.operated: set[str] = set()

    async def register(self, name: str, declared: Declared) -> str:
        """Do what one registration comes to. Raise `Refused` where the run ends with it."""
        urn = self.stack.urn(name)
        old = self._find(urn, [self.stack.urn(alias) for alias in declared.aliases])
        did, new = await self._plan(urn, old, declared.inputs)
        if self.dry:
            if did == "update":
                await self._face.preview(urn, old.state if old else None, new)
            elif did != "same":
                await self._face.preview(urn, None, new)
        elif old is None:
            await self._create(urn, new)
        elif did == "same":
            old.urn, old.state = urn, replace(old.state, inputs=new)
        elif did == "update":
            await self._update(urn, old, new)
        else:
            await self._replace(urn, old, new, first="create" if did == "replace unasked" else "delete")
        self.operated.add(urn)
        return did

    def _find(self, urn: str, aliases: Iterable[str]) -> Entry | None:
        if urn in self._aliased:
            raise Refused(f"duplicate resource URN {urn}: {self._aliased[urn]} has it as an alias")
        self._seen.add(urn)
        for candidate in (urn, *aliases):
            if candidate not in self._olds:
                continue
            if candidate != urn:
                if candidate in self._seen or candidate in self._aliased:
                    raise Refused(f"duplicate resource alias {candidate} of {urn}")
                self._aliased[candidate] = urn
            return self._olds[candidate]
        return None

    async def _plan(self, urn: str, old: Entry | None, program: Values) -> tuple[str, Values]:
        if old is None:
            return "create", await self._face.check(urn, program, {})
        if urn == self._replacing:
            return "replace unasked", await self._face.check(urn, program, {})
        new = await self._face.check(urn, program, old.state.inputs)
        difference = await self._face.diff(urn, old.state, new)
        if difference.replaces or old.pending_replacement:
            return "replace", await self._face.check(urn, program, {})
        return "update" if difference.changed or old.state.trouble else "same", new

    async def _create(self, urn: str, new: Values) -> None:
        actor = Actor("create", urn)
        state = await self._cli.acting(actor, self._face.create(urn, new))
        self.stack.entries.append(Entry(urn, state, actor.resource, actor.claim))
        _refuse_unwell(state)

    async def _update(self, urn: str, old: Entry, new: Values) -> None:
        old.state = await self._cli.acting(Actor("update", urn, old), self._face.update(urn, old.state, new))
        old.urn, old.restored = urn, False
        _refuse_unwell(old.state)

    async def _replace(self, urn: str, old: Entry, new: Values, *, first: str) -> None:
        if old.pending_replacement:
            await self._create(urn, new)
            self.stack.entries.remove(old)
        elif first == "create":
            await self._create(urn, new)
            old.pending_delete = True
        else:
            await self._cli.delete(old)
            old.pending_replacement = True
            await self._create(urn, new)
            self.stack.entries.remove(old)


def _refuse_unwell(state: State) -> None:
    """A resource that is made and not well is in the state, and fails the run."""
    if state.trouble:
        raise Refused("\n".join(state.trouble))
