"""Effects of a planned change on the data: one verdict for each changed property, from the capability table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from replicator.capabilities import Effect, Verdict, route_of
from replicator.lifecycle.diff import Change
from replicator.model import Stream

_ORDER = list(Verdict)


@dataclass(frozen=True, slots=True)
class Consequence:
    """One property's verdict, and the sentence that the preview shows."""

    property: str
    verdict: Verdict
    text: str

    def __str__(self) -> str:
        return f"{self.property}: {self.verdict.value}: {self.text}"


def consequences(old: Stream, changes: Iterable[Change], *, purges: bool) -> list[Consequence]:
    """Return the verdicts on `changes` to `old`, the most harmful first. A harmless change has none.

    :param purges: whether the changed stream has `purgeDestination`.
    """
    route = route_of(old)
    found: dict[str, Consequence] = {}
    for change in changes:
        if change.replaces:
            found[change.property] = _replacement(old, change.property)
        elif change.property == "purgeDestination":
            if purges:
                text = "from now on a delete of this stream also deletes what it wrote to the destination"
                found[change.property] = Consequence(change.property, Verdict.DELETES_DATA, text)
        else:
            own = route.changes.get(change.path) if route else None
            if route and route.access and change.access:
                own = route.access
            effect = own or (_effect(change.property, route.changes) if route else None)
            if effect and effect.verdict is not Verdict.SAFE:
                name = _plain(change.path) if own else change.property
                found[name] = Consequence(name, effect.verdict, effect.text)
    return sorted(found.values(), key=lambda item: -_ORDER.index(item.verdict))


def _effect(path: str, effects: Mapping[str, Effect]) -> Effect | None:
    """Return a path's effect: of `options` for `options.busy-timeout`, the worst one for an unknown endpoint."""
    if (effect := effects.get(path) or effects.get(path.partition(".")[0])) is not None:
        return effect
    parts = [effect for key, effect in effects.items() if key.startswith(f"{path}.")]
    return max(parts, key=lambda effect: _ORDER.index(effect.verdict), default=None)


def _plain(path: str) -> str:
    """Return a path such as `options["tasks.max"]` in plain notation."""
    return path.replace('["', ".").replace('"]', "")


def _replacement(old: Stream, path: str) -> Consequence:
    made_of = "the stream is removed and made again, which begins with a new snapshot"
    if old.purge_destination:
        return Consequence(path, Verdict.DELETES_DATA, f"{made_of}; purgeDestination deletes what the old one wrote")
    route = route_of(old)
    return Consequence(path, Verdict.RE_SNAPSHOTS, f"{made_of}; {route.removal}" if route else made_of)
