"""Inputs that a program marks as secret: what is told of them is secret too, and states and numbers are not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from replicator.errors import InvalidStream
from replicator.model import StreamState
from replicator.property_values import Secret, strip
from replicator.replicator import Description, Finding, Severity

from tests.lifecycle.builders import Clock, Watched
from tests.plugin.builders import CONFIG, Provider, failing, serving

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
