"""The provider's configuration through its protocol: what each tool sends, what is refused, what a change means."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from replicator.errors import AgentUnreachable
from replicator.plugin._proto import pb
from replicator.plugin.codec import UNKNOWN, encode
from replicator.plugin.redaction import redactor_of
from replicator.property_values import Secret

from tests.lifecycle.builders import SQLITE, Clock, Watched
from tests.plugin.builders import Provider, failing, memory_inputs, serving

ID = "memory/default/orders"
ADDRESS = "unix:///mem"
DEFAULT = "urn:pulumi:dev::shop::pulumi:providers:replicator::default"
VERSIONED = f"{DEFAULT}_1_2_3"
OWN = "urn:pulumi:dev::shop::pulumi:providers:replicator::agents"


class Addresses:
    """What the provider connects to, in order; each address has a replicator of its own."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.closed: list[str] = []

    def __call__(self, kind: str, address: str) -> Watched:
        self.seen.append(address)
        closed = self.closed

        class Closing(Watched):
            async def aclose(self) -> None:
                closed.append(address)

        return Closing(Clock())


@pytest.fixture
def addresses() -> Addresses:
    return Addresses()


@pytest.fixture
async def provider(addresses: Addresses) -> AsyncIterator[Provider]:
    async with serving(connect=addresses) as provider:
        yield provider


async def checked(provider: Provider, config: dict[str, Any], urn: str = DEFAULT) -> list[str]:
    """What CheckConfig has against a configuration, of which it changes nothing."""
    reply = await provider.stub.CheckConfig(pb.CheckRequest(urn=urn, news=encode(config)))
    assert reply.inputs == encode(config)
    assert all(failure.property == "" for failure in reply.failures), "Pulumi would quote the value"
    return [failure.reason for failure in reply.failures]


async def configure(provider: Provider, config: dict[str, Any], urn: str = DEFAULT) -> None:
    await provider.stub.Configure(pb.ConfigureRequest(urn=urn, args=encode(config)))


# --- each way to write it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "reached"),
    [
        pytest.param({"memory": {"address": ADDRESS}}, ADDRESS, id="an object: a provider in YAML or Go"),
        pytest.param({"memory": f'{{"address": "{ADDRESS}"}}'}, ADDRESS, id="text: pulumi config, Python, TypeScript"),
        pytest.param({"memory": f'\n  {{"address":"{ADDRESS}"}}'}, ADDRESS, id="text of several lines"),
        pytest.param({"memory": Secret(f'{{"address": "{ADDRESS}"}}')}, ADDRESS, id="secret text"),
        pytest.param({"memory": {"address": Secret(ADDRESS)}}, ADDRESS, id="a secret within"),
        pytest.param({"memory": Secret({"regions": {"eu": ADDRESS}})}, ADDRESS, id="a secret object"),
        pytest.param({"memory": {"regions": {"eu": ADDRESS, "us": "unix:///us"}}}, ADDRESS, id="a region"),
        pytest.param({"memory": {"address": "unix:///b", "regions": {"eu": ADDRESS}}}, ADDRESS, id="a region first"),
        pytest.param({"memory": {"address": ADDRESS}, "version": "1.2.3", "__internal": "{}"}, ADDRESS, id="an SDK's"),
        pytest.param({"memory": {"address": ADDRESS}, "preflight": None}, ADDRESS, id="nothing"),
        pytest.param({"memory": {"address": ADDRESS}, "preflight": "warn"}, ADDRESS, id="a word"),
        pytest.param({"memory": {"address": ADDRESS}, "preflight": '"warn"'}, ADDRESS, id="a word as JSON"),
    ],
)
async def test_a_configuration_is_taken(
    provider: Provider, addresses: Addresses, config: dict[str, Any], reached: str
) -> None:
    assert await checked(provider, config) == []
    await configure(provider, config)
    await provider.read("memory/eu/orders")
    assert addresses.seen == [reached]


async def test_a_variable_gives_what_is_left_out(
    provider: Provider, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATOR_MEMORY", '{"address": "unix:///env"}')
    for config in ({}, {"memory": {"address": ADDRESS}}):
        assert await checked(provider, config) == []
        await configure(provider, config)
        await provider.read(ID)
    assert addresses.seen == ["unix:///env", ADDRESS]

    monkeypatch.setenv("REPLICATOR_MEMORY", "unix:///env")
    fix = """export REPLICATOR_MEMORY='{"address": "unix:///run/replicator/agent.sock"}'"""
    wrong = [f"memory: must be an object [RPL-CONFIG-INVALID]\n  → {fix}"]
    assert await checked(provider, {"preflight": "off"}, OWN) == wrong
    assert await checked(provider, {"memory": {"address": ADDRESS}}) == []
    assert await checked(provider, {}) == [], "nothing is configured, as before; it is told where it is used"
    await configure(provider, {})
    error = await failing(provider.read(ID))
    assert error.details() == f"replicator:memory: must be an object [RPL-CONFIG-INVALID]\n  → {fix}"


async def test_what_is_not_known_yet_is_not_refused(provider: Provider) -> None:
    for config in ({"memory": UNKNOWN}, {"memory": {"address": UNKNOWN}}, {"preflight": UNKNOWN}):
        assert await checked(provider, config, OWN) == []
    assert len(await checked(provider, {"memory": {"address": UNKNOWN, "adress": "x"}}, OWN)) == 1


async def test_a_second_configuration_gives_the_first_connections_back(
    provider: Provider, addresses: Addresses
) -> None:
    await provider.read(ID)
    await configure(provider, {"memory": {"address": "unix:///other"}})
    assert addresses.closed == [ADDRESS]


# --- what is refused, and the way out --------------------------------------------------------------------------------

EXAMPLE = '{"address": "unix:///run/replicator/agent.sock"}'
TYPED = f"pulumi config set replicator:memory '{EXAMPLE}'"
WRITTEN = f"in the program, change memory of the provider resource 'agents', as in {EXAMPLE}"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"memory": {"adress": ADDRESS}}, "memory.adress: is not known here; did you mean address?"),
        ({"memory": '{"adress": "unix:///mem"}'}, "memory.adress: is not known here; did you mean address?"),
        ({"memory": '{"address": '}, "memory: is not JSON: Expecting value at character 13"),
        ({"memory": {"address": "secretive"}}, "memory.address: is not an address of an agent; write unix://"),
        ({"memory": ADDRESS}, "memory: must be an object"),
        ({"memory": 30}, "memory: must be an object"),
    ],
)
@pytest.mark.parametrize(("urn", "fix"), [(DEFAULT, TYPED), (VERSIONED, TYPED), ("", TYPED), (OWN, WRITTEN)])
async def test_a_configuration_is_refused(
    provider: Provider, config: dict[str, Any], says: str, urn: str, fix: str
) -> None:
    (reason,) = await checked(provider, config, urn)
    assert reason.startswith(says)
    assert reason.endswith(f"[RPL-CONFIG-INVALID]\n  → {fix}")
    assert "secretive" not in reason, "here Pulumi does not say what is secret"

    error = await failing(configure(provider, config, urn))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == f"replicator:{reason}"


@pytest.mark.parametrize(
    ("config", "changes", "says"),
    [
        ({}, {}, "backend: no address for backend 'memory'"),
        (
            {"memory": {"regions": {"us": ADDRESS}}},
            {"source": {**SQLITE, "region": "eu"}},
            "source.region: no address for backend 'memory' in region 'eu'; memory.regions has us",
        ),
    ],
)
@pytest.mark.parametrize(
    ("urn", "fix"),
    [
        (DEFAULT, "pulumi config set replicator:memory "),
        (OWN, "in the program, change memory of the provider "),
    ],
)
async def test_a_stream_in_a_place_that_nobody_manages(
    provider: Provider, config: dict[str, Any], changes: dict[str, Any], says: str, urn: str, fix: str
) -> None:
    await configure(provider, {**config, "preflight": "off"}, urn)
    _, (reason,) = await provider.check(memory_inputs(**changes))
    assert reason.startswith(f"{says} [RPL-CONFIG-INVALID]\n  → {fix}")


# --- secrets ---------------------------------------------------------------------------------------------------------

CANARY = "ssh://hidden@canary.example:2222/srv/hidden.sock"


@pytest.mark.parametrize(
    "block",
    [
        Secret({"address": CANARY, "regions": {"us": CANARY}}),
        {"address": Secret(CANARY), "regions": Secret({"us": CANARY})},
        Secret(json.dumps({"address": CANARY, "regions": {"us": CANARY}})),
    ],
)
async def test_a_secret_address_is_in_no_message(block: Any) -> None:
    away = Watched(Clock())
    async with serving(away) as provider:
        await configure(provider, {"memory": block})
        hint = "start it on canary.example: replicator agent start --socket /srv/hidden.sock"
        away.broken = AgentUnreachable(f"nothing listens at {CANARY}, says hidden@canary.example", fix=hint)
        error = await failing(provider.read(ID))
        found, _ = await provider.invoke("getStreamStatuses", {"streams": ["memory/us/orders"]})
        await provider.servicer.engine.warning(str(away.broken))
        for text in (error.details() or "", found["failures"][0]["message"], *provider.engine.warnings):
            assert "[redacted]" in text
            assert "canary" not in text
            assert "hidden" not in text

        await configure(provider, {"memory": {"address": CANARY}})
        error = await failing(provider.read(ID))
        assert CANARY in (error.details() or ""), "where it is no secret, it helps"


def test_each_address_of_a_list_is_hidden() -> None:
    redact = redactor_of({"kafkaMirror": {"address": Secret("http://one.example:8083, http://two.example:8083")}})
    assert redact("http://two.example:8083/health and one.example did not answer") == (
        "[redacted]/health and [redacted] did not answer"
    )


async def test_a_hint_holds_no_secret_address(provider: Provider) -> None:
    await configure(provider, {"memory": Secret(json.dumps({"regions": {"us": CANARY}}))})
    _, (reason,) = await provider.check(memory_inputs(source={**SQLITE, "region": "eu"}))
    assert "\n  → pulumi config set --secret replicator:memory " in reason
    assert "canary" not in reason


# --- what a change means ---------------------------------------------------------------------------------------------

ADD, UPDATE, DELETE = pb.PropertyDiff.ADD, pb.PropertyDiff.UPDATE, pb.PropertyDiff.DELETE
EU = {"address": ADDRESS, "regions": {"eu": "unix:///eu"}}


def moved(*paths: str) -> list[str]:
    text = "streams stay where they are, and are looked for at the new address from now on; after this update "
    return [f"{path}: {text}a pulumi refresh shows which of them are not there" for path in paths]


@pytest.mark.parametrize(
    ("old", "new", "changes", "warnings"),
    [
        ({"memory": {"address": ADDRESS}}, {"memory": {"address": ADDRESS}}, {}, []),
        (
            {"memory": {"address": ADDRESS}},
            {"memory": {"address": "unix:///b"}},
            {"memory.address": UPDATE},
            moved("memory.address"),
        ),
        ({"memory": {"address": ADDRESS}}, {"memory": EU}, {"memory.regions": ADD}, moved("memory.regions.eu")),
        ({"memory": EU}, {"memory": {"address": ADDRESS}}, {"memory.regions": DELETE}, moved("memory.regions.eu")),
        (
            {"memory": {"regions": {"us": ADDRESS}}},
            {"memory": {"regions": {"us": ADDRESS, "eu": "unix:///eu"}}},
            {"memory.regions.eu": ADD},
            [],
        ),
        ({}, {"memory": {"address": ADDRESS}}, {"memory": ADD}, []),
        ({"memory": {"address": ADDRESS}}, {}, {"memory": DELETE}, moved("memory.address")),
        ({"preflight": "off"}, {"preflight": "warn"}, {"preflight": UPDATE}, []),
        ({}, {"preflight": "warn"}, {"preflight": ADD}, []),
        ({"version": "1.0.0"}, {"version": "1.0.1"}, {"version": UPDATE}, []),
        ({"__internal": "{}"}, {}, {}, []),
        ({"memory": '{"address": "unix:///mem"}'}, {"memory": '{"address":"unix:///mem"}'}, {}, []),
        ({"memory": '{"address": "unix:///mem"}'}, {"memory": {"address": ADDRESS}}, {}, []),
        (
            {"memory": '{"address": "unix:///mem"}'},
            {"memory": '{"address": "unix:///b"}', "preflight": "off"},
            {"memory": UPDATE, "preflight": ADD},
            moved("memory.address"),
        ),
        ({"memroy": {}}, {"litestream": {"address": "unix:///b"}}, {"memroy": DELETE, "litestream": ADD}, []),
        ({"memory": Secret("{}")}, {"memory": "not JSON {"}, {"memory": UPDATE}, []),
        ({"memory": {"address": ADDRESS}}, {"memory": {"address": UNKNOWN}}, {"memory.address": UPDATE}, []),
    ],
)
async def test_each_change_is_an_update(
    provider: Provider, old: dict[str, Any], new: dict[str, Any], changes: dict[str, int], warnings: list[str]
) -> None:
    request = pb.DiffRequest(urn=OWN, old_inputs=encode(old), olds=encode(old), news=encode(new))
    reply = await provider.stub.DiffConfig(request)
    assert {path: item.kind for path, item in reply.detailedDiff.items()} == changes
    assert list(reply.diffs) == sorted({path.partition(".")[0] for path in changes})
    assert (list(reply.replaces), reply.deleteBeforeReplace) == ([], False), "it would replace every stream"
    assert reply.changes == (pb.DiffResponse.DIFF_SOME if changes else pb.DiffResponse.DIFF_NONE)
    assert provider.engine.warnings == warnings
    assert {urn for _, _, urn in provider.engine.logs} <= {OWN}
