"""Clusters and a worker of a test's own, which may be stopped and killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.mirror.cell import MirrorEnv
from tools.kafka.cluster import Broker, Worker


@dataclass(frozen=True)
class Own:
    """A source, a destination, and the destination's worker.

    :param folder: where further processes may have their files.
    """

    folder: Path
    source: Broker
    destination: Broker
    worker: Worker

    @property
    def bed(self) -> MirrorEnv:
        return MirrorEnv(self.source.bootstrap, self.destination.bootstrap, self.worker.url)


@contextmanager
def own_bed(folder: Path) -> Iterator[Own]:
    """It runs inside the block."""
    source, destination = Broker(folder / "source"), Broker(folder / "destination")
    worker = Worker(folder / "worker", destination.bootstrap)
    try:
        for tool in [broker.format() for broker in (source, destination)]:
            if tool is not None:
                tool.wait_end(60)
        for process in (source, destination, worker):
            process.launch()
        for process in (source, destination, worker):
            process.wait()
        yield Own(folder, source, destination, worker)
    finally:
        for process in (worker, source, destination):
            process.kill()
