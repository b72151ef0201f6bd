"""Checks which plugin Pulumi would start for a project, and whether it matches this package.

Pulumi searches the folder in the project's `plugins.providers`, then PATH, then its installed plugins.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replicator import __version__
from replicator.cli.doctor.look import WHEEL, Look
from replicator.cli.stack import project_file
from replicator.home import known_home

BINARY = "pulumi-resource-replicator"
_ANSWER_WITHIN = 30.0


class PluginFault(Exception):
    """A plugin that does not start, or does not answer."""


@dataclass(frozen=True, slots=True)
class _Plugin:
    """One executable that Pulumi might start."""

    path: Path
    where: str


def look_at_plugin(project: Path, environ: Mapping[str, str]) -> list[Look]:
    """Check the plugin that Pulumi starts in the folder `project`, and others that it might start elsewhere."""
    file = project_file(project)
    named = _named_folder(file) if file else None
    if named is not None and not _is_program(named / BINARY):
        return [Look("plugin", f"{file} names the folder {named}, which holds no {BINARY}", _name_it(file))]
    found = _unique([*_in_project(file, named), *_on_path(environ), *_installed(environ)])
    if not found:
        return [Look("plugin", f"Pulumi finds no {BINARY}: neither {_sought(file)}", _name_it(file))]
    versions: dict[_Plugin, str] = {}
    looks = []
    for plugin in found:
        try:
            versions[plugin] = ask_version(plugin.path)
        except PluginFault as fault:
            looks.append(Look("plugin", f"{plugin.path} ({plugin.where}) {fault}", _renew(plugin)))
    if (first := found[0]) not in versions:
        return looks
    about = f"{versions[first]} at {first.path} ({first.where})"
    if versions[first] != __version__:
        looks.append(Look("plugin", f"{about}, but this command is version {__version__}", _renew(first)))
    else:
        looks.insert(0, Look("plugin", about))
    for other in found[1:]:
        if versions.get(other, versions[first]) != versions[first]:
            text = f"two versions: Pulumi takes {about} here, but {other.path} ({other.where}) is {versions[other]}"
            looks.append(Look("plugin", text, _renew(other)))
    return looks


def ask_version(program: Path) -> str:
    """Return the version that a plugin reports; raise `PluginFault` if it reports none.

    A plugin prints its port and serves; it has no option to print a version.
    """
    import grpc

    from replicator.plugin._proto import provider_pb2_grpc

    environ = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
    try:
        process = subprocess.Popen(
            [str(program)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise PluginFault(f"does not start: {error.strerror}") from error
    try:
        port = _first_line(process)
        if not port.isdigit():
            process.kill()
            last = (process.communicate()[1].decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
            raise PluginFault(f"does not start: {last}")
        options = [("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            from google.protobuf.empty_pb2 import Empty

            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            return str(stub.GetPluginInfo(Empty(), timeout=_ANSWER_WITHIN).version).removeprefix("v")
    except grpc.RpcError as error:
        raise PluginFault(f"does not answer: {error}") from error
    finally:
        process.kill()
        process.communicate()


def _first_line(process: subprocess.Popen[bytes]) -> str:
    import select

    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _ANSWER_WITHIN)
    return process.stdout.readline().decode(errors="replace").strip() if ready else ""


# --- where Pulumi searches -------------------------------------------------------------------------------------------


def _named_folder(file: Path) -> Path | None:
    """Return the folder that the project names for this provider; None if the project file is invalid."""
    import yaml

    try:
        project: Any = yaml.safe_load(file.read_text("utf-8"))
        entries = (project.get("plugins") or {}).get("providers") or []
        paths = [entry["path"] for entry in entries if entry.get("name") == "replicator" and entry.get("path")]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError):
        return None
    return Path(os.path.normpath(file.parent / str(paths[0]))) if paths else None


def _in_project(file: Path | None, named: Path | None) -> Iterator[_Plugin]:
    if file is not None and named is not None:
        yield _Plugin(named / BINARY, f"plugins.providers of {file.name}")


def _on_path(environ: Mapping[str, str]) -> Iterator[_Plugin]:
    if environ.get("PULUMI_IGNORE_AMBIENT_PLUGINS", "").lower() in ("1", "true"):
        return
    for folder in filter(None, environ.get("PATH", "").split(os.pathsep)):
        if _is_program(path := Path(folder) / BINARY):
            yield _Plugin(path, "PATH")


def _installed(environ: Mapping[str, str]) -> Iterator[_Plugin]:
    if (home := _plugin_home(environ)) is None:
        return
    folders = sorted(home.glob("resource-replicator-v*"), key=_version_of, reverse=True)
    for folder in folders:
        if _is_program(path := folder / BINARY):
            yield _Plugin(path, "pulumi plugin install")


def _plugin_home(environ: Mapping[str, str]) -> Path | None:
    if home := environ.get("PULUMI_HOME"):
        return Path(home) / "plugins"
    own = known_home()
    return own and own / ".pulumi" / "plugins"


def _version_of(folder: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", folder.name)))


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _unique(plugins: list[_Plugin]) -> list[_Plugin]:
    """Return the executables without duplicates: PATH may name a folder twice, or by a link."""
    seen: dict[Path, _Plugin] = {}
    for plugin in plugins:
        seen.setdefault(plugin.path.resolve(), plugin)
    return list(seen.values())


# --- what to type ----------------------------------------------------------------------------------------------------


def _sought(file: Path | None) -> str:
    project = f"in plugins.providers of {file}" if file else "in a project file here or above"
    return f"{project}, nor on PATH, nor among the installed plugins"


def _name_it(file: Path | None) -> str:
    """Return the setting that makes Pulumi use this package's own plugin."""
    own = Path(sys.executable).parent
    setting = f"plugins: {{providers: [{{name: replicator, path: {own}}}]}}"
    lines = [f"write into {file or 'Pulumi.yaml'}:  {setting}"]
    if not _is_program(own / BINARY):
        lines.insert(0, f"{shlex.quote(sys.executable)} -m pip install {WHEEL}")
    return "\n".join(lines)


def _renew(plugin: _Plugin) -> str:
    """Return how to replace another version, or a broken one, by this package's."""
    if plugin.where == "pulumi plugin install":
        return f"pulumi plugin rm resource replicator {_version_text(plugin.path.parent)}"
    python = plugin.path.with_name("python")
    if python.exists():
        return f"{shlex.quote(str(python))} -m pip install --force-reinstall {WHEEL}"
    return f"rm {shlex.quote(str(plugin.path))}   # and: {sys.executable} -m pip install {WHEEL}"


def _version_text(folder: Path) -> str:
    return folder.name.removeprefix("resource-replicator-v")
