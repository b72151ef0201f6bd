"""Writes archives of loaded classes, with which brokers and workers start in half the time.

    python tools/kafka/class_archive.py

They are kept beside Kafka's jars, by the jars and the Java that they are made from. Without them everything works.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, Python looks beside it alone
from tests.engines import EngineMissing, EngineNotReady
from tools.gobuild import BuildError, say
from tools.kafka.cluster import Broker, Worker
from tools.kafka.jars import jars_cache
from tools.kafka.process import ARCHIVES, Server, archives_key

_ENDS_WITHIN = 120.0  # seconds for a program that writes its archive


def make(folder: Path) -> None:
    """Start a broker and a worker once, and let each write the classes that it has loaded. Raises EngineNotReady."""
    say("writing archives of Kafka's classes (half a minute the first time)")
    with tempfile.TemporaryDirectory() as temporary:
        broker = Broker(Path(temporary) / "broker")
        try:
            _start(broker, folder)
            worker = Worker(Path(temporary) / "worker", broker.bootstrap)
            try:
                _start(worker, folder)
            finally:
                worker.stop(_ENDS_WITHIN)
        finally:
            broker.stop(_ENDS_WITHIN)
    for name in set(ARCHIVES.values()):
        if not (folder / name).exists():
            raise EngineNotReady(f"Java wrote no {name}")


def _start(server: Server, folder: Path) -> None:
    name = ARCHIVES[server.main_class]
    server.environment["JAVA_TOOL_OPTIONS"] = f"-XX:ArchiveClassesAtExit={folder / name}"
    server.start()


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        print(jars_cache().keep("classes", archives_key(), make))
    except (BuildError, EngineMissing, EngineNotReady) as error:
        say(f"there are no archives of classes, so Kafka starts slowly: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
