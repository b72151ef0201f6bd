"""What the kernel tells of a process that uploads, and what that says of an upload."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from replicator.backends.sqlite import traffic
from replicator.backends.sqlite.traffic import Traffic, bytes_moved
from replicator.backends.sqlite.uploads import PART, Arrivals, Waiting

MB = 1_000_000
SENDER = """
import os, socket, sys
line = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    os.write(line.fileno(), bytes(65536))
"""


@pytest.fixture
def sender() -> Iterator[tuple[int, socket.socket]]:
    """A process that sends without an end, and the other side of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)  # the kernel would enlarge it while it is read
        process = subprocess.Popen([sys.executable, "-c", SENDER, str(server.getsockname()[1])])
        try:
            line, _ = server.accept()
            with line:
                yield process.pid, line
        finally:
            process.kill()
            process.wait()


def settled(count: Callable[[], int | None]) -> int:
    """The count when it has not changed for a second; a loaded machine holds the sender up for some tenths."""
    before, since = count(), time.monotonic()
    while before is None or time.monotonic() - since < 1.0:
        time.sleep(0.1)
        if (now := count()) != before:
            before, since = now, time.monotonic()
    return before


def receive(line: socket.socket, size: int) -> None:
    while size > 0:
        size -= len(line.recv(min(size, 65_536)))


def test_what_a_peer_takes_counts_and_what_waits_in_buffers_does_not(sender: tuple[int, socket.socket]) -> None:
    pid, line = sender
    stuck = settled(lambda: bytes_moved(pid))
    receive(line, 8 * MB)
    after = settled(lambda: bytes_moved(pid))
    assert 7 * MB < after - stuck < 9 * MB


def test_a_process_that_has_ended_tells_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        assert bytes_moved(process.pid) is None


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_transfer_moves_until_nothing_to_speak_of_has_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, counts = Clock(), {7: 0}
    monkeypatch.setattr(traffic, "bytes_moved", lambda pid, received: counts.get(pid))
    seen = Traffic(clock=clock)
    answers = []
    for second in range(200):
        clock.now = 100.0 + second
        counts[7] += 20_000 if second < 50 else 500  # an upload, and then polls
        answers.append(seen.moves(7))
    assert answers.index(False) in range(100, 50 + int(traffic.STILL_FOR) + 1)
    assert not any(answers[150:])
    clock.now += traffic.STILL_FOR + 1
    assert seen.moves(7), "nobody has looked for a while"
    assert seen.moves(8), "another process, of which nothing is known yet"
    assert Traffic(clock=clock).moves(None), "nothing tells that it stands still"


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        # each step: seconds later, the last transaction that arrived, size and age of the next file, whether data moves
        ([(9, None, (1000, 9), False)], True),  # a request takes its time
        ([(30, None, (1000, 30), True)], False),  # others move data; this one ought to be there
        ([(90, None, (PART, 90), False)], True),  # 5 MB on a slow link
        ([(200, None, (PART, 200), True)], False),
        ([(3600, None, (100 * MB, 3600), True)], True),  # in parts, and they move
        ([(3600, None, (100 * MB, 3600), False)], False),
        # one file after the other arrives
        ([(30, 4, (1000, 600), False), (9, 5, (1000, 600), False), (9, 6, (1000, 600), False)], True),
        ([(30, 4, (1000, 600), False), (30, 4, (1000, 600), False)], False),
        ([(30, 4, None, False), (3600, 4, (1000, 5), False)], True),  # there was nothing to upload for an hour
        ([(3, 4, (1000, 3), False), (3, None, (1000, 6), True)], False),  # the engine forgets it where it has failed
        ([(3, 4, None, True)], False),  # there is nothing to upload
    ],
)
def test_whether_an_upload_is_left_alone(
    steps: list[tuple[float, int | None, tuple[int, float] | None, bool]], last: bool
) -> None:
    clock = Clock()
    arrivals = Arrivals(clock=clock)
    for later, replicated, file, moves in steps:
        clock.now += later
        answer = arrivals.get_on(replicated, Waiting("", *file) if file else None, moves, quiet_for=0.0)
    assert answer is last


def test_files_arrive_though_the_engine_has_noted_no_time_since_the_first_of_them() -> None:
    clock = Clock()
    arrivals = Arrivals(clock=clock)
    for second in range(9, 60):
        clock.now += 1
        assert arrivals.get_on(second, Waiting("", 1000, 600), False, quiet_for=second)
    clock.now += 9
    assert arrivals.get_on(59, Waiting("", 1000, 600), False, quiet_for=69)
    clock.now += 22
    assert not arrivals.get_on(59, Waiting("", 1000, 600), False, quiet_for=91)
