"""Skips: on a laptop an engine that is missing skips its tests by name; in CI nothing may be skipped.

And what tests share: one pair of Kafka clusters for all processes of a run, and one PostgreSQL server for each process,
started by the first test that asks for it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import settings
from replicator.lifecycle.config import all_settings

if TYPE_CHECKING:
    from tools.kafka.pair import Pair
    from tools.postgres import Postgres

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for a job in the background of a script; programs inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SKIPPABLE_IN_CI: frozenset[str] = frozenset()
"""Node ids of tests that CI may skip, each with its reason beside it."""

IN_CI = os.environ.get("REPLICATOR_CI") == "1"

# gRPC's own handlers of fork crash the child of a fork beside its threads, before it becomes another program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# A loaded machine is slow, which says nothing about an example.
settings.register_profile("replicator", deadline=None, derandomize=IN_CI)
settings.load_profile("replicator")

LONGEST_FIRST = (
    "tests/contract/test_behaviour.py",
    "tests/e2e/test_examples.py",
    "tests/backends/sqlite/test_slow.py",
    "tests/backends/kafka_connect/mirror/test_end_down.py",
    "tests/e2e/test_debezium.py",
    "tests/soak/test_soak.py",
    "tests/e2e/test_kafka_mirror.py",
    "tests/backends/kafka_connect/debezium/test_processes.py",
    "tests/backends/sqlite/test_drain.py",
    "tests/e2e/test_debezium_sink.py",
    "tests/e2e/test_mirror_topics.py",
    "tests/faults/mirror/test_processes.py",
    "tests/backends/kafka_connect/debezium/test_position.py",
    "tests/e2e/test_dynamic.py",
    "tests/faults/test_kill_matrix.py",
    "tests/backends/kafka_connect/debezium/test_bookmarks.py",
    "tests/backends/sqlite/test_lag.py",
    "tests/remote/test_ssh.py",
    "tests/backends/kafka_connect/debezium/test_sink_hands.py",
    "tests/tools/test_kafka.py",
    "tests/e2e/test_life_cycle.py",
    "tests/backends/sqlite/test_lost.py",
    "tests/faults/mirror/test_cut_off.py",
    "tests/backends/sqlite/test_proof.py",
    "tests/e2e/test_interrupts.py",
    "tests/backends/sqlite/test_stream_manager.py",
    "tests/backends/sqlite/test_claims.py",
)
"""Modules that take minutes. Begun last, one of them would be waited for by every other process.

Those that compute, with the Pulumi CLI or Java, alternate with those that wait.
"""

for setting in all_settings().values():
    os.environ.pop(setting.variable, None)  # a developer's own agent is no concern of a test

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


@pytest.fixture(scope="session", autouse=True)
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that all processes of a run share. Each holds a shared lock on its file `users` until it ends."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield shared


@pytest.fixture(scope="session")
def kafka(run_folder: Path) -> Pair:
    """Two Kafka clusters with a Connect worker each, the same for all tests of a run.

    Names of topics, groups, users and connectors are therefore a test's own. Who stops or kills a worker runs one of
    their own beside it (`tools.kafka.cluster.Worker`), in a group of its own.
    """
    from tools.kafka.pair_daemon import keep

    return keep(run_folder / "kafka", run_folder / "users")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL server, the same for all tests of a process.

    Names of databases, roles and slots are therefore a test's own, and a test drops its slots. Who stops or kills a
    server runs one of their own beside it (`tools.postgres.Postgres`).
    """
    from tools.postgres import Postgres

    settings = {"max_wal_senders": "60", "max_replication_slots": "60", "max_connections": "200"}
    with Postgres(tmp_path_factory.mktemp("postgres"), settings=settings) as server:
        yield server


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose name leaves room for the sockets below it, as that of a worker of pytest-xdist does not."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as name:
        yield Path(name)
