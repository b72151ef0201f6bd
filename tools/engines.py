"""Starts the engines that the examples need and that are no part of this package: two Kafka clusters and PostgreSQL.

    python tools/engines.py up      # start them where they do not run, and print their addresses
    python tools/engines.py down    # end them, and nothing else

Each cluster has a Connect worker with Debezium's plugins, which reads secrets of streams from files in the folder that
`SECRETS_…` names. PostgreSQL is ready for logical decoding.

The addresses are lines for a shell: `eval "$(python tools/engines.py up)"`. Files and logs are in `build/engines`; an
`up` after a `down` starts with empty clusters and an empty database.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone
from tests.engines import EngineMissing, EngineNotReady
from tools.gobuild import BuildError, say
from tools.kafka.pair_daemon import end, keep, kept_database

FOLDER = Path(__file__).resolve().parents[1] / "build" / "engines"


def up(folder: Path) -> None:
    """Start what does not run, and print where it listens. Raises EngineMissing, BuildError and EngineNotReady."""
    pair = keep(folder / "kafka", postgres=True)
    database = kept_database(folder / "kafka")
    say("two Kafka clusters run, east and west, each with a Connect worker, and PostgreSQL")
    say("end them with: make engines-down")
    for name, side in (("EAST", pair.east), ("WEST", pair.west)):
        print(f"export KAFKA_{name}={side.bootstrap} CONNECT_{name}={side.connect} SECRETS_{name}={side.secrets}")
    print(f"export POSTGRES={database.uri} POSTGRES_USER={database.user} POSTGRES_PASSWORD={database.password}")


def down(folder: Path) -> None:
    """End what `up` started."""
    say("the engines are stopped" if end(folder / "kafka") else "no engine runs")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Engines for a person who tries the examples.")
    parser.add_argument("command", choices=("up", "down"))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for files and logs")
    options = parser.parse_args(arguments)
    try:
        {"up": up, "down": down}[options.command](options.folder.absolute())
    except (EngineMissing, EngineNotReady, BuildError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
