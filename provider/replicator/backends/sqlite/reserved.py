"""The rules of litestream for sharing: streams share no destination, no database and no folder of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from replicator.backends.shared.identity import Look
from replicator.backends.shared.reservations import Ends, Footprint, Reservations
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.errors import InvalidStream


class SqliteReservations(Reservations):
    """Reservations of the streams of one agent.

    :param state: the agent's folder.
    """

    def __init__(self, state: Path, others: Callable[[], Iterable[Ends]]) -> None:
        super().__init__(others)
        self._state = state

    def footprint(self, ends: Ends, look: Look) -> Footprint:
        """Return the places of a stream, with its database and the database's side folder."""
        found = super().footprint(ends, look)
        if ends.source is None:
            return found
        return replace(found, source=look.at(ends.source), private=(look.at_path(_side_folder(ends.source)),))

    def refuse_alone(self, mine: Footprint) -> None:
        """Raise where the stream would write into the agent's folder or into its own database's side folder."""
        super().refuse_alone(mine)
        if mine.destination is not None and mine.destination.overlaps(Look().at_path(str(self._state.absolute()))):
            raise _not_a_destination(mine, "the agent's state folder")
        _refuse_private(mine, mine)

    def refuse_both(self, mine: Footprint, theirs: Footprint) -> None:
        """Raise where two streams share a database, or one would write into the other's side folder."""
        super().refuse_both(mine, theirs)
        if mine.source is not None and theirs.source is not None and mine.source.is_same(theirs.source):
            raise replicated_already(mine.name, theirs.name)
        _refuse_private(mine, theirs)
        if any(folder.overlaps(theirs.destination) for folder in mine.private if theirs.destination):
            raise InvalidStream(
                f"litestream's folder beside this database is where stream {theirs.name!r} writes",
                stream=mine.name,
                property="source.uri",
                fix=f"change the destination of stream {theirs.name!r}",
            )


@lru_cache(maxsize=8192)
def _side_folder(source: str) -> str:
    return str(LITESTREAM.side_folder_of(Path(unquote(urlsplit(source).path))))


def replicated_already(stream: str, other: str) -> InvalidStream:
    """Return the error for a database that another stream has."""
    return InvalidStream(
        f"stream {other!r} replicates this database already, and litestream writes to one place",
        stream=stream,
        property="source.uri",
        fix="change the destination of that stream, or replicate its replica",
    )


def _refuse_private(mine: Footprint, whose: Footprint) -> None:
    if mine.destination is not None and any(mine.destination.overlaps(folder) for folder in whose.private):
        raise _not_a_destination(mine, f"the folder that litestream keeps beside the database of {whose.name!r}")


def _not_a_destination(mine: Footprint, place: str) -> InvalidStream:
    return InvalidStream(
        f"it is {place}, lies in it, or holds it; a delete would remove the replica with it",
        stream=mine.name,
        property="destination.uri",
        fix="choose a folder that nothing else uses",
    )
