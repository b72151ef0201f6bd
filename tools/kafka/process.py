"""A Java program that cannot outlive the process that started it, with its log in a file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from replicator.pdeathsig import die_with_parent

from tests.engines import EngineMissing, EngineNotReady
from tools.gobuild import content_key
from tools.kafka.jars import collect, collected, jars_cache

LOGGING = Path(__file__).with_name("log4j2.properties")
# What starts fast and stays small: one collector thread, the first compiler alone, no file in the system's /tmp.
OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Xms32m")
ARCHIVES = {
    "kafka.Kafka": "broker.jsa",
    "kafka.tools.StorageTool": "broker.jsa",
    "org.apache.kafka.connect.cli.ConnectDistributed": "worker.jsa",
}
"""The archive of classes that each program starts with, where `class_archive` has written it."""
LOG_TAIL = 1500
START_TIMEOUT = 90.0


def find_java() -> Path:
    """The `java` on PATH. Raises EngineMissing."""
    found = shutil.which("java")
    if found is None:
        raise EngineMissing("java is not installed (17 or newer): make deps")
    return Path(found).absolute()


def find_jars(name: str = "runtime") -> Path:
    """The folder with the jars of `name`, collected if it is missing. Raises EngineMissing and BuildError."""
    if shutil.which("mvn") is None and not collected(name):
        raise EngineMissing("mvn is not installed, which collects Kafka's jars: make deps")
    return collect(name)


def archives_key() -> str:
    """What the archives of classes are made from: the jars, Java, and the options that decide how classes look."""
    java = find_java().resolve()
    return content_key([], find_jars().name, str(java), str(java.stat().st_mtime_ns), *OPTIONS)


class JavaProcess:
    """One program on Kafka's class path; it can be started again after it ended.

    Start it from a thread that lives as long as this process: the program ends with that thread
    (`replicator.pdeathsig`).

    :param folder: the log `NAME.log` and the temporary files are here.
    :param heap: the most that the heap may take, as in `-Xmx`.
    :param environment: all that the program's environment has beside PATH and a locale.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        main: Sequence[str],
        *,
        heap: str = "256m",
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.name = name
        self.environment = dict(environment or {})
        self._main = tuple(main)
        self._options = (f"-Xmx{heap}", *options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while the program is down."""
        return self._process.pid if self._process else None

    @property
    def main_class(self) -> str:
        """The Java class that is run."""
        return self._main[0]

    @property
    def log(self) -> str:
        """What the program said, over all its starts."""
        return self._log_file.read_text(errors="replace")

    @property
    def _log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    def launch(self) -> None:
        """Start the program and do not wait for it. Raises EngineMissing and BuildError."""
        jars = find_jars()
        temporary = self.folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        command = [str(find_java()), *OPTIONS, *self._archive(), *self._options, f"-Djava.io.tmpdir={temporary}"]
        command += [f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{jars}/*", *self._main]
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                die_with_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **self.environment},
                cwd=self.folder,
                start_new_session=True,
            )

    def _archive(self) -> list[str]:
        """The option for the program's archive of classes. Java ignores one that does not fit."""
        name = ARCHIVES.get(self.main_class)
        archive = jars_cache().root / "classes" / archives_key() / name if name else None
        return [f"-XX:SharedArchiveFile={archive}", "-Xlog:cds=off"] if archive and archive.exists() else []

    def wait_end(self, timeout: float) -> None:
        """Wait until a program that ends by itself has done so. Raises EngineNotReady where that is no success."""
        assert self._process is not None
        try:
            status: int | None = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        self.kill()
        if status != 0:
            raise EngineNotReady(f"{self.name} ended with status {status}:\n{self.log[-LOG_TAIL:]}")

    def stop(self, timeout: float = 20.0) -> None:
        """End the program as its operator would, by SIGTERM; by SIGKILL after `timeout` seconds."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
            self.kill()

    def kill(self) -> None:
        """End the program at once, as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Make the program hang: connections are accepted by the kernel, and no answer comes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise EngineNotReady(f"{self.name} is not running")
        self._process.send_signal(number)


class Server(JavaProcess, ABC):
    """A program that serves until it is stopped. As a context it is started on entry and killed on exit."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does what it is for, now."""

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the server and wait until it answers. Raises EngineMissing, BuildError and EngineNotReady."""
        self.launch()
        self.wait(timeout)

    def wait(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until the server that `launch` started answers; end it where it does not in `timeout` seconds.

        Raises EngineNotReady.
        """
        assert self._process is not None
        deadline = time.monotonic() + timeout
        while not self.answers():
            if (status := self._process.poll()) is not None or time.monotonic() > deadline:
                what = f"does not answer after {timeout:g} s" if status is None else f"ended with status {status}"
                self.kill()
                raise EngineNotReady(f"{self.name} {what}:\n{self.log[-LOG_TAIL:]}")
            time.sleep(0.05)


def properties_text(properties: Mapping[str, object]) -> str:
    """A Java properties file; backslashes and line ends in values are escaped."""

    def escaped(value: object) -> str:
        text = str(value).replace("\\", "\\\\").replace("\n", "\\n")
        return f"\\{text}" if text.startswith(" ") else text

    return "".join(f"{key}={escaped(value)}\n" for key, value in properties.items())


def write_private(path: Path, text: str) -> Path:
    """A file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path
