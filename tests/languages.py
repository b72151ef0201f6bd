"""Gets a project ready to run in its language, with the SDK of this checkout."""

from __future__ import annotations

import os

import yaml

from tests.pulumi import Project
from tools.gobuild import Cache, cache_root
from tools.languages import python_sdk


def prepare(project: Project) -> None:
    """Do for a project's folder and environment what a person does once, such as `pip install`."""
    runtime = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())["runtime"]
    _PREPARE[runtime](project, Cache(cache_root(os.environ)))


def _python(project: Project, cache: Cache) -> None:
    project.environment["PYTHONPATH"] = str(python_sdk(cache))


def _nothing(project: Project, cache: Cache) -> None:
    pass


_PREPARE = {"yaml": _nothing, "python": _python}
