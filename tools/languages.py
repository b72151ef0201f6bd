"""What programs in each language need to run with the SDKs of this checkout.

    python tools/languages.py

makes all of it; a test makes what it needs. It is kept in the cache by the content that it is made from.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone
from tools.gobuild import GO_SETTINGS, BuildError, Cache, GoModule, cache_root, content_key, run, say

ROOT = Path(__file__).resolve().parents[1]
SDK = ROOT / "sdk"
GO_MODULES = tuple(GoModule(path.parent, "a minute or two") for path in sorted(ROOT.glob("examples/*/go.mod")))

NODE = ROOT / "tools" / "node"
NODE_PACKAGE = "@pulumi-replicator/replicator"

# As the CLI is compiled: they have most of their packages in common. The host links a program in each run, which is
# faster without what a debugger wants.
GO_ENVIRONMENT = {**GO_SETTINGS, "GOFLAGS": f"{GO_SETTINGS['GOFLAGS']} -trimpath -ldflags=-w"}


def python_sdk(cache: Cache) -> Path:
    """A folder for PYTHONPATH in which the Python SDK is installed, by pip. Raises BuildError."""

    def make(folder: Path) -> None:
        source = folder / "source"  # a build leaves files beside what it builds
        shutil.copytree(SDK / "python", source)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--no-index", "--no-build-isolation", "--target", str(folder), str(source)]
        run("installing the Python SDK", pip, folder)
        shutil.rmtree(source)

    return cache.keep("python-sdk", content_key([SDK / "python"], sys.version), make)


def go(cache: Cache) -> Path:
    """A Go that may build the examples. Raises BuildError."""
    return cache.go(max(module.go_line for module in GO_MODULES))


def compile_go(cache: Cache) -> None:
    """Fill Go's own cache with the Go SDK and Pulumi's. Raises BuildError."""
    for module in GO_MODULES:
        command = [str(go(cache)), "build", "-trimpath", "-o", os.devnull, "."]
        run(f"compiling {module.folder.name} ({module.expected} the first time)", command, module.folder)


def node_modules(cache: Cache) -> Path:
    """A node_modules folder with the compiled Node SDK and all that it needs. Raises BuildError.

    Pulumi's own packages are one step, the SDK another: it changes more often, and npm takes half a minute.
    """
    needed = cache.keep("npm", content_key([NODE], platform.system(), platform.machine()), _install_npm)

    def make(folder: Path) -> None:
        modules = folder / "node_modules"
        sdk = modules / NODE_PACKAGE
        for entry in (needed / "node_modules").iterdir():
            modules.mkdir(exist_ok=True)
            (modules / entry.name).symlink_to(entry)  # node knows a package by where it really is: one copy
        source = folder / "source"
        shutil.copytree(SDK / "nodejs", source)
        compiler = str(modules / "typescript" / "bin" / "tsc")
        run("compiling the Node SDK", ["node", compiler, "--project", str(source), "--outDir", str(sdk)], folder)
        shutil.copyfile(source / "package.json", sdk / "package.json")
        shutil.rmtree(source)

    return cache.keep("node-sdk", content_key([SDK / "nodejs"], needed.name), make) / "node_modules"


def _install_npm(folder: Path) -> None:
    shutil.copytree(NODE, folder, dirs_exist_ok=True)
    run("installing Pulumi's Node packages (half a minute)", ["npm", "ci"], folder)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    cache = Cache(cache_root(os.environ))
    try:
        python_sdk(cache)
        compile_go(cache)
        if shutil.which("node") and shutil.which("npm"):
            node_modules(cache)
        else:
            say("there is no node or no npm on PATH; TypeScript programs will not be tested")
    except BuildError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
