"""Sources and destinations of each backend, for the suite that runs over all of them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from replicator.backends.postgres.lsn import read_lsn
from replicator.errors import ReplicatorError
from replicator.replicator import ReplayMethod

from tests.backends.kafka_connect.debezium.debezium_env import DebeziumEnv
from tests.backends.kafka_connect.debezium.records import JSON, flat
from tests.backends.kafka_connect.debezium.sink_env import SinkEnv
from tests.backends.kafka_connect.mirror.mirror_env import records
from tests.kafka import make_topic, plain, produce, unique
from tools.kafka.pair import Pair

Touch = Literal["same", "inside", "around"]
"""How what a second stream writes lies to what the first one does."""


class Places(Protocol):
    """Where the streams of one test read and write."""

    def ends(self, name: str) -> dict[str, Any]:
        """The properties of a stream with a source, which has something in it, and a destination of its own."""
        ...

    def touching(self, name: str, how: Touch) -> dict[str, Any]:
        """The same for another stream, which would write where the stream of this name does."""
        ...

    def spelled(self, ends: dict[str, Any]) -> dict[str, Any]:
        """The same ends, written in another way where there is one."""
        ...

    def with_source_of(self, name: str) -> tuple[dict[str, Any], type[ReplicatorError] | None] | None:
        """The same for another stream, with the source of this one and a destination of its own, and what refuses it.

        None where the destination follows from the source.
        """
        ...

    def not_retained(self, name: str) -> str:
        """A position that the stream's source does not have."""
        ...

    def copy(self) -> str | None:
        """A place for a copy; None where the backend makes none."""
        ...

    @property
    def replay_method(self) -> ReplayMethod:
        """What replays from any position that was a checkpoint."""
        ...

    def order(self, lsn: str) -> int | str:
        """A checkpoint's position as something that sorts."""
        ...


@dataclass(frozen=True)
class Files:
    """SQLite files that are replicated to folders.

    :param beyond: a position that no source reaches.
    :param one_stream_each: what refuses a second stream of a source, where one does.
    """

    folder: Path
    beyond: str
    one_stream_each: type[ReplicatorError] | None

    def ends(self, name: str) -> dict[str, Any]:
        database = self.folder / f"{name}.db"
        with closing(sqlite3.connect(database, isolation_level=None)) as source:
            source.execute("CREATE TABLE IF NOT EXISTS t (a)")
        return {
            "source": {"kind": "sqlite", "uri": f"sqlite://{database}"},
            "destination": self._folder(f"replicas/{name}"),
        }

    def touching(self, name: str, how: Touch) -> dict[str, Any]:
        within = {"same": f"replicas/{name}", "inside": f"replicas/{name}/inside", "around": "replicas"}
        return self.ends(f"beside-{name}") | {"destination": self._folder(within[how])}

    def spelled(self, ends: dict[str, Any]) -> dict[str, Any]:
        link = self.folder.with_name(f"{self.folder.name}-link")
        if not link.is_symlink():
            link.symlink_to(self.folder)
        return {key: {**end, "uri": end["uri"].replace(f"{self.folder}/", f"{link}/")} for key, end in ends.items()}

    def with_source_of(self, name: str) -> tuple[dict[str, Any], type[ReplicatorError] | None]:
        other = self._folder(f"replicas/beside-{name}")
        return self.ends(name) | {"destination": other}, self.one_stream_each

    def not_retained(self, name: str) -> str:
        return self.beyond

    def copy(self) -> str:
        return str(self.folder / "copy.db")

    replay_method = ReplayMethod.AUTO

    def order(self, lsn: str) -> int | str:
        return int(lsn) if lsn.isdecimal() else lsn

    def _folder(self, path: str) -> dict[str, str]:
        return {"kind": "s3", "uri": f"file://{self.folder}/{path}"}


@dataclass(frozen=True)
class Topics:
    """Topics that are mirrored from the east to the west."""

    pair: Pair
    test: str = field(default_factory=lambda: unique("t"))
    made: set[str] = field(default_factory=set)

    def ends(self, name: str) -> dict[str, Any]:
        topic, source = self._topic(name), plain(self.pair.east.bootstrap)
        if topic not in self.made:
            self.made.add(make_topic(source, topic, partitions=1, **{"retention.ms": "-1"}))
            produce(source, topic, records(0, 3))
        return self._mirror(topic)

    def touching(self, name: str, how: Touch) -> dict[str, Any]:
        topic = self._topic(name)
        return self._mirror({"same": topic, "inside": f"{topic[:-1]}?", "around": f"{self.test}*"}[how])

    def spelled(self, ends: dict[str, Any]) -> dict[str, Any]:
        return ends

    def with_source_of(self, name: str) -> None:
        return None

    def not_retained(self, name: str) -> str:
        return f"{self._topic(name)}=99"

    def copy(self) -> None:
        return None

    replay_method = ReplayMethod.AUTO

    def order(self, lsn: str) -> int | str:
        return lsn

    def _topic(self, name: str) -> str:
        return f"{self.test}-{name}"

    def _mirror(self, include: str) -> dict[str, Any]:
        return {
            "source": {"kind": "kafka", "uri": f"kafka://{self.pair.east.bootstrap}"},
            "destination": {"kind": "kafka", "uri": f"kafka://{self.pair.west.bootstrap}"},
            "include": [include],
            "options": {"replication.factor": 1},
        }


@dataclass(frozen=True)
class Tables:
    """Tables that are streamed to topics of the west; each topic's name begins with the test's own word."""

    bed: DebeziumEnv
    test: str = field(default_factory=lambda: unique("t"))
    made: set[str] = field(default_factory=set)

    def ends(self, name: str) -> dict[str, Any]:
        if name not in self.made:
            self.made.add(name)
            self.bed.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY)')
            self.bed.execute(f'INSERT INTO "{name}" VALUES (1), (2)')
        return self._stream(name, f"{self.test}-{name}")

    def touching(self, name: str, how: Touch) -> dict[str, Any]:
        return self.ends(f"beside-{name}") | self._stream(f"beside-{name}", f"{self.test}-{name}")

    def spelled(self, ends: dict[str, Any]) -> dict[str, Any]:
        both = {key: ends[key] for key in ("source", "destination")}
        return ends | {
            key: end | {"uri": end["uri"].replace("postgres://", "postgresql://")} for key, end in both.items()
        }

    def with_source_of(self, name: str) -> tuple[dict[str, Any], None]:
        return self.ends(name) | self._stream(name, f"{self.test}-other-{name}"), None

    def not_retained(self, name: str) -> str:
        return "FFFFFFFF/0"

    def copy(self) -> None:
        return None

    replay_method = ReplayMethod.RESNAPSHOT

    def order(self, lsn: str) -> int:
        return read_lsn(lsn)

    def _stream(self, table: str, prefix: str) -> dict[str, Any]:
        declared = self.bed.stream(f'app."{table}"', name=table, options={"topic.prefix": prefix}).wire()
        wanted = ("source", "destination", "include", "options", "checkpointInterval")
        return {key: declared[key] for key in wanted}


@dataclass(frozen=True)
class Copies(Tables):
    """Tables that are streamed to tables of another database, which have their names."""

    bed: SinkEnv

    def touching(self, name: str, how: Touch) -> dict[str, Any]:
        include = {"same": [f'app."{name}"'], "inside": [f"app.{name[:-1]}?"], "around": ["app.*"]}[how]
        return self._stream(name, f"{self.test}-beside-{name}") | {"include": include}

    def with_source_of(self, name: str) -> tuple[dict[str, Any], None]:
        stream = self._stream(name, f"{self.test}-other-{name}")
        return stream | {"destination": stream["destination"] | {"uri": self.bed.another_target()}}, None


@dataclass(frozen=True)
class Deliveries:
    """Topics of the west that are written to tables of a database, which have their names."""

    bed: SinkEnv
    test: str = field(default_factory=lambda: unique("t"))
    made: set[str] = field(default_factory=set)

    def ends(self, name: str) -> dict[str, Any]:
        topic, source = self._topic(name), plain(self.bed.side.bootstrap)
        if topic not in self.made:
            self.made.add(make_topic(source, topic, partitions=1, **{"retention.ms": "-1"}))
            produce(source, topic, [flat(number, "note") for number in range(3)])
        return self._stream(topic)

    def touching(self, name: str, how: Touch) -> dict[str, Any]:
        topic = self._topic(name)
        return self._stream({"same": topic, "inside": f"{topic[:-1]}?", "around": f"{self.test}*"}[how])

    def spelled(self, ends: dict[str, Any]) -> dict[str, Any]:
        to = ends["destination"]
        return ends | {"destination": to | {"uri": to["uri"].replace("postgres://", "postgresql://")}}

    def with_source_of(self, name: str) -> tuple[dict[str, Any], None]:
        stream = self.ends(name)
        return stream | {"destination": stream["destination"] | {"uri": self.bed.another_target()}}, None

    def not_retained(self, name: str) -> str:
        return f"{self._topic(name)}=99"

    def copy(self) -> None:
        return None

    replay_method = ReplayMethod.AUTO

    def order(self, lsn: str) -> int | str:
        return lsn

    def _topic(self, name: str) -> str:
        return f"{self.test}-{name}"

    def _stream(self, include: str) -> dict[str, Any]:
        return {
            "source": {"kind": "kafka", "uri": f"kafka://{self.bed.side.bootstrap}"},
            "destination": {
                "kind": "postgres",
                "uri": self.bed.target_uri,
                "authRef": f"file://{self.bed.target_login}",
            },
            "include": [include],
            "options": JSON,
        }
