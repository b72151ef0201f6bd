"""Another spelling of a declaration on the real engine: the connectors stay as they are. And globs that mislead."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from tests.backends.kafka_connect.mirror.mirror_env import FOLLOWED, MirrorEnv, records
from tests.kafka import unique

pytestmark = pytest.mark.engine


async def test_another_spelling_leaves_the_connectors_alone(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 20))
    stream = bed.stream(topic, options=FOLLOWED | {"tasks.max": 2})
    await bed.driver.upsert_stream(stream)
    await bed.caught_up(stream.name)
    names = [stream.name, f"{stream.name}.checkpoint"]
    before = [bed.connector(name) for name in names]

    ends: dict[str, Any] = {
        end: {"kind": "kafka", "uri": f"kafka://{side.bootstrap},{side.bootstrap}/?security.protocol=PLAINTEXT"}
        for end, side in (("source", bed.source), ("destination", bed.destination))
    }
    text = {key: value if isinstance(value, str) else str(value).lower() for key, value in stream.options.items()}
    again = bed.stream(topic, name=stream.name, options=text, **ends)
    assert await bed.driver.preflight(again) == []
    await bed.driver.upsert_stream(again)
    assert [bed.connector(name) for name in names] == before
    bed.produce(topic, records(20, 30))
    assert len(await bed.arrived(topic, 30)) == 30

    other = bed.stream(topic, name=stream.name, options=text | {"tasks.max": "1"}, **ends)
    await bed.driver.upsert_stream(other)
    assert (await bed.found(stream.name)).options == stream.options | {"tasks.max": 1}


async def test_a_record_with_options_as_text_is_known_again(bed: MirrorEnv) -> None:
    topic = bed.topic()
    stream = bed.stream(topic, options={"tasks.max": 2})
    await bed.driver.upsert_stream(stream)
    config, key = bed.connector(stream.name), "replicator.stream"
    assert '"tasks.max":2' in config[key]
    before = config | {key: config[key].replace('"tasks.max":2', '"tasks.max":"2"')}
    with closing(bed.rest()) as rest:
        rest.put(f"/connectors/{stream.name}/config", json=before).raise_for_status()
    await bed.driver.upsert_stream(stream)
    assert bed.connector(stream.name) == before


async def test_a_glob_that_was_meant_as_a_regular_expression_has_a_warning(bed: MirrorEnv) -> None:
    word, name = unique("t"), unique("m")
    bed.topic(name=f"{word}-eu")
    (nothing, doubt) = await bed.driver.preflight(bed.stream(f"{word}.*", name=name))
    assert nothing.message == "no topic of the source matches now; one that is made later is mirrored"
    assert (doubt.severity.value, doubt.property, doubt.code) == ("warning", "include", "RPL-STREAM-INVALID")
    assert doubt.message == (
        f"'{word}.*' is a glob, and matches no topic of the source now. As a regular expression it would match "
        f"{word}-eu; if that is meant, write '{word}*'"
    )
    (doubt,) = await bed.driver.preflight(bed.stream(f"{word}*", name=name, exclude=[f"{word}.*"]))
    assert doubt.property == "exclude"
    bed.topic(name=f"{word}.eu")
    assert await bed.another().preflight(bed.stream(f"{word}.*", name=name)) == []
