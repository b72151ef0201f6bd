"""Mirrors that would loop or write to the wrong cluster. What is refused here is run by hand too, and does the harm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from replicator.backends.kafka_connect.mirror import preflight
from replicator.errors import DestinationInUse, InvalidStream, ReplicatorError
from replicator.replicator import Severity

from tests.backends.kafka_connect.mirror.builders import IDENTITY
from tests.backends.kafka_connect.mirror.conftest import OpenBed
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, end_of, longest_pause, records
from tests.engines import free_ports
from tests.kafka import Patient, consume, mirror_config, plain, unique, wait_running
from tests.waiting import wait_until
from tools.kafka.cluster import Broker, Worker
from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A cluster that is neither end."""
    broker = Broker(tmp_path_factory.mktemp("third"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="module")
def strict(kafka: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker on the source's cluster that lets no connector write elsewhere."""
    none = {"connector.client.config.override.policy": "None"}
    worker = Worker(tmp_path_factory.mktemp("strict"), kafka.east.bootstrap, group=unique("strict"), properties=none)
    worker.start()
    yield worker
    worker.kill()


@contextmanager
def by_hand(connect: str, config: Mapping[str, str]) -> Iterator[None]:
    """A connector that somebody posts without us, for the time of the block."""
    name = unique("naive")
    with httpx.Client(base_url=connect, transport=Patient(), timeout=30) as rest:
        rest.post("/connectors", json={"name": name, "config": dict(config)}).raise_for_status()
        try:
            wait_running(rest, name)
            yield
        finally:
            rest.put(f"/connectors/{name}/stop").raise_for_status()
            wait_until(lambda: not rest.get(f"/connectors/{name}/tasks").json(), timeout=20, what="it has stopped")
            rest.delete(f"/connectors/{name}").raise_for_status()


async def refused(bed: MirrorEnv, topic: str, **changes: Any) -> ReplicatorError:
    """The error of an upsert; the preview says the same, and nothing is made."""
    stream = bed.stream(topic, **changes)
    (finding,) = await bed.driver.preflight(stream)
    with pytest.raises(ReplicatorError) as error:
        await bed.driver.upsert_stream(stream)
    assert (finding.severity, finding.code, _ours(finding.message)) == (
        Severity.ERROR,
        error.value.code,
        _ours(error.value.message),
    )
    assert stream.name not in {item.name for item in await bed.driver.list_streams()}
    return error.value


def _ours(message: str) -> str:
    """Without the client's own words about brokers that do not answer, which depend on what it did at that moment."""
    return message.partition("did not answer")[0]


async def test_one_cluster_at_both_ends_is_refused(bed: MirrorEnv) -> None:
    topic = bed.topic()
    error = await refused(bed, topic, destination={"uri": f"kafka://{bed.source.bootstrap}"})
    assert (type(error), error.property) == (InvalidStream, "destination.uri")
    assert bed.source.cluster_id in error.message
    # It is the cluster that counts, and not what it is called.
    port = bed.source.bootstrap.rpartition(":")[2]
    assert (await refused(bed, topic, destination={"uri": f"kafka://localhost:{port}"})).message == error.message


async def test_a_third_cluster_is_refused_since_records_would_go_to_the_workers(bed: MirrorEnv, third: Broker) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    error = await refused(bed, topic, destination={"uri": f"kafka://{third.bootstrap}"})
    assert isinstance(error, InvalidStream)
    assert all(id in error.message for id in (bed.source.cluster_id, bed.destination.cluster_id, third.cluster_id))
    said = await refused(
        bed, topic, destination={"uri": f"kafka://{third.bootstrap}"}, options={"worker.cluster": "destination"}
    )
    assert said.message == error.message

    # By hand: the topic is made at the destination, and the records are written to the worker's cluster.
    with by_hand(bed.connect, mirror_config(bed.source.bootstrap, third.bootstrap, topic)):
        assert len(await bed.arrived(topic, 10, name=topic)) == 10
        assert consume(plain(third.bootstrap), topic) == []


async def test_a_mirror_on_the_source_without_an_override_loops_and_ours_does_not(at_source: MirrorEnv) -> None:
    bed, topic = at_source, at_source.topic()
    bed.produce(topic, records(0, 5))
    stream = await bed.made(topic, options=IDENTITY)
    await bed.caught_up(stream.name)
    assert bed.copied(topic, name=topic) == bed.original(topic) == records(0, 5)
    await bed.driver.delete_stream(stream.name)

    with by_hand(bed.connect, mirror_config(bed.source.bootstrap, bed.destination.bootstrap, topic)):
        wait_until(lambda: end_of(bed.source, topic) > 50, timeout=20, what="five records have become fifty")


async def test_a_worker_that_allows_no_override_is_refused_in_the_preview(
    kafka: Pair, open_bed: OpenBed, strict: Worker
) -> None:
    bed = open_bed(kafka.east, kafka.west, strict.url)
    topic = bed.topic()
    error = await refused(bed, topic)
    assert (type(error), error.property) == (InvalidStream, "destination.uri")
    assert "connector.client.config.override.policy=All" in str(error.fix)
    # On the destination's cluster only what one asks for is an override.
    bed = open_bed(kafka.west, kafka.east, strict.url)
    await bed.made(bed.topic())
    error = await refused(bed, topic, options={"producer.override.linger.ms": 5})
    assert error.property == "options.producer.override.linger.ms"


@pytest.mark.parametrize("settings", [{}, {"regions": "both"}], ids=["one Connect cluster", "two Connect clusters"])
async def test_there_and_back_with_names_kept_is_refused(
    kafka: Pair, open_bed: OpenBed, settings: dict[str, str]
) -> None:
    regions = {"regions": {"west": kafka.west.connect, "east": kafka.east.connect}} if settings else {}
    there = open_bed(kafka.east, kafka.west, kafka.west.connect, **regions)
    back = open_bed(kafka.west, kafka.east, kafka.east.connect if settings else kafka.west.connect, **regions)
    topic = there.topic()
    there.produce(topic, records(0, 5))
    first = await there.made(topic, options=IDENTITY)
    await there.caught_up(first.name)
    error = await refused(back, topic, options=IDENTITY)
    assert (type(error), error.property) == (InvalidStream, "include")
    assert first.name in error.message
    # With a prefix each cluster's own records go to the other, and no further.
    second = await back.made(topic)
    await back.caught_up(second.name)
    assert there.original(topic) == records(0, 5)
    assert back.copied(topic) == records(0, 5)


async def test_there_and_back_by_hand_is_endless(kafka: Pair, open_bed: OpenBed) -> None:
    bed = open_bed(kafka.east, kafka.west, kafka.west.connect)
    topic = bed.topic()
    bed.topic(at=bed.destination, name=topic)
    bed.produce(topic, records(0, 5))
    there = mirror_config(kafka.east.bootstrap, kafka.west.bootstrap, topic)
    back = mirror_config(kafka.west.bootstrap, kafka.east.bootstrap, topic)
    with by_hand(kafka.west.connect, there), by_hand(kafka.east.connect, back):
        wait_until(lambda: end_of(bed.source, topic) > 20, timeout=20, what="five records have become twenty")


async def test_globs_that_can_both_match_are_refused_before_such_a_topic_exists(bed: MirrorEnv) -> None:
    start, end = unique("h"), unique("z")  # no hexadecimal digit: the two would share it
    refresh = {"refresh.topics.interval.seconds": 1}
    first = await bed.made(f"{start}*", options=refresh)
    error = await refused(bed, f"{start[0]}*{end}")
    assert (type(error), error.property) == (DestinationInUse, "include")
    assert f"writes to {bed.copy_of(start + end)} too" in error.message
    await bed.made(f"{start[0]}*{end}", exclude=[f"{start}*"])

    # By hand both take it, and each record is there twice.
    topic = bed.topic(name=f"{start}{end}")
    bed.produce(topic, records(0, 5))
    config = {
        key: value for key, value in bed.connector(first.name).items() if not key.startswith(("name", "replicator."))
    }
    with by_hand(bed.connect, {**config, "topics": f"h.*{end}"}):
        await bed.arrived(topic, 10)


async def test_of_two_that_are_made_at_once_one_writes(bed: MirrorEnv) -> None:
    topic = bed.topic()
    both = [bed.stream(topic), bed.stream(topic)]
    results = await asyncio.gather(*map(bed.driver.upsert_stream, both), return_exceptions=True)
    refused = [
        stream.name for stream, result in zip(both, results, strict=True) if isinstance(result, DestinationInUse)
    ]
    made = [stream.name for stream, result in zip(both, results, strict=True) if result is None]
    assert (len(refused), len(made)) == (1, 1)
    names = {stream.name for stream in await bed.driver.list_streams()}
    assert names & {*refused, *made} == set(made)
    await bed.driver.delete_stream(made[0])
    await bed.driver.upsert_stream(next(stream for stream in both if stream.name in refused))


async def test_of_two_that_would_feed_each_other_one_is_made(kafka: Pair, open_bed: OpenBed) -> None:
    """Declared in one program, each on the Connect cluster beside its destination, when neither is there."""
    regions = {"regions": {"west": kafka.west.connect, "east": kafka.east.connect}}
    there = open_bed(kafka.east, kafka.west, kafka.west.connect, **regions)
    back = open_bed(kafka.west, kafka.east, kafka.east.connect, **regions)
    topic = there.topic()
    both = [(bed, bed.stream(topic, options=IDENTITY)) for bed in (there, back)]
    previewed = await asyncio.gather(*(bed.driver.preflight(stream) for bed, stream in both))
    errors = [item.message for found in previewed for item in found if item.severity is Severity.ERROR]
    assert len(errors) == 1
    assert "would come back" in errors[0]
    made = await asyncio.gather(*(bed.driver.upsert_stream(stream) for bed, stream in both), return_exceptions=True)
    assert sorted(type(result).__name__ for result in made) == ["InvalidStream", "NoneType"]


async def test_one_connect_cluster_under_two_addresses_is_not_its_own_neighbour(kafka: Pair, open_bed: OpenBed) -> None:
    again = kafka.west.connect.replace("127.0.0.1", "localhost")
    bed = open_bed(kafka.east, kafka.west, kafka.west.connect, regions={"west": again})
    stream = await bed.made(bed.topic())
    changed = stream.model_copy(update={"exclude": ("x",)})
    await bed.driver.upsert_stream(changed)
    assert await bed.found(stream.name) == changed


async def test_what_was_removed_elsewhere_is_in_nobodys_way(kafka: Pair, open_bed: OpenBed) -> None:
    """A resource that moves to another Connect cluster under another name: its old place was listed just before."""
    regions = {"regions": {"west": kafka.west.connect, "east": kafka.east.connect}}
    old = open_bed(kafka.east, kafka.west, kafka.west.connect, **regions)
    new = open_bed(kafka.east, kafka.west, kafka.east.connect, **regions)
    topic, alias = old.topic(), {"source.cluster.alias": old.alias}
    first = await old.made(topic)
    moved = new.stream(topic, options=alias)
    with pytest.raises(DestinationInUse, match=first.name):
        await new.driver.upsert_stream(moved)
    await old.driver.delete_stream(first.name)
    await new.driver.upsert_stream(moved)


async def test_a_neighbour_that_is_down_is_told_and_stops_nobody(kafka: Pair, open_bed: OpenBed) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    bed = open_bed(kafka.east, kafka.west, kafka.west.connect, regions={"north": nobody})
    topic = bed.topic()
    (warning,) = await bed.driver.preflight(bed.stream(topic))
    assert warning.severity is Severity.WARNING
    assert nobody in warning.message
    await bed.made(topic)


async def test_a_topic_has_one_writer_and_copies_are_not_copied_on(bed: MirrorEnv) -> None:
    topic, other = bed.topic(), bed.topic()
    first = await bed.made(topic, include=[topic, other])
    error = await refused(bed, other)
    assert (type(error), error.property) == (DestinationInUse, "include")
    assert first.name in error.message
    copy = bed.topic(name=bed.copy_of(unique("t")))
    error = await refused(bed, copy)
    assert (type(error), error.property) == (InvalidStream, "include")
    assert "looks like a copy" in error.message


async def test_an_end_that_cannot_be_seen_is_refused_unless_one_says_where_the_worker_is(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = {"source": {"uri": f"kafka://127.0.0.1:{free_ports(1)[0]}"}}
    monkeypatch.setattr("replicator.backends.kafka.admin.PATIENCE", 1.0)
    error = await refused(bed, "orders", **dark)
    assert error.property == "source.uri"
    assert "worker.cluster: destination" in str(error.fix)
    warnings = await bed.driver.preflight(bed.stream("orders", **dark, options={"worker.cluster": "destination"}))
    assert [(item.severity, item.property) for item in warnings] == [(Severity.WARNING, "source.uri")]
    said = await refused(bed, "orders", **dark, options={"worker.cluster": "source"})
    assert said.property == "options.worker.cluster"


async def test_a_preview_with_a_long_check_does_not_hold_up_others(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "refuse_circle", lambda *_: time.sleep(1))
    looking = asyncio.create_task(bed.driver.preflight(bed.stream(bed.topic())))
    assert await longest_pause(looking) < 0.8
