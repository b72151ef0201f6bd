"""Makes dist/: the wheels of the provider and of the Python SDK, and the plugin as a tarball that Pulumi installs.

    python tools/dist.py [--platform linux-arm64] [--python 3.12] [--out dist]

A tarball is for one platform and one minor version of Python; without options, for those that run this. It holds a
launcher, and in lib/ the wheels that the plugin needs, unpacked. The same sources give the same bytes. The time of
every file is `SOURCE_DATE_EPOCH`, else a fixed one.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone
from tools.gobuild import BuildError, Cache, cache_root, content_key, run, say

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
LAUNCHER = Path(__file__).with_name("launcher.sh")
BINARY = "pulumi-resource-replicator"

IMPORTED = frozenset(
    {
        "confluent-kafka",
        "durationpy",
        "grpcio",
        "h11",
        "httpx",
        "protobuf",
        "psycopg",
        "psycopg-binary",
        "pydantic",
        "sniffio",
        "sqlglot",
    }
)
"""What the plugin imports; what these need comes along."""
ALONE = frozenset({"pulumi"})
"""What comes without what it needs: the plugin loads its generated protocol modules only."""

MACHINES = {"linux-amd64": "x86_64", "linux-arm64": "aarch64", "darwin-amd64": "x86_64", "darwin-arm64": "arm64"}
"""The platforms of a tarball as Pulumi names them, and each one's machine as Python and pip do."""
WHEELS = {"linux": ("manylinux_2_28", "manylinux_2_17", "manylinux2014"), "darwin": ("macosx_11_0",)}
"""The systems whose wheels are taken, in the words of a wheel's tags; it runs where the newest of them does."""
EPOCH = "1580601600"
"""The time of every file, in seconds, where `SOURCE_DATE_EPOCH` is not set. hatchling has the same."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a tarball runs.

    :param platform: operating system and machine, one of `MACHINES`.
    :param minor: the version of CPython, such as `3.12`.
    """

    platform: str
    minor: str

    @property
    def python(self) -> str:
        """The Python in the words of a wheel's tags."""
        return f"cp{self.minor.replace('.', '')}"

    @property
    def system(self) -> str:
        return self.platform.partition("-")[0]

    @property
    def wheels(self) -> list[str]:
        """The platforms of the wheels that run there."""
        return [f"{name}_{MACHINES[self.platform]}" for name in WHEELS[self.system]]

    @property
    def markers(self) -> dict[str, str]:
        """What a dependency's marker sees there."""
        return {
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_machine": MACHINES[self.platform],
            "platform_system": self.system.capitalize(),
            "python_full_version": f"{self.minor}.0",
            "python_version": self.minor,
            "sys_platform": self.system,
        }


def here() -> Target:
    """The target that runs this. Raises BuildError where no tarball is made for it."""
    this = (platform.system().lower(), platform.machine())
    for name, machine in MACHINES.items():
        if (name.partition("-")[0], machine) == this:
            return Target(name, "{}.{}".format(*sys.version_info[:2]))
    raise BuildError(f"the plugin is not made for {' '.join(this)}; it is for {', '.join(MACHINES)}")


# --- wheels ----------------------------------------------------------------------------------------------------------


def build_wheel(project: Path, folder: Path) -> Path:
    """Build the wheel of a Python project into a folder; return it. Raises BuildError."""
    with tempfile.TemporaryDirectory(dir=folder) as temp:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index"]
        pip += ["--no-deps", "--no-build-isolation", "--wheel-dir", temp, str(project)]
        run("building a wheel", pip, project, SOURCE_DATE_EPOCH=str(epoch()))
        (made,) = Path(temp).glob("*.whl")
        return made.replace(folder / made.name)


def build_sdk_wheel(folder: Path) -> Path:
    """Build the wheel of the Python SDK into a folder; return it. Raises BuildError."""
    with tempfile.TemporaryDirectory() as temp:  # a build leaves files beside what it builds
        source = shutil.copytree(ROOT / "sdk" / "python", Path(temp, "pulumi_replicator"))
        return build_wheel(source, folder)


def locked_for(target: Target) -> str:
    """The part of requirements.lock that the plugin needs at a target, without markers: pip would apply its own."""
    entries = dict(_entries(LOCK.read_text(), target.markers))
    if missing := (IMPORTED | ALONE) - set(entries):
        raise BuildError(f"requirements.lock has no {', '.join(sorted(missing))} for {target.platform}; run: make lock")
    wanted, count = IMPORTED, 0
    while len(wanted) > count:
        count = len(wanted)
        wanted |= {name for name, (_, needed_by) in entries.items() if needed_by & wanted}
    return "".join(entries[name][0] for name in sorted(wanted | ALONE))


def _entries(lock: str, markers: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, set[str]]]]:
    """Each package of a lock whose marker holds: its pin with hashes, and the packages that need it."""
    for entry in re.findall(r"^\S.*(?:\n\s+.*)*", lock, re.MULTILINE):
        wanted = Requirement(entry.partition("\\")[0])
        if wanted.marker is None or wanted.marker.evaluate(dict(markers)):
            hashes = " ".join(re.findall(r"--hash=\S+", entry))
            needed_by = set(re.findall(r"^\s+#(?: via)?\s+(\S+)$", entry, re.MULTILINE))
            yield wanted.name, (f"{wanted.name}{wanted.specifier} {hashes}\n", needed_by)


def wheels_for(target: Target, cache: Cache) -> list[Path]:
    """The wheels that the plugin needs at a target, from PyPI or the cache. Raises BuildError."""
    locked = locked_for(target)

    def download(folder: Path) -> None:
        requirements = folder / "requirements"
        requirements.write_text(locked)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
        pip += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", target.minor]
        for name in target.wheels:
            pip += ["--platform", name]
        run(f"downloading the plugin's wheels for {target.platform} and Python {target.minor}", pip, folder)

    key = content_key([], locked, target.minor, *target.wheels)
    return sorted(cache.keep("wheels", key, download).glob("*.whl"))


# --- the plugin ------------------------------------------------------------------------------------------------------


def build_plugin(target: Target, own_wheel: Path, folder: Path, cache: Cache) -> Path:
    """Build the plugin's tarball for a target into a folder; return it. Raises BuildError."""
    version = own_wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory(dir=folder) as temp:
        plugin = Path(temp, "plugin")
        for wheel in (own_wheel, *wheels_for(target, cache)):
            _unpack(wheel, plugin / "lib")
        shutil.copy(ROOT / "LICENSE", plugin)
        launcher = plugin / BINARY
        launcher.write_text(LAUNCHER.read_text().replace("@MINOR@", target.minor))
        launcher.chmod(0o755)
        _compile(target, plugin)
        archive = Path(temp, f"{BINARY}-v{version}-{target.platform}-{target.python}.tar.gz")
        _pack(plugin, archive)
        return archive.replace(folder / archive.name)


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpack what a wheel installs to be imported. Its scripts are left out: nobody would call them."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not re.match(r"[^/]+\.data/scripts/", name)]
        if other := [name for name in names if re.match(r"[^/]+\.data/", name)]:
            raise BuildError(f"{wheel.name} holds {other[0]}, which no import finds; tools/dist.py has to place it")
        archive.extractall(folder, names)


def _compile(target: Target, plugin: Path) -> None:
    """Compile what is imported, since the folder of an installed plugin may be read-only.

    The files are used without a look at the sources' times, which an archive does not keep exactly.
    """
    python = _find_python(target.minor)
    if python is None:
        say(f"there is no Python {target.minor} on PATH; the plugin is not compiled, and its first start is slower")
        return
    command = [python, "-S", "-m", "compileall", "-qq"]
    command += ["--invalidation-mode", "unchecked-hash", "-s", str(plugin), str(plugin / "lib")]
    run("compiling the plugin", command, plugin, PYTHONHASHSEED="0")


def _find_python(minor: str) -> str | None:
    """A Python of a minor version: the one that runs this, or one on PATH."""
    code = "import sys; print('{}.{}'.format(*sys.version_info[:2]))"
    for python in filter(None, (sys.executable, shutil.which(f"python{minor}"))):
        asked = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
        if asked.stdout.strip() == minor:
            return python
    return None


def _pack(folder: Path, archive: Path) -> None:
    """Pack a folder's content so that the same content gives the same bytes."""

    def plain(item: tarfile.TarInfo) -> tarfile.TarInfo:
        item.mtime, item.uid, item.gid, item.uname, item.gname = epoch(), 0, 0, "", ""
        item.mode = 0o755 if item.isdir() or item.name == BINARY else 0o644
        return item

    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)


def epoch() -> int:
    """The time of every file, in seconds."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))


def build(folder: Path, target: Target, cache: Cache) -> list[Path]:
    """Build the wheels, and the tarball for a target, into a folder; return them. Raises BuildError."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = build_wheel(ROOT, folder)
    return [wheel, build_sdk_wheel(folder), build_plugin(target, wheel, folder, cache)]


def _minor(text: str) -> str:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    if not re.fullmatch(r"\d+\.\d+", text) or text not in SpecifierSet(wanted):
        raise argparse.ArgumentTypeError(f"write the minor version of a Python {wanted}, such as 3.12")
    return text


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        own = here()
        parser = argparse.ArgumentParser(description="Builds the wheels and the plugin's tarball.")
        parser.add_argument("--platform", choices=MACHINES, default=own.platform, help="of the tarball: %(default)s")
        parser.add_argument("--python", type=_minor, default=own.minor, metavar="X.Y", help="likewise: %(default)s")
        parser.add_argument(
            "--out", type=Path, default=ROOT / "dist", metavar="DIR", help="the folder to write to: dist"
        )
        options = parser.parse_args(arguments)
        target = Target(options.platform, options.python)
        print(*build(options.out.absolute(), target, Cache(cache_root(os.environ))), sep="\n")
    except BuildError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
