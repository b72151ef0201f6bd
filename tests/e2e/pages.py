"""Pages of the documentation as programs: their commands run in a shell, and print what the page says.

A command stands in a block `console` after `$ `; its further lines are those of an unfinished line or document. What
follows up to the next command is its output. A block `sh` has commands whose output is left out. A block `yaml` is the
program, or properties of its stream that change.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

from tests.pulumi import SCRIPTS, Project
from tools.kafka.process import find_jars, find_java
from tools.stage import NOISE

_CLASSES = {
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-delete-records.sh": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "connect-mirror-maker.sh": "org.apache.kafka.connect.mirror.MirrorMaker",
}
"""Kafka's own scripts, which its jars do not have, and what each runs."""
_VOLATILE = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "2026-11-25T09:00:00Z"),
    (r"\b\d+ (s|min|h|d) ago\b", "2 s ago"),
    (r"\b(?!0\.0 s)\d+\.\d s\b", "2.1 s"),
    (r"\b[0-9a-f]{16}\b", "0000000000000010"),
    (r"\b\d+ objects are there", "12 objects are there"),
    (r"\bprocess \d+", "process 4711"),
)
"""What differs from run to run, and what stands for it."""
_STEP = re.compile(r"^ *([-+~=]*) +(\S+:\S+:\S+) +([\w-]+) ?([\w-]*)")
_SAYS_NOTHING = (*NOISE, "Importing ", "The consumer rebalance protocol", "Option --", "Warning: --")


_LOOKS = ("replicator status", "replicator list", "kafka-consumer-groups.sh", "curl -s $CONNECT")
_SETTLES = 40.0  # seconds


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, in a section of the second level."""

    kind: str
    text: str
    section: str


@dataclass(frozen=True)
class Command:
    """A command, and the lines that the page says it prints."""

    text: str
    output: Sequence[str]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    found: list[Block] = []
    section, level = "", ""
    for token in MarkdownIt("commonmark").parse(page.read_text("utf-8")):
        if token.type == "heading_open":
            level = token.tag
        elif token.type == "inline" and level == "h2":
            section, level = token.content, ""
        elif token.type == "fence":
            found.append(Block(token.info, token.content, section))
    return found


def commands(text: str) -> Iterator[Command]:
    """The commands of a block `console`."""
    lines = iter(text.splitlines())
    words: list[str] = []
    output: list[str] = []
    for line in lines:
        if not line.startswith("$ "):
            assert words, f"no command is before {line!r}"
            output.append(line)
            continue
        if words:
            yield Command("\n".join(words), output)
        words, output = [line.removeprefix("$ ")], []
        document = re.search(r"<<'?(\w+)'?", line)
        while words[-1].endswith("\\") or (document and words[-1] != document[1]):
            words.append(next(lines))
    if words:
        yield Command("\n".join(words), output)


@dataclass
class Shell:
    """Where a page's commands run: a project's folder, with the CLI, our commands and Kafka's on PATH.

    :param project: whose program, stack and environment they use.
    :param places: what a command and a program get in the place of the page's own names, such as addresses.
    :param environment: what commands find in their environment too.
    :param stand_ins: what is done in the place of commands that begin so.
    """

    project: Project
    places: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stand_ins: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    _exported: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._bin = self.project.folder / "bin"
        self._bin.mkdir()
        logging = self.project.folder / "log4j2.properties"
        logging.write_text("rootLogger.level = off\n")
        for name, main in _CLASSES.items():
            script = self._bin / name
            words = f"{find_java()} -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
            script.write_text(
                f"#!/bin/sh\nexec {words} -Dlog4j2.configurationFile={logging} -cp '{find_jars()}/*' {main} \"$@\"\n"
            )
            script.chmod(0o755)
        for name in ("replicator", "litestream"):
            (self._bin / name).symlink_to(SCRIPTS / name)

    @property
    def _environment(self) -> dict[str, str]:
        env = self.project.env | dict(self.environment)
        return env | {"PATH": f"{self._bin}{os.pathsep}{env['PATH']}", "COLUMNS": "200"}

    def write(self, text: str) -> None:
        """Write the program of a block `yaml`, or change the properties of its stream."""
        path = self.project.folder / "Pulumi.yaml"
        given: dict[str, Any] = yaml.safe_load(self.real(text))
        if "resources" not in given:
            program = yaml.safe_load(path.read_text())
            (stream,) = (item for item in program["resources"].values() if item["type"] == "replicator:index:Stream")
            stream["properties"] |= given
            given = program
        given["plugins"] = {"providers": [{"name": "replicator", "path": str(SCRIPTS)}]}
        path.write_text(yaml.safe_dump(given, sort_keys=False))

    def run(self, text: str, timeout: float = 100) -> tuple[int, str]:
        """Run a command; its exit code and what it printed, with the page's own names."""
        if text.startswith("export "):
            self._exported.append(self.real(text))
            return 0, ""
        for start, stand_in in self.stand_ins.items():
            if text.startswith(start):
                stand_in()
                return 0, ""
        ran = subprocess.run(
            ["bash", "-c", "\n".join([*self._exported, self.real(text)])],
            cwd=self.project.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        return ran.returncode, self.shown(ran.stdout)

    def follow(self, blocks: Iterable[Block]) -> None:
        """Do what blocks say, and compare what they print."""
        for block in blocks:
            if block.kind == "yaml":
                self.write(block.text)
            elif block.kind == "sh":
                code, said = self.run(f"set -e\n{block.text}")
                assert code == 0, said
            elif block.kind == "console":
                for command in commands(block.text):
                    self.prints(command)

    def prints(self, command: Command) -> None:
        """Run a command, which prints what the page says. One that only looks is run until it does."""
        wanted = essence("\n".join(command.output))
        deadline = time.monotonic() + (_SETTLES if command.text.startswith(_LOOKS) else 0)
        while True:
            code, said = self.run(command.text)
            found = essence(said)
            if found == wanted or time.monotonic() > deadline:
                break
        assert found == wanted, f"{command.text} printed\n{said}"
        failed = any(line.startswith(("error: ", "last error of ")) for line in found)
        assert (code != 0) == failed, f"{command.text} exited {code}"

    def real(self, text: str) -> str:
        """A text of the page with the places of this machine."""
        for name in sorted(self.places, key=len, reverse=True):
            text = text.replace(name, self.places[name])
        return text

    def shown(self, text: str) -> str:
        """A text of this machine as the page has it."""
        for name, place in sorted(self.places.items(), key=lambda item: len(item[1]), reverse=True):
            text = text.replace(place, name)
        for pattern, constant in _VOLATILE:
            text = re.sub(pattern, constant, text)
        return text


def essence(text: str) -> list[str]:
    """The lines of an output that say something, without the widths of columns; of each resource, the last one."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = re.sub(r"\s+", " ", line).strip()
        if step := _STEP.match(line):
            if not step[1]:
                continue  # a resource to which nothing happens
            diff = re.search(r"\[diff: [^]]*\]", line)
            found[f"{step[2]} {step[3]}"] = " ".join([*step.groups(), *([diff[0]] if diff else [])])
        elif words and not words.startswith(_SAYS_NOTHING) and not words.endswith("…"):
            found[f"{len(found)}: {words}"] = words
    # Pulumi prints what it is told of several resources in the order in which that comes.
    return sorted(found.values()) if "Resources:" in found.values() else list(found.values())
