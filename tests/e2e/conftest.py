"""The real CLI on a `file://` backend starts the plugin, which talks to a memory backend in another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import wheel_env
from tests.e2e.litestream import BUCKET, World, world
from tests.e2e.memory import Memory, serving
from tests.engines import s3_server
from tests.pulumi import ROOT, Project
from tools.dist import build_wheel

Make = Callable[..., Project]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cli)


@pytest.fixture(scope="session")
def memory() -> Iterator[Memory]:
    """One memory backend for all tests: every project's streams have names and destinations of their own."""
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes projects with an empty program and a stack; each has a fresh folder, a module's share one state."""
    folder = tmp_path_factory.mktemp("projects")

    def make(name: str, **settings: Any) -> Project:
        project = Project(
            folder / f"{name}-{settings.get('stack', 'dev')}", name=name, state=folder / "state", **settings
        )
        project.write_yaml({})
        project.init()
        return project

    return make


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a CLI that runs programs with our package alone: no SDK, and no plugin where it looks."""
    folder = tmp_path_factory.mktemp("bare")
    return {"PULUMI_PYTHON_CMD": str(wheel_env.make(folder, build_wheel(ROOT, folder)))}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One S3 server and one agent for all."""
    with s3_server(tmp_path_factory.mktemp("s3")) as s3:
        s3.make_bucket(BUCKET)
        with world(s3) as made:
            yield made
