"""Damaged answers of a Connect worker: each is read or is an error of ours, and hides no other connector."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import strategies as st
from replicator.backends.kafka_connect import rest as rest_module
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.mirror.stream_reader import StreamReader
from replicator.backends.kafka_connect.record import HEADER, KEY, StreamRecord, recorded_backend
from replicator.backends.kafka_connect.rest import Access, ConnectRest
from replicator.errors import EngineRefused, EngineUnavailable, RecordUnreadable, StreamNotFound

from tests.backends.kafka_connect.mirror.builders import declare, replay_record
from tests.fuzz.damage import documents, run, texts

MARKER = StreamRecord(stream=declare(), source_cluster="east", topics={"orders": "id"}, replays=(replay_record("one"),))
RECORDED = MARKER.keys("kafka-mirror")
CONFIG = {"name": "a", "connector.class": "A", "tasks.max": "1", **RECORDED}
STATUS: dict[str, Any] = {
    "name": "a",
    "type": "source",
    "connector": {"state": "RUNNING", "worker_id": "w:8083"},
    "tasks": [{"id": 0, "state": "FAILED", "worker_id": "w:8083", "trace": "java.lang.Exception: a\n\tat b"}],
}
INFO: dict[str, Any] = {"name": "a", "type": "source", "config": CONFIG, "tasks": [{"connector": "a", "task": 0}]}
OFFSETS = {"offsets": [{"partition": {"cluster": "east", "topic": "orders", "partition": 0}, "offset": {"offset": 7}}]}
VALIDATED = {"configs": [{"definition": {"name": "a"}, "value": {"name": "a", "value": "b", "errors": ["c"]}}]}
ANSWERS: dict[str, Any] = {
    "/": {"version": "4.3.1", "commit": "c", "kafka_cluster_id": "k"},
    "/health": {"status": "healthy", "message": "m"},
    "/connectors": {"a": {"info": INFO, "status": STATUS}},
    "/connectors/a": INFO,
    "/connectors/a/status": STATUS,
    "/connectors/a/offsets": OFFSETS,
    "/connector-plugins/A/config/validate": VALIDATED,
}
GOOD = json.dumps({"info": {"name": "good", "type": "source", "config": {}}, "status": {**STATUS, "name": "good"}})
MANY = pytest.mark.parametrize(
    ("count", "seeded"),
    [(200, True), pytest.param(10_000, False, marks=[pytest.mark.proof, pytest.mark.timeout(1800)])],
)


@MANY
def test_a_damaged_answer_is_read_or_an_error(count: int, seeded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_module, "_FAULTS_FOR", 0.0)
    says: dict[str, tuple[int, bytes]] = {}

    async def answer(request: httpx.Request) -> httpx.Response:
        status, content = says.get(request.url.path, (404, b'{"error_code": 404, "message": "m"}'))
        if request.url.path == "/connectors" and content[:1] == b"{" and status == 200 and content[-1:] == b"}":
            content = b'{"good": ' + GOOD.encode() + b", " + content[1:] if len(content) > 2 else content
        return httpx.Response(status, stream=httpx.ByteStream(content))

    async def look() -> None:
        rest = ConnectRest(Access(("http://worker:8083",)), redact=str)
        rest._opened = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        cluster = ConnectCluster(rest, patience=0.0)
        reader = StreamReader(cluster, ends=None, aliases=None)  # type: ignore[arg-type]
        try:
            for question in (
                cluster.identity(),
                cluster.get("a"),
                cluster.validate("A", {"name": "a"}),
                cluster.resolves(["${env:A}"], "A", "a"),
                reader.positions(MARKER.stream.model_copy(update={"name": "a"})),
            ):
                try:
                    await question
                except (EngineRefused, EngineUnavailable, StreamNotFound):
                    continue
            try:
                found = await cluster.listing()
            except (EngineRefused, EngineUnavailable):
                return
            for connector in found.values():
                recorded_backend(connector.config)
                try:
                    StreamRecord.read(connector.config, "kafka-mirror")
                except RecordUnreadable:
                    continue
        finally:
            await cluster.aclose()

    with asyncio.Runner() as runner:

        def check(given: dict[str, tuple[int, bytes]]) -> None:
            says.clear()
            says.update(given)
            runner.run(look())

        statuses = st.sampled_from([200] * 8 + [404, 500])
        answers = st.fixed_dictionaries({path: st.tuples(statuses, texts(whole)) for path, whole in ANSWERS.items()})
        run(answers, check, count, seeded=seeded)


@MANY
def test_a_damaged_record_is_read_or_refused(count: int, seeded: bool) -> None:
    def check(record: tuple[bytes, bytes]) -> None:
        config = {KEY: record[0].decode(errors="replace"), HEADER: record[1].decode(errors="replace")}
        try:
            found = StreamRecord.read(config, "kafka-mirror")
        except RecordUnreadable as refused:
            assert "record" in refused.message
        else:
            assert found is not None
            assert StreamRecord.read(found.keys("kafka-mirror"), "kafka-mirror") == found

    run(st.tuples(texts(json.loads(RECORDED[KEY])), texts(json.loads(RECORDED[HEADER]))), check, count, seeded=seeded)


@MANY
def test_a_damaged_connector_hides_no_other(count: int, seeded: bool) -> None:
    rest = ConnectRest(Access(("http://worker:8083",)), redact=str)
    listed: dict[str, Any] = {}

    async def answer(request: httpx.Request) -> httpx.Response:
        body = {"status": "healthy"} if request.url.path == "/health" else listed
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(body).encode()))

    async def look() -> None:
        rest._opened = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        cluster = ConnectCluster(rest, patience=0.0)
        try:
            found = await cluster.listing()
        finally:
            await cluster.aclose()
        assert found["good"].type == "source"
        assert "a" in found or listed["a"]["info"] is None

    with asyncio.Runner() as runner:

        def check(item: Any) -> None:
            listed.clear()
            listed.update({"a": item, "good": json.loads(GOOD)})
            runner.run(look())

        run(documents(ANSWERS["/connectors"]["a"]), check, count, seeded=seeded)
