"""The streams that this process has previewed. No engine knows them yet, and two of them may exclude each other."""

from __future__ import annotations

from collections.abc import Iterator

from replicator.backends.shared.declarations import is_same_place
from replicator.capabilities import route_of
from replicator.errors import DestinationInUse, InvalidStream
from replicator.model import Stream
from replicator.replicator import Finding, Severity


class PreviewedStreams:
    """The streams of one program and one address of a backend, by URN."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], dict[str, Stream]] = {}

    def conflicts(self, at: tuple[str, str], urn: str, stream: Stream) -> Iterator[Finding]:
        """Yield why a stream and one that was previewed before cannot both be created; remember the stream.

        :param at: the backend and its address.
        """
        beside = self._seen.setdefault(at, {})
        route = route_of(stream)
        if route is not None and route.private_ends:
            for other in (known for key, known in beside.items() if key != urn):
                if is_same_place(other, stream, "source"):
                    text = f"stream {other.name!r} of this program has this source too, and a source has one stream"
                    fix = "remove one of the two; to copy to a second place, replicate the replica of the first"
                    yield _error(InvalidStream.code, "source.uri", text, fix)
                if is_same_place(other, stream, "destination"):
                    text = f"stream {other.name!r} of this program writes there too"
                    yield _error(
                        DestinationInUse.code, "destination.uri", text, "give each stream a destination of its own"
                    )
        beside[urn] = stream


def _error(code: str, property: str, text: str, fix: str) -> Finding:
    return Finding(severity=Severity.ERROR, code=code, message=text, property=property, fix=fix)
