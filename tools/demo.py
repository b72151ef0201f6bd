"""The main job, narrated: a live SQLite database, replicated by `pulumi up`, watched, paused, replayed and let go.

Everything lives in one temporary folder and on 127.0.0.1, and is gone at the end.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in tools/ alone

from tests.engines import S3Server, s3_server
from tools.stage import Stage, Writer, find_cli, lag, note, program_of, say, show


class Orders(Writer):
    """A program that commits orders to an SQLite database."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], object]]:
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=10)) as database:
            insert = "INSERT INTO orders (item, at) VALUES (?, ?)"
            yield lambda number: database.execute(insert, ("tea", time.time()))


class Demo(Stage):
    """One run in one folder."""

    def __init__(self, folder: Path, s3: S3Server, cli: Path) -> None:
        identity = {
            "SHOP_ACCESS_KEY_ID": s3.owner.access_key_id,
            "SHOP_SECRET_ACCESS_KEY": s3.owner.secret_access_key,
        }
        super().__init__(folder, cli, identity)
        self.s3 = s3
        self.database = folder / "shop.db"
        self.socket = folder / "agent.sock"

    def now(self) -> dict[str, Any]:
        return self.status("orders", "--address", f"unix://{self.socket}")

    # --- the program -------------------------------------------------------------------------------------------------

    def declare(self, *, prefix: str = "eu/orders", **more: Any) -> dict[str, Any]:
        """Write Pulumi.yaml, and return the stream's properties."""
        stream = {
            "name": "orders",
            "source": {"kind": "sqlite", "uri": f"sqlite://{self.database}"},
            "destination": {"kind": "s3", "uri": self.s3.url("backups", prefix), "authRef": "env://SHOP_*"},
            **more,
        }
        program = {
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
        self.write("shop", program)
        return stream

    # --- the story ---------------------------------------------------------------------------------------------------

    def tell(self, writer: Writer) -> None:
        say("A shop writes orders to an SQLite database, some 40 a second.")
        writer.write()
        say("The program declares a stream of it to S3:")
        for line in program_of("orders", self.declare(), self.folder):
            note(line)
        say("What would happen?")
        self.pulumi("stack", "init", "dev")
        show(self.pulumi("preview"))
        say("Create it.")
        show(self.pulumi("up", "--yes", "--skip-preview"))
        self.watch_lag(writer)
        lsn, orders, wanted = self.remember(writer)
        self.pause_and_resume(writer)
        self.replay(lsn, orders, wanted)
        self.risky_change()
        self.remove(writer)

    def watch_lag(self, writer: Writer) -> None:
        say("The shop keeps writing. The lag, once a second:")
        for _ in range(4):
            time.sleep(1)
            now = self.now()
            note(f"{writer.orders:5d} orders   state {now['state']}   lag {lag(now)}   {behind(now.get('lagEvents'))}")

    def remember(self, writer: Writer) -> tuple[str, int, str]:
        """Let the writer rest until everything is replicated; the position and the content at it."""
        say("The shop rests until everything is replicated. This is the position, and a hash of the content:")
        writer.rest()
        deadline = time.monotonic() + 20
        while (now := self.now()).get("lagEvents") != 0:
            if time.monotonic() > deadline:
                sys.exit(f"the stream did not catch up: {now}")
            time.sleep(0.2)
        lsn, wanted = now["lastCheckpoint"]["lsn"], content(self.database)
        note(f"checkpoint {lsn}, {writer.orders} orders, content {wanted[:16]}…")
        return lsn, writer.orders, wanted

    def pause_and_resume(self, writer: Writer) -> None:
        say("Pause it in code. The preview says what that costs.")
        self.declare(desiredState="paused")
        show(self.pulumi("up", "--yes"))
        writer.write()
        time.sleep(1)
        say("The shop wrote orders meanwhile. Resume: they are uploaded.")
        self.declare()
        show(self.pulumi("up", "--yes", "--skip-preview"))
        writer.rest()

    def replay(self, lsn: str, orders: int, wanted: str) -> None:
        say(f"What would a replay to the position with {orders} orders do?")
        copy = self.folder / "as-it-was.db"
        address = ("--address", f"unix://{self.socket}")
        plan = self.replicator("replay", "orders", "--lsn", lsn, "--target", str(copy), "--plan", *address)
        show(plan)
        say("Run it. It writes a new file:")
        ran = self.replicator("replay", "orders", "--lsn", lsn, "--target", str(copy), "--yes", *address)
        show(ran.removeprefix(plan))
        found = content(copy)
        note(f"content {found[:16]}…: {'the same' if found == wanted else 'NOT THE SAME'}")
        if found != wanted:
            sys.exit("the replay does not hold what the database held")

    def risky_change(self) -> None:
        say("Another change: the destination gets another prefix. The preview says what that does to the data:")
        self.declare(prefix="eu/orders-2")
        show(self.pulumi("preview"))
        self.declare()

    def remove(self, writer: Writer) -> None:
        say("Remove it. Only the replica stays.")
        writer.end()
        show(self.pulumi("destroy", "--yes", "--skip-preview"))
        objects = len(self.s3.keys("backups"))
        beside = sorted(path.name for path in self.database.parent.glob(".shop.db*"))
        note(f"{objects} objects of the replica in the bucket; beside the database: {beside or 'nothing'}")
        if beside or not objects:
            sys.exit("something is left that should not be, or the replica is gone")


def behind(uploads: int | None) -> str:
    """A lag in words."""
    return "lag not known" if uploads is None else f"{uploads} upload{'' if uploads == 1 else 's'} behind"


def content(database: Path) -> str:
    """A hash of what a reader sees."""
    import asyncio

    from replicator.backends.sqlite.database import content_hash

    return asyncio.run(content_hash(database))


@contextmanager
def agent(demo: Demo) -> Iterator[None]:
    """The agent beside the database, with a policy that grants what the story needs."""
    policy = demo.folder / "agent.toml"
    place = demo.s3.url("backups", "eu").partition("&region")[0]
    policy.write_text(
        f'[[source]]\nfolder = "{demo.folder}"\n\n'
        f'[[destination]]\nuri = "{place}"\nauthRef = "env://SHOP_*"\n\n'
        f'[[replay]]\nfolder = "{demo.folder}"\n'
    )
    where = ("--socket", str(demo.socket), "--state", str(demo.folder / "agent"), "--policy", str(policy))
    demo.replicator("agent", "start", *where)
    try:
        yield
    finally:
        demo.replicator("agent", "stop", "--socket", str(demo.socket), quiet=True)


def main() -> None:
    """Set up, tell the story, clean up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    cli = find_cli()
    with tempfile.TemporaryDirectory(prefix="replicator-demo-") as name:
        folder = Path(name)
        say("Start an S3 server (SeaweedFS) and the agent, which looks after the databases of this host.")
        with s3_server(folder / "s3") as s3:
            s3.make_bucket("backups")
            demo = Demo(folder, s3, cli)
            with closing(sqlite3.connect(demo.database)) as database:
                database.execute("PRAGMA journal_mode = wal")
                database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, at REAL)")
            writer = Orders(demo.database)
            writer.start()
            try:
                with agent(demo):
                    demo.tell(writer)
            finally:
                writer.end()
    say(f"Done in {time.monotonic() - began:.0f} s. Nothing is left running.")


if __name__ == "__main__":
    main()
