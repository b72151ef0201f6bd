"""Two Kafka clusters, each with a Connect worker: what a mirror needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.kafka.cluster import Broker, Worker
from tools.kafka.tls import make_tls

SIDES = ("east", "west")


@dataclass(frozen=True)
class Side:
    """One cluster and its Connect worker, by address.

    :param bootstrap: `host:port` of the listener without TLS and login, where everything is allowed.
    :param secure_bootstrap: `host:port` of the listener with TLS and SCRAM-SHA-512; `tools.kafka.cluster.add_user`
        makes its users, which may do what access control lists let them.
    :param ca: the certificate of the authority that the secure listener's clients have to trust, in PEM.
    :param connect: the base URL of the worker's REST interface.
    :param secrets: the folder whose files the worker's connectors may name in `${file:…}` and `${dir:…}`.
    """

    cluster_id: str
    bootstrap: str
    secure_bootstrap: str
    ca: Path
    connect: str
    secrets: Path


@dataclass(frozen=True)
class Pair:
    """Two sides that know nothing of each other."""

    east: Side
    west: Side


@contextmanager
def running_pair(folder: Path, *, plugins: Sequence[Path] = (), worker_heap: str = "384m") -> Iterator[Pair]:
    """Two sides that run inside the block, with their files below `folder`.

    :param plugins: what each worker has beside MirrorMaker 2 and the file connectors, as `Worker` takes it.
    :param worker_heap: the memory of each worker's Java heap, as Java's `-Xmx` takes it.

    Raises EngineMissing, BuildError and EngineNotReady.
    """
    tls = make_tls(folder / "tls")
    brokers = [Broker(folder / name / "broker", tls=tls, authorizer=True) for name in SIDES]
    workers = [
        Worker(folder / name / "worker", broker.bootstrap, plugins=plugins, heap=worker_heap)
        for name, broker in zip(SIDES, brokers, strict=True)
    ]
    try:
        # Side by side: most of a start is spent in one thread.
        for tool in [broker.format() for broker in brokers]:
            if tool is not None:
                tool.wait_end(60)
        for process in (*brokers, *workers):
            process.launch()
        for process in (*brokers, *workers):
            process.wait()
        sides = [
            Side(broker.cluster_id, broker.bootstrap, broker.secure_bootstrap, tls.ca, worker.url, worker.secrets)
            for broker, worker in zip(brokers, workers, strict=True)
        ]
        yield Pair(*sides)
    finally:
        for process in (*workers, *brokers):
            process.kill()
