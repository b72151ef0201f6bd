"""Pulumi's generated protocol modules, without the rest of Pulumi.

`import pulumi.runtime.proto` runs `pulumi/__init__`, which loads the whole SDK and more than doubles the time that the
plugin needs to answer. So stand-ins replace the three parent packages while the generated modules load, and are removed
afterwards. A later `import pulumi` loads the real package, which finds these modules in place and shares their classes.

The plain import is used if `pulumi` is already loaded, if `REPLICATOR_PLAIN_IMPORT=1` is set, and if the stand-ins do
not work with the installed SDK. Only this module names `pulumi.runtime.proto`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_PACKAGES = ("pulumi", "pulumi.runtime", "pulumi.runtime.proto")
_MODULES = ("provider_pb2_grpc", "engine_pb2_grpc", "status_pb2")


def _stand_in() -> list[ModuleType]:
    """Load the generated modules under stand-in packages, and return those; none if that is not wanted or fails."""
    if "pulumi" in sys.modules or os.environ.get("REPLICATOR_PLAIN_IMPORT") == "1":
        return []
    spec = find_spec("pulumi")
    if spec is None or not spec.submodule_search_locations:
        return []
    packages = []
    for name in _PACKAGES:
        package = ModuleType(name)
        below = name.split(".")[1:]
        package.__path__ = ["/".join([root, *below]) for root in spec.submodule_search_locations]
        sys.modules[name] = package
        packages.append(package)
    try:
        for module in _MODULES:
            import_module(f"{_PACKAGES[-1]}.{module}")
    except ImportError:
        _take_away(packages)
        return []
    return packages


def _take_away(packages: list[ModuleType]) -> None:
    for package in packages:
        if sys.modules.get(package.__name__) is package:
            del sys.modules[package.__name__]


_packages = _stand_in()
try:
    from pulumi.runtime.proto import (
        engine_pb2,
        engine_pb2_grpc,
        plugin_pb2,
        provider_pb2,
        provider_pb2_grpc,
        status_pb2,
    )
finally:
    _take_away(_packages)

pb = provider_pb2

__all__ = ["engine_pb2", "engine_pb2_grpc", "pb", "plugin_pb2", "provider_pb2_grpc", "status_pb2"]
