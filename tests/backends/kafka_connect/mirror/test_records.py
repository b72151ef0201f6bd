"""Records of the release before, of a later one and of other backends, in the connectors of a real worker."""

from __future__ import annotations

import json
from typing import Any

import pytest
from replicator.backends.kafka_connect.record import HEADER, KEY
from replicator.errors import RecordUnreadable
from replicator.model import Owner, Stream, StreamState, token_digest
from replicator.replicator import Severity

from tests.backends.kafka_connect.mirror.builders import URN
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, records
from tests.backends.sqlite.agents import state_is

pytestmark = pytest.mark.engine

TOKEN = "0123456789abcdef" * 2


def put(bed: MirrorEnv, name: str, **changes: str | None) -> dict[str, str]:
    """Change keys of a connector's configuration manually; return all of them."""
    with bed.rest() as rest:
        config = rest.get(f"/connectors/{name}/config").json()
        config = {key: value for key, value in {**config, **changes}.items() if value is not None}
        rest.put(f"/connectors/{name}/config", json=config).raise_for_status()
    return config


def as_the_release_before(bed: MirrorEnv, stream: Stream) -> dict[str, str]:
    """Give a stream the record that release 0.1 writes: no version, the token in clear, all properties."""
    record: dict[str, Any] = json.loads(bed.connector(stream.name)[KEY])
    record["stream"] |= {"owner": {"urn": URN, "token": TOKEN}, "waitFor": "running", "deletionProtection": True}
    return put(bed, stream.name, **{KEY: json.dumps(record), HEADER: None})


async def test_a_record_of_the_release_before_is_rewritten_only_with_another_change(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 3))
    stream = await bed.made(topic)
    before = as_the_release_before(bed, stream)
    await state_is(bed.driver, stream.name, StreamState.RUNNING)
    (found,) = await bed.driver.describe([stream.name])
    assert found.stream.owner == Owner(urn=URN, token=token_digest(TOKEN))

    deployed = stream.model_copy(update={"owner": Owner(urn=URN, token=TOKEN, claim=True)})
    await bed.driver.upsert_stream(deployed)
    await bed.driver.pause(stream.name)
    await bed.driver.resume(stream.name)
    assert bed.connector(stream.name) == before

    changed = deployed.model_copy(update={"options": {**stream.options, "tasks.max": 2}})
    await bed.driver.upsert_stream(changed)
    config = bed.connector(stream.name)
    assert json.loads(config[HEADER]) == {"version": 2, "backend": "kafka-mirror"}
    assert json.loads(config[KEY])["stream"]["owner"] == {"urn": URN, "token": token_digest(TOKEN)}
    assert not [word for word in (TOKEN, "waitFor", "deletionProtection") if word in config[KEY]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({KEY: "{"}, "cannot be read"),
        ({HEADER: '{"version": 3, "backend": "kafka-mirror"}'}, "has version 3"),
        ({HEADER: '{"version": 2, "backend": "debezium"}'}, "of the backend debezium"),
    ],
    ids=["damaged", "later", "foreign"],
)
async def test_what_cannot_be_read_fails_alone_and_is_not_written_over(
    bed: MirrorEnv, changes: dict[str, str], says: str
) -> None:
    topic, other = bed.topic(), bed.topic()
    stream, healthy = await bed.made(topic), await bed.made(other)
    put(bed, stream.name, **changes)
    before = bed.connector(stream.name)

    (found,) = await bed.driver.describe([stream.name])
    assert found.declaration is None
    assert found.status.state is (await bed.driver.get_status(stream.name)).state is StreamState.FAILED
    assert says in str(found.status.last_error)
    assert (found.findings[0].severity, found.findings[0].code) == (Severity.ERROR, RecordUnreadable.code)
    for listed in (await bed.driver.describe(), await bed.driver.overview()):
        by_name = {item.name: item for item in listed}
        assert by_name[healthy.name].stream.name == healthy.name
        assert (stream.name in by_name) is ("debezium" not in says), "a stream of another backend is not listed"
    assert healthy.name in {item.name for item in await bed.driver.list_streams()}
    owner = Owner(urn=URN, token=stream.name, claim=True)
    for call in (
        bed.driver.upsert_stream(stream),
        bed.driver.upsert_stream(stream.model_copy(update={"owner": owner})),
        bed.driver.delete_stream(stream.name, owner=owner),
        bed.driver.pause(stream.name),
        bed.driver.resume(stream.name),
        bed.driver.adopt_stream(stream),
    ):
        with pytest.raises(RecordUnreadable, match=f"stream '{stream.name}'"):
            await call
    (finding,) = await bed.driver.preflight(stream)
    assert finding.code == RecordUnreadable.code
    assert bed.connector(stream.name) == before
    with bed.rest() as rest:
        rest.delete(f"/connectors/{stream.name}").raise_for_status()
