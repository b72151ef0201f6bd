"""TLS, SCRAM and the least rights that suffice; and that no password goes anywhere but into the worker's clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from confluent_kafka.admin import AclOperation, ResourceType
from replicator.backends.kafka.admin import KafkaAdmin
from replicator.errors import DestinationDenied, ReplicatorError, SecretNotFound, SourceDenied
from replicator.model import StreamState

from tests.backends.kafka_connect.mirror.conftest import OpenBed
from tests.backends.kafka_connect.mirror.mirror_env import (
    FOLLOWED,
    MirrorEnv,
    commit,
    committed,
    delete_topic,
    records,
    settings,
)
from tests.backends.sqlite.agents import state_is
from tests.kafka import allow, forbid, unique
from tests.waiting import until
from tools.kafka.cluster import Worker, add_user
from tools.kafka.pair import Pair, Side

pytestmark = pytest.mark.engine

CANARY = "c4n4ry-$HOME-'of-${env:HOME}"
"""A password with everything that a JAAS line can hold."""

READ, WRITE, CREATE, ALTER, DESCRIBE, ALTER_CONFIGS, DESCRIBE_CONFIGS = (
    AclOperation.READ,
    AclOperation.WRITE,
    AclOperation.CREATE,
    AclOperation.ALTER,
    AclOperation.DESCRIBE,
    AclOperation.ALTER_CONFIGS,
    AclOperation.DESCRIBE_CONFIGS,
)
AT_SOURCE = (READ, DESCRIBE_CONFIGS)
"""On the topics that are mirrored. Who may read, write or alter a topic may describe it."""
AT_DESTINATION = (CREATE, ALTER, ALTER_CONFIGS)
"""On their copies. The records themselves are written by the worker's own user."""
GROUP_AT_SOURCE = (DESCRIBE,)
"""On the groups that are followed."""
GROUP_AT_DESTINATION = (READ,)
"""On the same groups, where their positions are written."""
COPIES_OF_FOLLOWED = (*AT_DESTINATION, READ)
"""On the copies, when groups are followed: to write a position one has to read the topic."""
SYNCS = (CREATE, READ, WRITE)
"""On `mm2-offset-syncs.ALIAS.internal` at the destination."""
CHECKPOINTS = (CREATE, READ)
"""On `ALIAS.checkpoints.internal` there. As with the copies, the worker's own user writes."""
FROM_THE_SOURCE = (*AT_DESTINATION, WRITE)
"""The same, for a worker on the source's cluster, whose producer logs in there."""


NOW = int(time.time() * 1000)


@dataclass(frozen=True)
class User:
    """A user of both secure listeners, and a worker on each cluster that has the login."""

    name: str
    east: Worker
    west: Worker

    def may(
        self, side: Side, name: str, operations: Sequence[AclOperation], kind: ResourceType = ResourceType.TOPIC
    ) -> None:
        allow(side, self.name, *[(kind, name, operation) for operation in operations])


@pytest.fixture(scope="module")
def user(kafka: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    name = unique("mirror")
    environment = {
        "MIRROR_USERNAME": name,
        "MIRROR_PASSWORD": CANARY,
        "QUOTED_USERNAME": name,
        "QUOTED_PASSWORD": 'c4n4ry"; evil="',
    }
    workers = []
    for side in (kafka.east, kafka.west):
        add_user(side.bootstrap, name, CANARY)
        folder = tmp_path_factory.mktemp("secure")
        workers.append(Worker(folder, side.bootstrap, group=unique("secure"), environment=environment))
    for worker in workers:
        worker.launch()
    for worker in workers:
        worker.wait()
        (worker.secrets / "mirror.properties").write_text(f"username={name}\npassword={CANARY}\n")
        (worker.secrets / "username").write_text(name)
        (worker.secrets / "password").write_text(CANARY)
    yield User(name, *workers)
    for worker in workers:
        worker.kill()


@pytest.fixture
def own_login(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own process has the login, too."""
    monkeypatch.setenv("MIRROR_USERNAME", user.name)
    monkeypatch.setenv("MIRROR_PASSWORD", CANARY)


def both_ends(pair: Pair, ref: str) -> dict[str, dict[str, str]]:
    """Both secure listeners, with the same login."""
    return {
        end: {"uri": f"kafka://{side.secure_bootstrap}?ssl.truststore.location={side.ca}", "authRef": ref}
        for end, side in (("source", pair.east), ("destination", pair.west))
    }


@pytest.mark.usefixtures("own_login")
@pytest.mark.parametrize(
    ("where", "ref"),
    [
        ("destination", "env://MIRROR_*"),
        ("source", "file://{secrets}/mirror.properties"),
        ("destination", "dir://{secrets}"),
    ],
)
async def test_a_mirror_with_the_least_rights_copies_and_shows_no_password(
    kafka: Pair, open_bed: OpenBed, user: User, where: str, ref: str
) -> None:
    worker = user.west if where == "destination" else user.east
    bed = open_bed(kafka.east, kafka.west, worker.url)
    topic = bed.topic(partitions=2, retention_ms="7200000")
    user.may(kafka.east, topic, AT_SOURCE)
    user.may(kafka.west, bed.copy_of(topic), AT_DESTINATION if worker is user.west else FROM_THE_SOURCE)
    bed.produce(topic, records(0, 10, partitions=2, start=NOW))
    stream = bed.stream(topic, **both_ends(kafka, ref.format(secrets=worker.secrets)))
    assert await bed.driver.preflight(stream) == []
    await bed.driver.upsert_stream(stream)
    status = await bed.caught_up(stream.name)
    assert bed.copied(topic) == bed.original(topic)
    assert settings(kafka.west, bed.copy_of(topic))["retention.ms"] == "7200000"
    await bed.driver.pause(stream.name)
    bed.produce(topic, records(10, 14, partitions=2, start=NOW))
    late = await bed.driver.get_status(stream.name)
    assert late.lag_events == 4
    assert late.lag_seconds is not None
    (found,) = await bed.driver.describe([stream.name])
    for text in (str(bed.connector(stream.name)), repr(status), repr(found), worker.log):
        assert "c4n4ry" not in text


@pytest.mark.usefixtures("own_login")
async def test_groups_are_followed_with_the_least_rights(
    kafka: Pair, user: User, open_bed: OpenBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = open_bed(kafka.east, kafka.west, user.west.url)
    topic, group = bed.topic(), unique("readers")
    user.may(kafka.east, topic, AT_SOURCE)
    user.may(kafka.east, group, GROUP_AT_SOURCE, ResourceType.GROUP)
    user.may(kafka.west, bed.copy_of(topic), COPIES_OF_FOLLOWED)
    user.may(kafka.west, group, GROUP_AT_DESTINATION, ResourceType.GROUP)
    user.may(kafka.west, f"mm2-offset-syncs.{bed.alias}.internal", SYNCS)
    user.may(kafka.west, f"{bed.alias}.checkpoints.internal", CHECKPOINTS)
    bed.produce(topic, records(0, 10, start=NOW))
    commit(kafka.east, group, topic, 5)
    stream = await bed.made(topic, options=FOLLOWED | {"groups": group}, **both_ends(kafka, "env://MIRROR_*"))
    await bed.caught_up(stream.name)
    commit(kafka.east, group, topic, 10)

    def followed() -> bool:
        return committed(kafka.west, group, bed.copy_of(topic)) is not None

    await until(lambda: asyncio.to_thread(followed), timeout=30, what="the group is at the destination")
    seen = await bed.driver.get_status(stream.name)
    assert (seen.state, seen.lag_events) == (StreamState.RUNNING, 0)
    # Whoever has no login sees what Connect tells, and no more.
    monkeypatch.delenv("MIRROR_PASSWORD")
    blind = await bed.another().get_status(stream.name)
    assert blind.last_checkpoint is not None
    assert seen.last_checkpoint is not None
    assert (blind.state, blind.last_checkpoint.lsn) == (seen.state, seen.last_checkpoint.lsn)
    assert blind.last_checkpoint.wall is None
    assert "its lag is not known" in str(blind.last_error)
    assert (blind.lag_events, blind.lag_seconds, blind.last_event) == (None, None, None)


@pytest.mark.usefixtures("own_login")
async def test_without_the_right_to_write_it_is_failed(kafka: Pair, open_bed: OpenBed, user: User) -> None:
    bed = open_bed(kafka.east, kafka.west, user.east.url)
    topic = bed.topic()
    user.may(kafka.east, topic, AT_SOURCE)
    user.may(kafka.west, bed.copy_of(topic), AT_DESTINATION)
    bed.produce(topic, records(0, 3, start=NOW))
    stream = await bed.made(topic, **both_ends(kafka, "env://MIRROR_*"))
    broken = await state_is(bed.driver, stream.name, StreamState.FAILED)
    assert "uthoriz" in str(broken.last_error)
    assert bed.copied(topic) == []


@pytest.mark.usefixtures("own_login")
async def test_without_the_right_to_read_it_is_refused_since_mirrormaker_would_only_log_it(
    kafka: Pair, open_bed: OpenBed, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = open_bed(kafka.east, kafka.west, user.west.url)
    topic = bed.topic()
    user.may(kafka.east, topic, (DESCRIBE, DESCRIBE_CONFIGS))
    user.may(kafka.west, bed.copy_of(topic), AT_DESTINATION)
    bed.produce(topic, records(0, 3, start=NOW))
    with pytest.raises(SourceDenied, match=rf"source\.authRef: the credentials may not read {topic} "):
        await bed.made(topic, **both_ends(kafka, "env://MIRROR_*"))

    # What the connector's role may is not known where we have another one; then it runs, and stays behind.
    watcher = unique("watcher")
    add_user(kafka.east.bootstrap, watcher, CANARY)
    allow(kafka.east, watcher, (ResourceType.TOPIC, topic, READ))
    monkeypatch.setenv("WATCHER_USERNAME", watcher)
    monkeypatch.setenv("WATCHER_PASSWORD", CANARY)
    ends = both_ends(kafka, "env://MIRROR_*")
    ends["source"]["adminAuthRef"] = "env://WATCHER_*"
    stream = await bed.made(topic, **ends)
    await asyncio.sleep(3)  # a mirror that may read has copied by then
    status = await bed.driver.get_status(stream.name)
    assert (status.state, status.lag_events, status.last_error) == (StreamState.CATCHING_UP, 3, None)
    assert status.lag_seconds is not None
    assert bed.copied(topic) == []


@pytest.mark.usefixtures("own_login")
async def test_a_right_to_read_that_is_taken_away_is_told_and_no_lag_is(
    kafka: Pair, open_bed: OpenBed, user: User
) -> None:
    bed = open_bed(kafka.east, kafka.west, user.west.url)
    topic, other = bed.topic(), bed.topic()
    user.may(kafka.east, topic, AT_SOURCE)
    user.may(kafka.east, other, AT_SOURCE)
    for name in (topic, other):
        user.may(kafka.west, bed.copy_of(name), AT_DESTINATION)
    bed.produce(topic, records(0, 10, start=NOW))
    stream = await bed.made(topic, include=[topic, other], **both_ends(kafka, "env://MIRROR_*"))
    await bed.caught_up(stream.name)

    forbid(kafka.east, user.name, (ResourceType.TOPIC, topic, READ))  # what lets it describe the topic goes with it
    bed.produce(topic, records(10, 60, start=NOW))
    status = await state_is(bed.another(), stream.name, StreamState.FAILED)
    assert (status.lag_events, status.lag_seconds) == (None, None)
    assert f"the credentials may not read {topic} at the source (or it does not exist any more)" in str(
        status.last_error
    )
    with pytest.raises(SourceDenied, match=f"may not read {topic} .or it does not exist"):
        await bed.driver.upsert_stream(stream.model_copy(update={"exclude": ("nothing",)}))

    delete_topic(kafka.east, other)  # a topic that is gone is no right that is missing
    user.may(kafka.east, topic, AT_SOURCE)
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == bed.original(topic)


@pytest.mark.usefixtures("own_login")
async def test_a_right_that_comes_back_between_two_questions_hides_no_lag(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing is of before, as it may be for a second, and the topic is asked for by its name after."""
    topic = bed.topic()
    bed.produce(topic, records(0, 5))
    stream = await bed.made(topic)
    await bed.caught_up(stream.name)
    await bed.driver.pause(stream.name)
    bed.produce(topic, records(5, 8))
    listing = KafkaAdmin.topics

    async def before(brokers: KafkaAdmin) -> dict[str, int]:
        return {name: count for name, count in (await listing(brokers)).items() if name != topic}

    monkeypatch.setattr(KafkaAdmin, "topics", before)
    status = await bed.driver.get_status(stream.name)
    assert status.lag_events == 3
    assert status.lag_seconds


@pytest.mark.usefixtures("own_login")
async def test_without_the_right_to_create_topics_it_is_refused_and_a_later_topic_fails(
    kafka: Pair, open_bed: OpenBed, user: User
) -> None:
    bed = open_bed(kafka.east, kafka.west, user.west.url)
    first = bed.topic(name=f"{bed.alias}-first")
    user.may(kafka.east, first, AT_SOURCE)
    user.may(kafka.west, bed.copy_of(first), (ALTER, ALTER_CONFIGS))
    bed.produce(first, records(0, 3, start=NOW))
    changes = {**both_ends(kafka, "env://MIRROR_*"), "options": {"refresh.topics.interval.seconds": 1}}
    stream = bed.stream(f"{bed.alias}-*", **changes)
    (finding,) = await bed.driver.preflight(stream)
    with pytest.raises(DestinationDenied) as refused:
        await bed.driver.upsert_stream(stream)
    assert refused.value.message == finding.message == f"the credentials may not create the topic {bed.copy_of(first)}"
    assert refused.value.property == "destination.authRef"
    assert bed.copied(first) == []

    user.may(kafka.west, bed.copy_of(first), (CREATE,))
    await bed.driver.upsert_stream(stream)
    await bed.caught_up(stream.name)
    later = bed.topic(name=f"{bed.alias}-later")
    user.may(kafka.east, later, AT_SOURCE)
    user.may(kafka.west, bed.copy_of(later), (DESCRIBE,))
    status = await state_is(bed.another(), stream.name, StreamState.FAILED)
    assert f"{bed.copy_of(later)} is not at the destination, and the credentials may not create it" in str(
        status.last_error
    )


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("env://NOWHERE_*", "leaves it as it is"),
        ("env://QUOTED_*", "breaks a JAAS line"),
        ("file:///etc/hostname", "leaves it as it is"),
    ],
    ids=["not set on the worker", "with a quote", "a path that is not allowed"],
)
async def test_a_login_of_no_use_to_the_worker_is_refused_before_anything_is_made(
    kafka: Pair, open_bed: OpenBed, user: User, monkeypatch: pytest.MonkeyPatch, ref: str, told: str
) -> None:
    for word in ("NOWHERE", "QUOTED"):  # our own process gets in
        monkeypatch.setenv(f"{word}_USERNAME", user.name)
        monkeypatch.setenv(f"{word}_PASSWORD", CANARY)
    bed = open_bed(kafka.east, kafka.west, user.west.url)
    stream = bed.stream("orders", **both_ends(kafka, ref), options={"worker.cluster": "destination"})
    (finding,) = await bed.driver.preflight(stream)
    with pytest.raises(SecretNotFound) as refused:
        await bed.driver.upsert_stream(stream)
    assert refused.value.property == finding.property == "source.authRef"
    assert told in refused.value.message
    with bed.rest() as rest:
        assert rest.get(f"/connectors/{stream.name}").status_code == 404
    for text in (str(refused.value), repr(finding), user.west.log):
        assert "c4n4ry" not in text


@pytest.mark.parametrize(
    ("ours", "kind"),
    [
        ({"MIRROR_USERNAME": "nobody", "MIRROR_PASSWORD": "c4n4ry of another"}, SourceDenied),
        ({}, SecretNotFound),
    ],
    ids=["refused", "not set here"],
)
async def test_an_end_that_lets_us_not_in_is_refused_with_its_reference(
    kafka: Pair,
    open_bed: OpenBed,
    user: User,
    monkeypatch: pytest.MonkeyPatch,
    ours: dict[str, str],
    kind: type[ReplicatorError],
) -> None:
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("replicator.backends.kafka.admin.PATIENCE", 1.5)
    bed = open_bed(kafka.east, kafka.west, user.west.url)
    stream = bed.stream("orders", **both_ends(kafka, "env://MIRROR_*"))
    with pytest.raises(kind) as refused:
        await bed.driver.upsert_stream(stream)
    assert refused.value.property == "source.authRef"
    assert "c4n4ry" not in str(refused.value)


@pytest.mark.usefixtures("own_login")
async def test_what_a_placeholder_stands_for_is_not_told_where_it_makes_a_connector_fail(
    kafka: Pair, open_bed: OpenBed, user: User
) -> None:
    """The last test of this module: Connect writes the value into the worker's log, which the others search."""
    bed = open_bed(kafka.east, kafka.west, user.west.url)
    topic = bed.topic()
    user.may(kafka.east, topic, AT_SOURCE)
    user.may(kafka.west, bed.copy_of(topic), AT_DESTINATION)
    stream = await bed.made(topic, **both_ends(kafka, "env://MIRROR_*"))
    await bed.caught_up(stream.name)
    broken = {**bed.connector(stream.name), "consumer.max.poll.records": "${env:MIRROR_PASSWORD}"}
    with bed.rest() as rest:  # by hand: as an option it is refused, since it is no number
        rest.put(f"/connectors/{stream.name}/config", json=broken).raise_for_status()
        status = await state_is(bed.driver, stream.name, StreamState.FAILED)
        assert "c4n4ry" in rest.get(f"/connectors/{stream.name}/status").text, "the worker tells it"
    assert "c4n4ry" not in repr(await bed.driver.describe([stream.name]))
    assert "org.apache.kafka.common.config.ConfigException" in str(status.last_error)
