"""Prints the folder that holds the Pulumi CLI and its language hosts, and builds what is missing.

    python tools/pulumi_cli.py path [--user-ok]

The folder is the only line on standard output; progress goes to standard error. A first build takes 6 to 10 minutes
on two cores and is kept in `$REPLICATOR_CACHE` (else the user's cache folder). With `--user-ok` a Pulumi that is
installed already and new enough is taken instead.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone
from tools.gobuild import BuildError, Cache, GoModule, cache_root, complete, parse_version, say

TOOLS = Path(__file__).resolve().parent
# One after another, the one that everything waits for first: together they would need 3 GB of memory.
MODULES = (
    GoModule(TOOLS / "cli", "4 to 7 minutes the first time"),
    GoModule(TOOLS / "yaml", "1 to 2 minutes the first time"),
    GoModule(
        TOOLS / "hosts",
        "about a minute the first time",
        scripts=("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python"),
    ),
)
# The first release whose function calls tell a provider that this is a preview.
OLDEST_USER_CLI = (3, 206)
USER_HOSTS = ("pulumi-language-yaml", "pulumi-language-python")


def built(cache: Cache) -> Path | None:
    """The folder with the programs, if it was built before."""
    folder = _folder(cache)
    return folder if complete(folder, [name for module in MODULES for name in module.files]) else None


def ensure(cache: Cache) -> Path:
    """The folder with the programs, built if it is missing. Raises BuildError."""
    if (folder := built(cache)) is not None:
        return folder
    with cache.locked():
        if (folder := built(cache)) is not None:
            return folder
        say(f"the Pulumi CLI is built once and kept in {cache.root}")
        go = cache.go(max(module.go_line for module in MODULES))
        parts = [cache.build(module, go) for module in MODULES]
        wanted, seen = MODULES[0].sdk_version, cli_version(parts[0] / "pulumi")
        if seen != wanted:
            raise BuildError(f"The CLI that was built says that its version is {seen!r}, not {wanted!r}.")
        folder = _folder(cache)
        cache.link(folder, parts)
        return folder


def users_own(path: str) -> Path | None:
    """The folder of the `pulumi` on `path` if it is new enough and finds its language hosts, else None."""
    found = shutil.which("pulumi", path=path)
    if found is None:
        return None
    version = parse_version(cli_version(Path(found)))
    if version is None or version < OLDEST_USER_CLI:
        say(f"the Pulumi CLI on PATH ({found}) is older than 3.206 or tells no version; it is not used")
        return None
    beside = f"{Path(found).parent}{os.pathsep}{Path(found).resolve().parent}{os.pathsep}{path}"
    missing = [host for host in USER_HOSTS if shutil.which(host, path=beside) is None]
    if missing:
        say(f"the Pulumi CLI on PATH ({found}) has no {' and no '.join(missing)}; it is not used")
        return None
    return Path(found).parent


def cli_version(pulumi: Path) -> str:
    """What `pulumi version` prints; empty if it does not run."""
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"PULUMI_HOME": home, "PULUMI_SKIP_UPDATE_CHECK": "true"}
        result = subprocess.run([pulumi, "version"], capture_output=True, text=True, env=env, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def _folder(cache: Cache) -> Path:
    stamps = " ".join(module.stamp for module in MODULES)
    return cache.root / "pulumi" / hashlib.sha256(stamps.encode()).hexdigest()[:16]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="The Pulumi CLI and language hosts for tests, examples and the demo.")
    commands = parser.add_subparsers(dest="command", required=True)
    path = commands.add_parser("path", help="print the folder that holds them; build what is missing")
    path.add_argument("--user-ok", action="store_true", help="a Pulumi >= 3.206 on PATH will do")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        own = users_own(os.environ.get("PATH", os.defpath)) if options.user_ok else None
        print(own or ensure(Cache(cache_root(os.environ))))
    except BuildError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
