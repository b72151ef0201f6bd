"""The Replicators that manage streams, with listings that concurrent callers share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name

from replicator.backends import REGISTRY, stream_id
from replicator.backends.settings import BackendConfig
from replicator.backends.shared.single_flight import SingleFlight
from replicator.errors import InvalidStream
from replicator.lifecycle.config import ProviderConfig
from replicator.model import Stream
from replicator.remote.address import SshAddress, is_default, parse_address
from replicator.replicator import Description, Replicator


@dataclass(frozen=True, slots=True)
class StreamId:
    """A resource id, `<backend>/<region or "default">/<name>`."""

    backend: str
    region: str
    name: str

    @classmethod
    def parse(cls, text: str) -> StreamId:
        """Parse an id; raise `InvalidStream` if it is invalid."""
        parts = text.split("/")
        if len(parts) != 3 or not all(parts) or parts[0] not in REGISTRY:
            raise InvalidStream(
                f"{text!r} is not the id of a stream",
                fix="use the output id of the resource, or write <backend>/<region, or default>/<name>, such as "
                "litestream/default/orders",
            )
        return cls(*parts)

    @classmethod
    def of(cls, stream: Stream) -> StreamId:
        """Return the id of a stream whose backend is known."""
        return cls.parse(stream_id(stream))

    def __str__(self) -> str:
        return f"{self.backend}/{self.region}/{self.name}"


class _Opened:
    """A Replicator with its shared listings.

    :ivar measured: with the status of each stream.
    :ivar listed: without what needs a request for each stream.
    """

    def __init__(self, replicator: Replicator) -> None:
        self.replicator = replicator
        self.measured = SingleFlight(partial(_by_name, replicator.describe), 0.0, keep_errors=False)
        self.listed = SingleFlight(partial(_by_name, replicator.overview), 0.0, keep_errors=False)


async def _by_name(ask: Callable[[], Awaitable[list[Description]]]) -> dict[str, Description]:
    return {item.name: item for item in await ask()}


Connect = Callable[[str, str], Replicator]


class Connections:
    """The Replicators of one provider configuration, connected on first use.

    :param connect: opens a Replicator for a backend and an address.
    """

    def __init__(self, config: ProviderConfig, connect: Connect | None = None) -> None:
        self.config = config
        self._connect = connect or self._open_replicator
        self._open: dict[tuple[str, str], _Opened] = {}

    def _open_replicator(self, kind: str, address: str) -> Replicator:
        return open_replicator(kind, address, self.config.block(REGISTRY[kind]))

    def _entry(self, at: StreamId) -> _Opened:
        key = self.place(at)
        if key not in self._open:
            self._open[key] = _Opened(self._connect(*key))
        return self._open[key]

    def place(self, at: StreamId) -> tuple[str, str]:
        """Return the backend and its address; raise `InvalidConfig` if no address is configured."""
        backend = REGISTRY[at.backend]
        return backend.kind, self.config.address(backend, at.region)

    def replicator(self, at: StreamId) -> Replicator:
        """Return the Replicator for reads and changes; raise `InvalidConfig` if no address is configured."""
        return self._entry(at).replicator

    def changing(self, at: StreamId) -> Replicator:
        """Return the Replicator for a change, and discard the shared listings."""
        opened = self._entry(at)
        opened.measured.forget()
        opened.listed.forget()
        return opened.replicator

    async def describe(self, at: StreamId, *, max_age: float) -> Description | None:
        """Return the stream from a listing, at most `max_age` seconds old; `None` if the engine has no such stream."""
        opened = self._entry(at)
        found = (await opened.measured.get(max_age)).get(at.name)
        if found is None:  # a stream that a listing lacks may exist, so ask the engine for the name
            found = next(iter(await opened.replicator.describe([at.name])), None)
        return found

    async def everything(self, kinds: Iterable[str], region: str | None, *, max_age: float) -> dict[str, Description]:
        """Return an overview of all streams of some backends at all configured addresses, by id.

        A stream whose record cannot be read has the id that it would have in the region where it was found.

        :param region: only what is managed there.
        """
        found: dict[str, Description] = {}
        for kind in kinds:
            for place in self.config.places(REGISTRY[kind], region):
                listing = self._entry(StreamId(kind, place, "*")).listed
                for item in (await listing.get(max_age)).values():
                    at = StreamId.of(item.stream) if item.declaration else StreamId(kind, place, item.name)
                    if region in (None, at.region):
                        found[str(at)] = item
        return dict(sorted(found.items()))

    async def aclose(self) -> None:
        """Close every connection."""
        for opened in self._open.values():
            await opened.replicator.aclose()
        self._open.clear()


def start_hint(kind: str, address: str) -> str:
    """Return the fix if nothing serves `kind` at an address; raise `InvalidConfig` for an invalid address."""
    backend, at = REGISTRY[kind], parse_address(address)
    if isinstance(at, SshAddress):
        host, socket = f" on {at.host}", at.socket
    else:
        own = backend.default_address and is_default(address)
        host, socket = "", None if own else str(at.path)
    return f"start it{host}: {backend.started_by}{f' --socket {socket}' if socket else ''}"


def open_replicator(kind: str, address: str, settings: BackendConfig) -> Replicator:
    """Return a client of the agent at an address, or of the engine if the backend needs no agent."""
    backend = REGISTRY[kind]
    if backend.via_agent:
        from replicator.remote.client import RemoteReplicator

        return RemoteReplicator(kind, address, start_hint=start_hint(kind, address))
    opened: Replicator = resolve_name(backend.driver)(address, settings)
    return opened
