"""Gets a project ready to run in its language, with the SDK of this checkout."""

from __future__ import annotations

import os

import yaml

from tests.engines import find_engine
from tests.pulumi import ROOT, Project
from tools.gobuild import Cache, cache_root
from tools.languages import GO_ENVIRONMENT, go, node_modules, python_sdk


def prepare(project: Project) -> None:
    """Do for a project's folder and environment what a person does once, such as `pip install`."""
    runtime = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())["runtime"]
    _PREPARE[runtime](project, Cache(cache_root(os.environ)))


def _python(project: Project, cache: Cache) -> None:
    project.environment["PYTHONPATH"] = str(python_sdk(cache))


def _go(project: Project, cache: Cache) -> None:
    module = project.folder / "go.mod"
    module.write_text(module.read_text().replace("../../sdk/go", str(ROOT / "sdk" / "go")))
    settings = {
        key: value for key, value in os.environ.items() if key.startswith("GO") and key not in ("GOOS", "GOARCH")
    }
    path = f"{project.env['PATH']}{os.pathsep}{go(cache).parent}"
    project.environment.update({**settings, **GO_ENVIRONMENT, "PATH": path})


def _nodejs(project: Project, cache: Cache) -> None:
    node, _ = find_engine("node"), find_engine("npm")
    (project.folder / "node_modules").symlink_to(node_modules(cache))
    project.environment["PATH"] = f"{project.env['PATH']}{os.pathsep}{node.parent}"


def _nothing(project: Project, cache: Cache) -> None:
    pass


_PREPARE = {"yaml": _nothing, "python": _python, "go": _go, "nodejs": _nodejs}
