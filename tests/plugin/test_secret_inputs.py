"""Inputs that a program marks as secret: what is told of them is secret too, and states and numbers are not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from replicator.backends.sqlite.grants import destination_lines, source_lines
from replicator.backends.sqlite.locations import parse_location, side_folder, source_path
from replicator.errors import InvalidStream
from replicator.model import URI_EXAMPLES, Stream, StreamState
from replicator.plugin.redaction import redacted, redactor_of, sealed
from replicator.property_values import Secret, strip
from replicator.replicator import Description, Finding, Severity

from tests.lifecycle.builders import Clock, Watched
from tests.plugin.builders import CONFIG, Provider, failing, memory_inputs, serving

HOST, PATH = "c4n4ry-host.example", "/c4n4ry-shop"
URI = f"postgres://{HOST}{PATH}"
SOURCE = {"kind": "postgres", "uri": Secret(URI)}
TOLD = (f"cannot reach {URI}", f"no route to {HOST}", f"{PATH} is not there")


class Talkative(Watched):
    """A replicator that names its source wherever it says something."""

    unwell = False

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        found = await super().describe(names)
        state = StreamState.FAILED if self.unwell else StreamState.RUNNING
        status = {"last_error": "; ".join(TOLD), "state": state}
        return [
            item.model_copy(
                update={
                    "status": item.status.model_copy(update=status),
                    "engine_objects": {"database": PATH, "slots": [f"{PATH}_slot", "other"], "count": 3},
                }
            )
            for item in found
        ]

    async def preflight(self, stream: Any) -> list[Finding]:
        return [Finding(severity=Severity.WARNING, code=InvalidStream.code, message=text) for text in TOLD]


@pytest.fixture
async def replicator() -> Talkative:
    return Talkative(Clock())


@pytest.fixture
async def provider(replicator: Talkative) -> AsyncIterator[Provider]:
    async with serving(connect=lambda kind, address: replicator) as provider:
        await provider.configure(**CONFIG)
        yield provider


def in_clear(value: Any) -> list[str]:
    """Every text of outputs that is no secret."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in in_clear(item)]
    if isinstance(value, list):
        return [text for item in value for text in in_clear(item)]
    return [value] if isinstance(value, str) else []


def expect_sealed(outputs: dict[str, Any]) -> None:
    assert not [text for text in in_clear(outputs) if "c4n4ry" in text]
    assert strip(outputs)["engineObjects"] == {"database": PATH, "slots": [f"{PATH}_slot", "other"], "count": 3}
    assert outputs["engineObjects"]["count"] == 3
    assert outputs["engineObjects"]["slots"][1] == "other"
    assert isinstance(outputs["status"]["state"], str)
    assert outputs["status"]["lagSeconds"] == 0
    assert strip(outputs["status"]["lastError"]) == "; ".join(TOLD)


async def test_what_is_told_of_a_secret_input_is_secret(provider: Provider) -> None:
    inputs = await provider.checked(source=SOURCE)
    _, previewed = await provider.create(inputs, preview=True)
    assert not [text for text in in_clear(previewed) if "c4n4ry" in text]
    id, made = await provider.create(inputs)
    expect_sealed(made)
    expect_sealed((await provider.read(id, inputs, made))[2])
    changed = {**inputs, "exclude": ["logs"]}
    expect_sealed(await provider.update(id, inputs, made, changed))
    assert len(provider.engine.warnings) >= len(TOLD)
    assert not [text for text in provider.engine.warnings if "c4n4ry" in text]


async def test_a_stream_that_failed_tells_nothing_either(provider: Provider, replicator: Talkative) -> None:
    replicator.unwell = True
    error = await failing(provider.create(await provider.checked(source=SOURCE)))
    assert "[redacted] is not there" in str(error.details())
    assert "c4n4ry" not in str(error.details())


async def test_without_a_secret_the_texts_are_plain(provider: Provider) -> None:
    inputs = await provider.checked(source={"kind": "postgres", "uri": URI})
    _, made = await provider.create(inputs)
    assert made["status"]["lastError"] == "; ".join(TOLD)


# --- texts that are made from a secret -------------------------------------------------------------------------------


def stream_of(source: str, destination: str) -> Stream:
    ends = {"source": {"kind": "sqlite", "uri": source}, "destination": {"kind": "s3", "uri": destination}}
    return Stream.model_validate({"name": "orders", **ends})


@pytest.mark.parametrize(
    "source",
    [
        "sqlite:///srv/c4n4ry/shop.db",
        "sqlite:///c4n4ry/shop.db",
        "sqlite:///var/lib/c4n4ry.db",
        "sqlite:///c4n4ry.db",
        "sqlite:////srv//c4n4ry/shop.db",
        "sqlite:///srv/c4n4ry%20of%20ours/shop.db",
    ],
)
def test_what_is_made_from_a_secret_source_is_secret(source: str) -> None:
    redactor = redactor_of({"uri": Secret(source)})
    stream = stream_of(source, "file:///replica")
    texts = [str(side_folder(stream)), str(source_path(stream)), f"{source_path(stream)}-wal"]
    if "c4n4ry" in str(source_path(stream).parent):
        texts.append(source_lines(source_path(stream).parent))
    for text in texts:
        assert sealed({"sideFolder": text}, redactor) == {"sideFolder": Secret(text)}
        assert "c4n4ry" not in redacted(f"{text} is not there", redactor)


@pytest.mark.parametrize(
    "destination",
    [
        "s3://c4n4ry/orders",
        "s3://backups/c4n4ry/",
        "s3://backups/orders?endpoint=http://c4n4ry.example:9000/&region=eu",
        "s3://backups/orders?region=eu&endpoint=http%3A%2F%2Fc4n4ry.example",
        "file:///srv/c4n4ry/",
    ],
)
def test_what_is_made_from_a_secret_destination_is_secret(destination: str) -> None:
    redactor = redactor_of({"uri": Secret(destination)})
    location = parse_location(stream_of("sqlite:///a.db", destination))
    texts = [location.url_for_engine(), location.child("r2").url_for_engine(), destination_lines(destination, None)]
    if endpoint := getattr(location, "endpoint", None):
        texts.append(f"no answer from {endpoint}: EndpointConnectionError")
    for text in texts:
        assert isinstance(sealed(text, redactor), Secret)
        assert "c4n4ry" not in redacted(text, redactor)


@pytest.mark.parametrize(("kind", "uri"), [("s3", "s3://bucket"), ("sqlite", "sqlite://shop.db"), ("s3", "file://app")])
async def test_an_example_stays_in_what_is_told_of_a_secret(provider: Provider, kind: str, uri: str) -> None:
    """It is the same for every secret, also for one that it happens to hold."""
    _, reasons = await provider.check(memory_inputs(source={"kind": kind, "uri": Secret(uri)}))
    (reason,) = reasons
    assert URI_EXAMPLES[uri.partition(":")[0]] in reason
    assert "[redacted]" not in reason


def test_an_example_hides_no_secret_that_begins_alike() -> None:
    longer = "sqlite:///var/lib/app/app.db-c4n4ry"
    redactor = redactor_of({"uri": Secret(longer)})
    assert "c4n4ry" not in redacted(f"{longer} must look like {URI_EXAMPLES['sqlite']}", redactor)
    same = redactor_of({"uri": Secret("sqlite:///var/lib/app/app.db")})
    text = f"must look like {URI_EXAMPLES['sqlite']}"
    assert redacted(text, same) == text
    assert isinstance(sealed("/var/lib/app/app.db", same), Secret)
