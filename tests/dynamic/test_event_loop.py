"""The loop beside Pulumi's, which the calls of a refresh all want first."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import asyncio, threading, time
from replicator.dynamic import event_loop

make = asyncio.new_event_loop
asyncio.new_event_loop = lambda: (time.sleep(0.2), make())[1]  # so that the others come while the first makes it

async def loop():
    return id(asyncio.get_running_loop())

found, everybody = [], threading.Barrier(4)

def call():
    everybody.wait()
    found.append((event_loop.submit(loop()).result(), id(event_loop.connections(lambda key: None))))

threads = [threading.Thread(target=call) for _ in range(everybody.parties)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 4
print(len({loop for loop, _ in found}), len({connections for _, connections in found}))
"""


def test_calls_that_begin_at_once_share_loop_and_connections() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("1 1\n", "")
