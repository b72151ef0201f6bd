"""Skips: on a laptop an engine that is missing skips its tests by name; in CI nothing may be skipped."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import Any, TypeVar

import pytest
from hypothesis import settings

SKIPPABLE_IN_CI: frozenset[str] = frozenset()
"""Node ids of tests that CI may skip, each with its reason beside it."""

IN_CI = os.environ.get("REPLICATOR_CI") == "1"

# A loaded machine is slow, which says nothing about an example.
settings.register_profile("replicator", deadline=None, derandomize=IN_CI)
settings.load_profile("replicator")

LONGEST_FIRST = (
    "tests/backends/sqlite/test_proof.py",
    "tests/backends/sqlite/test_keeper.py",
    "tests/e2e/test_interrupts.py",
    "tests/e2e/test_litestream.py",
    "tests/e2e/test_examples.py",
)
"""Modules that take minutes. Begun last, one of them would be waited for by every other process."""

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


def _missing_engine(error: BaseException) -> bool:
    engines = sys.modules.get("tests.engines")
    return engines is not None and isinstance(error, engines.EngineMissing)


def _skip_missing_engine() -> Generator[None, Any, Any]:
    try:
        return (yield)
    except Exception as error:
        if IN_CI or not _missing_engine(error):
            raise
        pytest.skip(str(error))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first; else as collected."""
    rank = {module: place for place, module in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    return (yield from _skip_missing_engine())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    return (yield from _skip_missing_engine())


def _refuse_skip(report: R) -> R:
    """In CI a skip is a failure, with its reason."""
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and report.nodeid not in SKIPPABLE_IN_CI:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: not to be skipped in CI: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse_skip((yield))
