"""Several recipes of one backend, each for some kinds of ends."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from replicator.backends.kafka_connect.cluster import Connector
from replicator.backends.kafka_connect.deployed import DeployedStream, Listed, Parts
from replicator.backends.kafka_connect.recipe import Prepared, Recipe, ResolvedReplay
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord
from replicator.errors import InvalidStream
from replicator.model import Checkpoint, EndpointKind, Stream
from replicator.replicator import Description, EndHints, Finding, Proposal, ReplayMethod

AnyRecipe = Recipe[Any, Any, Any]


class RoutedFacts(NamedTuple):
    """The results of the checks of one recipe."""

    recipe: AnyRecipe
    facts: Any


class RoutedRecipe:
    """The recipe of a backend whose routes have recipes of their own. It passes each call on, by the stream's ends.

    :param recipes: by the kind of the source. All have objects outside Connect.
    """

    has_objects = True

    def __init__(self, recipes: Mapping[EndpointKind, AnyRecipe]) -> None:
        self._recipes = recipes
        self._any = next(iter(recipes.values()))
        self.kind = self._any.kind

    def _of(self, stream: Stream) -> AnyRecipe:
        return self._recipes[stream.source.kind]

    def part_names(self, name: str) -> Sequence[str]:
        return [part for recipe in self._recipes.values() for part in recipe.part_names(name)]

    def parts(self, record: StreamRecord) -> Parts:
        return self._of(record.stream).parts(record)

    def moves(self, old: StreamRecord, new: StreamRecord) -> bool:
        return self._of(new.stream).moves(old, new)

    def needs_start(self, stream: Stream) -> bool:
        return self._of(stream).needs_start(stream)

    @property
    def connector_classes(self) -> Collection[str]:
        return [name for recipe in self._recipes.values() for name in recipe.connector_classes]

    @property
    def kept_together(self) -> Collection[Collection[str]]:
        return [group for recipe in self._recipes.values() for group in recipe.kept_together]

    @property
    def never_kept(self) -> Collection[str]:
        return [key for recipe in self._recipes.values() for key in recipe.never_kept]

    async def propose(self, connector: Connector, source: EndHints, destination: EndHints) -> Proposal:
        fitting = (recipe for recipe in self._recipes.values() if _is_of(connector, recipe))
        return await next(fitting, self._any).propose(connector, source, destination)

    async def adopted(self, connector: Connector, stream: Stream) -> StreamRecord:
        return await self._of(stream).adopted(connector, stream)

    async def refuse_adoption(self, connector: Connector, record: StreamRecord) -> None:
        await self._of(record.stream).refuse_adoption(connector, record)

    async def recent(self) -> Listed:
        return await self._any.recent()

    def forget_errors(self) -> None:
        for recipe in self._recipes.values():
            recipe.forget_errors()

    async def claim(self, stream: Stream, deployed: DeployedStream | None) -> StreamRecord:
        if deployed is not None:
            _refuse_other_kinds(deployed.record.stream, stream)
        return await self._of(stream).claim(stream, deployed)

    async def look(
        self, stream: Stream, claimed: Sequence[StreamRecord], deployed: DeployedStream | None
    ) -> RoutedFacts:
        recipe = self._of(stream)
        return RoutedFacts(recipe, await recipe.look(stream, claimed, deployed))

    async def validate(self, stream: Stream, facts: RoutedFacts, deployed: DeployedStream | None) -> None:
        await facts.recipe.validate(stream, facts.facts, deployed)

    async def warnings(
        self, stream: Stream, facts: RoutedFacts, claim: StreamRecord, deployed: DeployedStream | None
    ) -> list[Finding]:
        return await facts.recipe.warnings(stream, facts.facts, claim, deployed)

    def positioned(self, deployed: DeployedStream) -> Sequence[Connector]:
        return self._of(deployed.record.stream).positioned(deployed)

    async def refuse_gap(self, record: StreamRecord) -> None:
        await self._of(record.stream).refuse_gap(record)

    async def refuse_return(self, record: StreamRecord, stream: Stream) -> None:
        await self._of(stream).refuse_return(record, stream)

    async def record(self, stream: Stream, facts: RoutedFacts, deployed: DeployedStream | None) -> StreamRecord:
        return await facts.recipe.record(stream, facts.facts, deployed)

    async def find_start(self, stream: Stream) -> Any:
        return await self._of(stream).find_start(stream)

    async def prepare(self, record: StreamRecord, start: Any) -> Prepared:
        return await self._of(record.stream).prepare(record, start)

    async def moved(self, record: StreamRecord, before: StreamRecord) -> StreamRecord:
        return await self._of(record.stream).moved(record, before)

    def starts_idle(self, record: StreamRecord) -> bool:
        return self._of(record.stream).starts_idle(record)

    async def may_idle(self, deployed: DeployedStream, connector: str) -> bool:
        return await self._of(deployed.record.stream).may_idle(deployed, connector)

    def is_writable(self, facts: RoutedFacts) -> bool:
        return facts.recipe.is_writable(facts.facts)

    def must_stop(self, old: StreamRecord, new: StreamRecord) -> bool:
        return self._of(new.stream).must_stop(old, new)

    async def alter(self, old: StreamRecord, new: StreamRecord) -> StreamRecord:
        return await self._of(new.stream).alter(old, new)

    async def follow_up(self, record: StreamRecord) -> None:
        await self._of(record.stream).follow_up(record)

    async def ready(self, record: StreamRecord) -> bool:
        return await self._of(record.stream).ready(record)

    async def refuse_removal(self, record: StreamRecord) -> None:
        await self._of(record.stream).refuse_removal(record)

    async def drain(self, deployed: DeployedStream) -> None:
        await self._of(deployed.record.stream).drain(deployed)

    async def dispose(self, record: StreamRecord, *, undone: bool = False) -> None:
        await self._of(record.stream).dispose(record, undone=undone)

    def as_found(self, deployed: DeployedStream) -> Stream:
        return self._of(deployed.record.stream).as_found(deployed)

    def outline(self, deployed: DeployedStream) -> Description:
        return self._of(deployed.record.stream).outline(deployed)

    async def measure(self, streams: Sequence[DeployedStream]) -> list[Description]:
        groups = [
            [deployed for deployed in streams if self._of(deployed.record.stream) is recipe]
            for recipe in self._recipes.values()
        ]
        asked = zip(self._recipes.values(), groups, strict=True)
        found = await asyncio.gather(*(recipe.measure(group) for recipe, group in asked if group))
        by_name = {item.name: item for items in found for item in items}
        return [by_name[deployed.name] for deployed in streams if deployed.name in by_name]

    async def positions(self, record: StreamRecord) -> Any:
        return await self._of(record.stream).positions(record)

    def is_done(self, record: StreamRecord, replay: ReplayRecord, positions: Any) -> bool:
        return self._of(record.stream).is_done(record, replay, positions)

    async def resolve(
        self, deployed: DeployedStream, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[ResolvedReplay, Any]:
        return await self._of(deployed.record.stream).resolve(deployed, start, method, target)

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> tuple[StreamRecord, ReplayRecord]:
        return await self._of(record.stream).set_back(record, replay)

    async def aclose(self) -> None:
        for recipe in self._recipes.values():
            await recipe.aclose()


def _is_of(connector: Connector, recipe: AnyRecipe) -> bool:
    return connector.config.get("connector.class") in recipe.connector_classes


def _refuse_other_kinds(old: Stream, new: Stream) -> None:
    for end, was, now in (
        ("source", old.source.kind, new.source.kind),
        ("destination", old.destination.kind, new.destination.kind),
    ):
        if was is not now:
            raise InvalidStream(
                f"the stream exists with the kind {was}",
                property=f"{end}.kind",
                fix="remove it first; or give the new stream another name",
            )
