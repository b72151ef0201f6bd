"""The look before a change: as strict as the configuration, and never in the way of an offline preview."""

from __future__ import annotations

import pytest
from replicator.errors import AgentUnreachable, EngineRefused, EngineUnavailable, HostUnreachable, ReplicatorError
from replicator.lifecycle.preflight import preflight, sentence
from replicator.lifecycle.previewed import PreviewedStreams
from replicator.model import Stream
from replicator.replicator import Finding, Severity

from tests.lifecycle.builders import Watched, connected, stream

ERROR = Finding(severity=Severity.ERROR, code="RPL-SOURCE-MISSING", message="no such file", property="source.uri")
HINT = Finding(severity=Severity.INFO, code="RPL-X", message="it is large", fix="wait")


class Looking(Watched):
    def __init__(self, answer: list[Finding] | ReplicatorError) -> None:
        super().__init__()
        self.answer = answer
        self.looks = 0

    async def preflight(self, stream: Stream) -> list[Finding]:
        self.looks += 1
        if isinstance(self.answer, ReplicatorError):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("strictness", "severities", "looks"),
    [("strict", ["error", "info"], 1), ("warn", ["warning", "info"], 1), ("off", [], 0)],
)
async def test_strictness(strictness: str, severities: list[str], looks: int) -> None:
    looking = Looking([ERROR, HINT])
    found = await preflight(connected(looking, preflight=strictness), stream())
    assert [item.severity.value for item in found] == severities
    assert [item.message for item in found] == ["no such file", "it is large"][: len(severities)]
    assert looking.looks == looks


@pytest.mark.parametrize(
    "error",
    [
        AgentUnreachable("nothing listens", fix="start it"),
        HostUnreachable("no route", fix="wait"),
        EngineUnavailable("no answer"),
    ],
)
async def test_what_cannot_be_reached_is_a_warning(error: ReplicatorError) -> None:
    (found,) = await preflight(connected(Looking(error)), stream())
    assert (found.severity, found.code, found.fix) == (Severity.WARNING, error.code, error.fix)
    assert found.message == f"this preview could not look at the source and the destination: {error.message}"


async def test_what_the_engine_refuses_is_an_error() -> None:
    with pytest.raises(EngineRefused):
        await preflight(connected(Looking(EngineRefused("no"))), stream())


@pytest.mark.parametrize(
    ("finding", "expected"),
    [(ERROR, "source.uri: no such file [RPL-SOURCE-MISSING]"), (HINT, "it is large [RPL-X]\n  → wait")],
)
def test_a_sentence(finding: Finding, expected: str) -> None:
    assert sentence(finding) == expected


async def test_what_other_streams_exclude_is_told_offline_too() -> None:
    away = connected(Looking(AgentUnreachable("nothing listens", fix="start it")))
    found = await preflight(away, stream(), [ERROR])
    assert [item.severity for item in found] == [Severity.ERROR, Severity.WARNING]


def litestream(name: str, source: str, destination: str) -> Stream:
    ends = {
        "source": {"kind": "sqlite", "uri": f"sqlite://{source}"},
        "destination": {"kind": "s3", "uri": f"s3://backups/{destination}?region=eu-central-1"},
    }
    return Stream.model_validate({"name": name, "backend": "litestream", **ends})


def test_streams_of_a_program_see_each_other() -> None:
    previewed, here, there = PreviewedStreams(), ("litestream", "unix:///a"), ("litestream", "unix:///b")

    def told(at: tuple[str, str], urn: str, given: Stream) -> list[tuple[str | None, str]]:
        return [(item.property, item.message.split(" of this")[0]) for item in previewed.conflicts(at, urn, given)]

    one = litestream("one", "/a.db", "one")
    assert told(here, "urn:1", one) == []
    assert told(here, "urn:1", one) == []  # the same resource again
    assert told(here, "urn:2", litestream("two", "/a.db", "two")) == [("source.uri", "stream 'one'")]
    assert told(there, "urn:2", litestream("two", "/a.db", "two")) == []  # another host
    spelled = litestream("three", "/c.db", "one/")
    assert told(here, "urn:3", spelled) == [("destination.uri", "stream 'one'")]
    moved = litestream("one", "/d.db", "four")
    assert told(here, "urn:1", moved) == []
    assert told(here, "urn:4", litestream("five", "/e.db", "five")) == []


def test_streams_that_may_share_an_end_are_left_alone() -> None:
    previewed = PreviewedStreams()
    for name in ("one", "two"):
        assert list(previewed.conflicts(("memory", "x"), f"urn:{name}", stream(name=name))) == []
