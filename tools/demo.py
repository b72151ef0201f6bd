"""The main job, narrated: a live SQLite database, replicated by `pulumi up`, watched, paused, replayed and let go.

Everything lives in one temporary folder and on 127.0.0.1, and is gone at the end.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent
sys.path.insert(0, str(ROOT))

from tests.engines import S3Server, s3_server  # noqa: E402

NOISE = (
    "Previewing ",
    "Updating ",
    "Destroying ",
    "@ ",
    "Duration",
    "Loading",
    "View ",
    "If you want",
    "The resources",
)


def say(text: str) -> None:
    """One step of the story."""
    print(f"\n\033[1m▸ {text}\033[0m" if sys.stdout.isatty() else f"\n▸ {text}", flush=True)


def show(text: str) -> None:
    """What a command printed, without what does not matter here."""
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith(NOISE)]
    print("\n".join(f"    {line}" for line in lines), flush=True)


class Writer(threading.Thread):
    """A program that commits an order about 50 times a second."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.orders = 0
        self._go = threading.Event()
        self._end = threading.Event()
        self._idle = threading.Event()

    def run(self) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=10)) as database:
            while not self._end.is_set():
                if not self._go.wait(0.05):
                    self._idle.set()
                    continue
                self._idle.clear()
                database.execute("INSERT INTO orders (item, at) VALUES (?, ?)", ("tea", time.time()))
                self.orders += 1
                self._end.wait(0.02)

    def write(self) -> None:
        self._go.set()

    def rest(self) -> None:
        """Return when nothing is being written."""
        self._go.clear()
        self._idle.wait(5)

    def end(self) -> None:
        self._end.set()
        self.join(5)


class Demo:
    """One run in one folder."""

    def __init__(self, folder: Path, s3: S3Server, cli: Path) -> None:
        self.folder, self.s3, self.cli = folder, s3, cli
        self.database = folder / "shop.db"
        self.socket = folder / "agent.sock"
        self.project = folder / "infra"
        self.project.mkdir()
        (folder / "state").mkdir()

    # --- commands ----------------------------------------------------------------------------------------------------

    def run(
        self, *command: str, check: bool = True, show_command: bool = True, env: dict[str, str] | None = None
    ) -> str:
        """Run a command, print it and what it says."""
        if show_command:
            print(f"    $ {Path(command[0]).name} {' '.join(command[1:])}".replace(str(self.folder), "…"), flush=True)
        done = subprocess.run(
            command,
            cwd=self.project,
            env=env or self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        if check and done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}")
        return done.stdout

    @property
    def env(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
        return {
            **kept,
            "PATH": f"{self.cli}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "demo",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "SHOP_ACCESS_KEY_ID": self.s3.owner.access_key_id,
            "SHOP_SECRET_ACCESS_KEY": self.s3.owner.secret_access_key,
        }

    def pulumi(self, *arguments: str) -> str:
        command = [str(self.cli / "pulumi"), *arguments, "--non-interactive", "--color", "never"]
        print(f"    $ pulumi {' '.join(arguments)}", flush=True)
        return self.run(*command, show_command=False)

    def replicator(self, *arguments: str, quiet: bool = False) -> str:
        return self.run(str(SCRIPTS / "replicator"), *arguments, show_command=not quiet)

    def status(self) -> dict[str, Any]:
        text = self.replicator("status", "orders", "--address", f"unix://{self.socket}", "--json", quiet=True)
        found: dict[str, Any] = json.loads(text)[0]
        return found

    # --- the program -------------------------------------------------------------------------------------------------

    def declare(self, *, prefix: str = "eu/orders", **more: Any) -> None:
        """Write Pulumi.yaml."""
        stream = {
            "name": "orders",
            "source": {"kind": "sqlite", "uri": f"sqlite://{self.database}"},
            "destination": {"kind": "s3", "uri": self.s3.url("backups", prefix), "authRef": "env://SHOP_*"},
            **more,
        }
        program = {
            "name": "shop",
            "runtime": "yaml",
            "plugins": {"providers": [{"name": "replicator", "path": str(SCRIPTS)}]},
            "resources": {
                "agent": {
                    "type": "pulumi:providers:replicator",
                    "properties": {"litestream": {"address": f"unix://{self.socket}"}},
                    "defaultProvider": True,
                },
                "orders": {"type": "replicator:index:Stream", "properties": stream},
            },
            "variables": {
                "now": {
                    "fn::invoke": {
                        "function": "replicator:index:getStreamStatus",
                        "arguments": {"stream": "${orders.id}"},
                    }
                }
            },
            "outputs": {
                "state": "${now.state}",
                "lagSeconds": "${now.lagSeconds}",
                "checkpoint": "${now.lastCheckpoint.lsn}",
            },
        }
        (self.project / "Pulumi.yaml").write_text(json.dumps(program, indent=2))

    # --- the story ---------------------------------------------------------------------------------------------------

    def tell(self, writer: Writer) -> None:
        say("A shop writes orders to an SQLite database, about 50 a second.")
        writer.write()
        say("Its infrastructure code declares a stream to S3. What would happen?")
        self.declare()
        self.pulumi("stack", "init", "dev")
        show(self.pulumi("preview"))
        say("Make it so.")
        show(self.pulumi("up", "--yes", "--skip-preview"))
        self.watch_lag(writer)
        lsn, orders, wanted = self.remember(writer)
        self.pause_and_resume(writer)
        self.replay(lsn, orders, wanted)
        self.risky_change()
        self.remove(writer)

    def watch_lag(self, writer: Writer) -> None:
        say("Orders go on. The lag, once a second, while they do:")
        for _ in range(4):
            time.sleep(1)
            now = self.status()
            print(
                f"    {writer.orders:5d} orders   state {now['state']}   lag {now.get('lagSeconds')} s"
                f"   {now.get('lagEvents')} uploads behind",
                flush=True,
            )

    def remember(self, writer: Writer) -> tuple[str, int, str]:
        """Let the writer rest until everything is replicated; the position and the content at it."""
        say("Remember this moment: everything is replicated, and the content has a hash.")
        writer.rest()
        deadline = time.monotonic() + 20
        while (now := self.status()).get("lagEvents") != 0:
            if time.monotonic() > deadline:
                sys.exit(f"the stream did not catch up: {now}")
            time.sleep(0.2)
        lsn, wanted = now["lastCheckpoint"]["lsn"], content(self.database)
        print(f"    checkpoint {lsn}, {writer.orders} orders, content {wanted[:16]}…", flush=True)
        return lsn, writer.orders, wanted

    def pause_and_resume(self, writer: Writer) -> None:
        say("Pause it in code. The preview says what that costs.")
        self.declare(desiredState="paused")
        show(self.pulumi("up", "--yes"))
        writer.write()
        time.sleep(1)
        say("Orders were written meanwhile. Resume: nothing of them is lost.")
        self.declare()
        show(self.pulumi("up", "--yes", "--skip-preview"))
        writer.rest()

    def replay(self, lsn: str, orders: int, wanted: str) -> None:
        say(f"Somebody asks for the database as it was at {orders} orders. First the plan:")
        copy = self.folder / "as-it-was.db"
        address = ("--address", f"unix://{self.socket}")
        show(self.replicator("replay", "orders", "--lsn", lsn, "--target", str(copy), "--plan", *address))
        say("Then the replay, into a file of its own:")
        show(self.replicator("replay", "orders", "--lsn", lsn, "--target", str(copy), "--yes", *address))
        found = content(copy)
        print(f"    content {found[:16]}…: {'the same' if found == wanted else 'NOT THE SAME'}", flush=True)
        if found != wanted:
            sys.exit("the replay does not hold what the database held")

    def risky_change(self) -> None:
        say("A colleague moves the destination. Review sees what that means before it happens:")
        self.declare(prefix="eu/orders-2")
        show(self.pulumi("preview"))
        self.declare()

    def remove(self, writer: Writer) -> None:
        say("Remove it. The replica stays, and nothing else does.")
        writer.end()
        show(self.pulumi("destroy", "--yes", "--skip-preview"))
        objects = len(self.s3.keys("backups"))
        beside = sorted(path.name for path in self.database.parent.glob(".shop.db*"))
        print(
            f"    {objects} objects of the replica in the bucket; beside the database: {beside or 'nothing'}",
            flush=True,
        )
        if beside or not objects:
            sys.exit("something is left that should not be, or the replica is gone")


def content(database: Path) -> str:
    """A hash of what a reader sees."""
    import asyncio

    from replicator.backends.sqlite.database import content_hash

    return asyncio.run(content_hash(database))


@contextmanager
def agent(demo: Demo) -> Iterator[None]:
    """The agent beside the database."""
    where = ("--socket", str(demo.socket), "--state", str(demo.folder / "agent"))
    demo.replicator("agent", "start", *where)
    try:
        yield
    finally:
        demo.replicator("agent", "stop", "--socket", str(demo.socket), quiet=True)


def main() -> None:
    """Set up, tell the story, clean up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    finder = [sys.executable, str(ROOT / "tools" / "pulumi_cli.py"), "path", "--user-ok"]
    cli = Path(subprocess.run(finder, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    with tempfile.TemporaryDirectory(prefix="replicator-demo-") as name:
        folder = Path(name)
        say("Start an S3 server (SeaweedFS) and the agent, which looks after the databases of this host.")
        with s3_server(folder / "s3") as s3:
            s3.make_bucket("backups")
            demo = Demo(folder, s3, cli)
            with closing(sqlite3.connect(demo.database)) as database:
                database.execute("PRAGMA journal_mode = wal")
                database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, at REAL)")
            writer = Writer(demo.database)
            writer.start()
            try:
                with agent(demo):
                    demo.tell(writer)
            finally:
                writer.end()
    say(f"Done in {time.monotonic() - began:.0f} s. Nothing is left running.")


if __name__ == "__main__":
    main()
