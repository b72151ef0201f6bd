"""Collects Kafka's jars with Maven, once, and checks each against a list of checksums.

    python tools/kafka/jars.py [--lock] [--for-tests] [NAME ...]

Each name is a folder beside this file with a `pom.xml` and the list `jars.lock`; without one it is `runtime`: broker,
Connect and MirrorMaker 2, and with `--for-tests` all of them. The folders with the jars are printed, one a line; they
are kept in `$REPLICATOR_CACHE` (else the user's cache folder), by the content that they are made from. With `--lock`
the lists are written anew.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, Python looks beside it alone
from tools.gobuild import BuildError, Cache, cache_root, content_key, run, say

POMS = Path(__file__).resolve().parent
NAMES = tuple(sorted(pom.parent.name for pom in POMS.glob("*/pom.xml")))
LOCK = "jars.lock"


def jars_cache() -> Cache:
    """Where the jars are kept. It has a lock of its own, so that they do not wait for a build of the CLI."""
    return Cache(cache_root(os.environ) / "kafka")


def collect(name: str = "runtime") -> Path:
    """The folder with the jars of `name`, collected if it is missing. Raises BuildError."""
    source = POMS / name

    def make(folder: Path) -> None:
        _copy(source, folder)
        verify(folder, (source / LOCK).read_text())

    return jars_cache().keep(name, content_key([source / "pom.xml", source / LOCK]), make)


def collected(name: str = "runtime") -> bool:
    """Whether `collect` would find the jars there."""
    source = POMS / name
    return (jars_cache().root / name / content_key([source / "pom.xml", source / LOCK])).exists()


def write_lock(name: str) -> None:
    """Write the checksums of the jars that Maven gives now. Raises BuildError."""
    with jars_cache().locked(), tempfile.TemporaryDirectory() as temporary:
        _copy(POMS / name, Path(temporary))
        (POMS / name / LOCK).write_text(checksums(Path(temporary)))


def checksums(folder: Path) -> str:
    """The files of a folder, one a line, in the form of `sha256sum`."""
    found = sorted(folder.iterdir(), key=lambda file: file.name)
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in found)


def verify(folder: Path, lock: str) -> None:
    """Raises BuildError where the files of a folder are not those of a list, byte for byte."""
    wanted, seen = set(lock.splitlines()), set(checksums(folder).splitlines())
    if wanted != seen:
        names = sorted({line.split(maxsplit=1)[1] for line in wanted ^ seen})
        raise BuildError(
            f"Maven gave other files than {LOCK} lists: {', '.join(names)}. Remove them from Maven's local repository"
            " and try again; after a change of pom.xml write the list anew: python tools/kafka/jars.py --lock NAME"
        )


def _copy(source: Path, folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BuildError("There is no mvn on PATH, which collects Kafka's jars. Install it: make deps")
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    what = f"collecting the jars of {source.name} (half a minute the first time)"
    run(what, [maven, "--batch-mode", "--quiet", "--file", str(source / "pom.xml"), *goal], source)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Collect Kafka's jars with Maven.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; see above where none is given"
    )
    parser.add_argument("--lock", action="store_true", help="write the lists of checksums anew")
    parser.add_argument(
        "--for-tests", action="store_true", help="all of them; where there is no Maven, say so and succeed"
    )
    options = parser.parse_args(arguments)
    names = options.names or (NAMES if options.for_tests else ["runtime"])
    if unknown := set(names) - set(NAMES):
        parser.error(f"no such folder: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        for name in names:
            if options.lock:
                write_lock(name)
            if options.for_tests and shutil.which("mvn") is None and not collected(name):
                say(f"there is no mvn on PATH; what needs {name} of Kafka's jars will not be tested")
            else:
                print(collect(name))
    except BuildError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
