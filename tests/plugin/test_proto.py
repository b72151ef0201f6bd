"""The lean import of Pulumi's protocol modules. Each case runs in a process of its own: an import happens once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = ["pulumi.automation", "pulumi.dynamic", "opentelemetry", "dill", "yaml", "pydantic", "httpx", "argparse"]

CLASSES = """
import json, sys
from replicator.plugin import _proto
from replicator.plugin._proto import pb, status_pb2, engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2_grpc
files = [m.DESCRIPTOR for m in (pb, status_pb2, engine_pb2, plugin_pb2)]
print(json.dumps({
    "messages": {d.full_name: [[f.name, f.number, f.type] for f in d.fields]
                 for file in files for d in file.message_types_by_name.values()},
    "services": sorted(vars(provider_pb2_grpc.ResourceProviderServicer)) + sorted(vars(engine_pb2_grpc.EngineServicer)),
    "loaded": sorted(sys.modules),
}))
"""


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def report(code: str = CLASSES, **environment: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(code, **environment))
    return found


def test_the_lean_import_loads_the_protocol_only() -> None:
    loaded = set(report()["loaded"])
    assert loaded.isdisjoint(HEAVY)
    assert {name for name in loaded if name.split(".")[0] == "pulumi"} == {
        f"pulumi.runtime.proto.{name}"
        for name in (
            "alias_pb2",
            "plugin_pb2",
            "provider_pb2",
            "provider_pb2_grpc",
            "engine_pb2",
            "engine_pb2_grpc",
            "status_pb2",
        )
    }


def test_the_wire_half_loads_nothing_more() -> None:
    code = "import sys, replicator.plugin.rpc, replicator.plugin.pulumi_engine; print('\\n'.join(sys.modules))"
    loaded = set(run(code).split())
    assert loaded.isdisjoint(HEAVY)
    assert {name for name in loaded if name.split(".")[0] == "replicator"} == {
        "replicator",
        "replicator.plugin",
        "replicator.diagnostics",
        "replicator.property_values",
        *(f"replicator.plugin.{name}" for name in ("_proto", "codec", "pulumi_engine", "rpc")),
    }


def test_the_plugin_package_alone_costs_nothing() -> None:
    code = "import sys; before = set(sys.modules); import replicator.plugin; print(*(set(sys.modules) - before))"
    loaded = {name.split(".")[0] for name in run(code).split()}
    assert "replicator" in loaded
    assert loaded.isdisjoint({"pulumi", "grpc", "google", "asyncio", "pydantic", "httpx"})


def test_both_ways_give_the_same_classes() -> None:
    lean, plain = report(), report(REPLICATOR_PLAIN_IMPORT="1")
    assert "pulumi" not in lean["loaded"]
    assert "pulumi.automation" in plain["loaded"]
    assert lean["messages"] == plain["messages"]
    assert lean["services"] == plain["services"]
    assert "pulumirpc.ErrorResourceInitFailed" in lean["messages"]
    assert "google.rpc.Status" in lean["messages"]


def test_the_real_package_can_follow_and_shares_the_classes() -> None:
    run(
        "from replicator.plugin import _proto\n"
        "import pulumi, pulumi.automation, pulumi.dynamic, pulumi.provider.experimental\n"
        "from pulumi.runtime.proto import provider_pb2, engine_pb2\n"
        "assert pulumi.Output and pulumi.__file__\n"
        "assert provider_pb2 is _proto.pb and engine_pb2 is _proto.engine_pb2\n"
    )


def test_a_loaded_package_is_used_as_it_is() -> None:
    run(
        "import pulumi, sys\n"
        "from pulumi.runtime.proto import provider_pb2\n"
        "from replicator.plugin import _proto\n"
        "assert sys.modules['pulumi'] is pulumi and provider_pb2 is _proto.pb\n"
    )


@pytest.mark.parametrize("broken", ["provider_pb2", "engine_pb2_grpc", "status_pb2"])
def test_the_plain_import_steps_in_when_the_short_way_fails(broken: str) -> None:
    """An SDK whose protocol modules need the real parent package: they fail as long as it is only stood in for."""
    found = report(
        "import sys\n"
        "class NeedsTheRealParent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'pulumi.runtime.proto.{broken}' and not hasattr(sys.modules['pulumi'], '__file__'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, NeedsTheRealParent())\n" + CLASSES
    )
    assert "pulumi.automation" in found["loaded"]
    assert found["messages"] == report()["messages"]
