"""Three stacks over one engine that survives. The third has the name of the first, in another state backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.ownership.cli import Cli, Stack
from tests.ownership.engine import Memory, Unreliable, through_remote
from tests.ownership.ledger import Entry, Ledger
from tests.plugin import builders


@dataclass
class World:
    """What people, engine and ledger have.

    :ivar memory: the engine.
    :ivar engine: the way to it.
    """

    cli: Cli
    ledger: Ledger
    memory: Memory
    engine: Unreliable
    stacks: list[Stack]

    def rightful(self, entry: Entry) -> bool:
        """Return whether the entry's resource holds its stream, or nothing is there."""
        record = self.memory.record(entry.stream)
        return record is None or self.ledger.rightful(entry, record)

    def may_remove(self, entry: Entry) -> bool:
        """Return whether a delete of the entry has to succeed."""
        record = self.memory.record(entry.stream)
        fresh = entry.imported is not None and record and record.owner and record.owner.urn != entry.urn
        return self.rightful(entry) and not (entry.restored or entry.protected or fresh)


@asynccontextmanager
async def opened(*, remote: bool = False) -> AsyncIterator[World]:
    """Open a world in which nothing is declared.

    :param remote: the engine is behind an agent.
    """
    ledger = Ledger()
    memory = Memory(ledger)
    engine = Unreliable(through_remote(memory) if remote else memory)
    async with builders.serving(connect=lambda kind, address: engine) as provider:
        stacks = [Stack("home", "dev"), Stack("home", "prod"), Stack("away", "dev")]
        yield World(Cli(provider, ledger), ledger, memory, engine, stacks)
