"""`replicator agent dial-stdio` on the agent's host."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from replicator.remote.ssh.frames import GREETING, Frames, Kind, Why, data, frame

from tests.agent.support import COMMAND, command
from tests.sshd import sshd

WITHIN = 20.0


class Listener:
    """A socket that the test answers on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen()
        self.listening.settimeout(WITHIN)
        self._accepted: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def accept(self) -> socket.socket:
        """The next connection."""
        made, _ = self.listening.accept()
        made.settimeout(WITHIN)
        self._accepted.append(made)
        return made

    def close(self) -> None:
        """Close the socket, and every connection."""
        for made in (self.listening, *self._accepted):
            made.close()


@pytest.fixture
def agent(short_path: Path) -> Iterator[Listener]:
    with Listener(short_path / "s") as made:
        yield made


@contextmanager
def dialled(*arguments: str, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    """The command, with pipes; it must have ended at the end."""
    pipes: dict[str, object] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([COMMAND, "agent", "dial-stdio", *arguments], **pipes | settings)  # type: ignore[call-overload]
    try:
        yield process
        process.wait(WITHIN)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def send(process: subprocess.Popen[bytes], content: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(content)
    process.stdin.flush()


def receive(process: subprocess.Popen[bytes], size: int) -> bytes:
    assert process.stdout is not None
    return process.stdout.read(size)


def end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


class Client:
    """The other side of `--multiplex`."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self._frames = Frames()
        self._found: list[tuple[Kind, int, bytes]] = []
        assert process.stdout is not None
        assert process.stdout.readline() == GREETING + bytes(path) + b"\n"

    def next(self) -> tuple[Kind, int, bytes]:
        """The next frame."""
        assert self.process.stdout is not None
        while not self._found:
            received = os.read(self.process.stdout.fileno(), 65_536)
            assert received, "it has ended"
            self._found += self._frames.feed(received)
        return self._found.pop(0)


# --- one connection --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["--socket {}", "--socket={}"])
def test_bytes_go_both_ways_until_stdin_ends(agent: Listener, form: str) -> None:
    large = os.urandom(3_000_000)
    with dialled(*form.format(agent.path).split()) as process:
        there = agent.accept()
        send(process, b"ping")
        assert there.recv(100) == b"ping"
        there.sendall(b"pong")
        assert receive(process, 4) == b"pong"
        send(process, large)
        got = bytearray()
        while len(got) < len(large):
            got += there.recv(65_536)
        assert got == large
        end(process)
        assert there.recv(1) == b""
    assert process.returncode == 0


def test_it_ends_when_the_agent_closes(agent: Listener) -> None:
    """All that came before is printed, and stdin is still open."""
    with dialled("--socket", str(agent.path)) as process:
        with agent.accept() as there:
            there.sendall(b"x" * 60_000)
        assert receive(process, 100_000) == b"x" * 60_000
        process.wait(WITHIN)
    assert process.returncode == 0


@pytest.mark.parametrize("mode", [(), ("--multiplex",)])
def test_stdin_and_stdout_may_be_one_socket(agent: Listener, mode: tuple[str, ...]) -> None:
    """An ssh server may give one for both."""
    ours, theirs = socket.socketpair()
    ours.settimeout(WITHIN)
    with dialled(*mode, "--socket", str(agent.path), stdin=theirs, stdout=theirs) as process:
        theirs.close()
        if mode:
            assert ours.recv(1000) == GREETING + bytes(agent.path) + b"\n"
        ours.sendall(frame(Kind.OPEN, 1) + data(1, b"ping") if mode else b"ping")
        there = agent.accept()
        assert there.recv(100) == b"ping"
        there.sendall(b"pong")
        assert ours.recv(100).endswith(b"pong")
        ours.close()
    assert process.returncode == 0


def test_it_ends_when_nobody_reads(agent: Listener) -> None:
    with dialled("--socket", str(agent.path)) as process:
        there = agent.accept()
        assert process.stdout is not None
        process.stdout.close()
        there.sendall(b"pong")
        process.wait(WITHIN)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("listens", "says"), [(False, "the socket is not there"), (True, "the socket is there, but nothing listens")]
)
def test_no_agent_has_an_exit_code(short_path: Path, listens: bool, says: str) -> None:
    path = short_path / "s"
    if listens:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    done = command("agent", "dial-stdio", "--socket", str(path))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        f"error: no agent runs at unix://{path}: {says} [RPL-AGENT-DOWN]",
        f"  → start it: replicator agent start --socket {path}",
    ]


@pytest.mark.engine
def test_no_permission_has_an_exit_code(tmp_path: Path) -> None:
    """A login of its own, since root has every permission."""
    with sshd() as host, Listener(host.folder / "s") as made:
        made.path.chmod(0)
        ssh = ["ssh", "-F", str(host.config), "-T", host.alias, f"replicator agent dial-stdio --socket {made.path}"]
        done = subprocess.run(
            ssh, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=WITHIN, text=True
        )
        made.listening.close()
    assert (done.returncode, done.stdout) == (4, "")
    assert f"no permission on the agent's socket at unix://{made.path}, which has mode 0000" in done.stderr


# --- many connections ------------------------------------------------------------------------------------------------


def test_connections_do_not_wait_for_each_other(agent: Listener) -> None:
    """An agent that takes nothing from one connection holds up no other."""
    large = os.urandom(1_000_000)
    with dialled("--multiplex", "--socket", str(agent.path)) as process:
        client = Client(process, agent.path)
        send(process, frame(Kind.OPEN, 1) + data(1, large))
        stuck = agent.accept()
        send(process, frame(Kind.OPEN, 2) + data(2, b"ping"))
        there = agent.accept()
        assert there.recv(100) == b"ping"
        there.sendall(b"pong")
        assert client.next() == (Kind.DATA, 2, b"pong")
        got = bytearray()
        while len(got) < len(large):
            got += stuck.recv(65_536)
        assert got == large
        there.close()
        assert client.next() == (Kind.CLOSE, 2, b"")
        send(process, frame(Kind.CLOSE, 1))
        assert stuck.recv(1) == b""
        send(process, data(1, b"late") + frame(Kind.CLOSE, 1) + frame(Kind.OPEN, 3) + data(3, b"again"))
        assert agent.accept().recv(100) == b"again"
        end(process)
    assert process.returncode == 0


def test_stdin_that_ends_closes_every_connection(agent: Listener) -> None:
    with dialled("--multiplex", "--socket", str(agent.path)) as process:
        Client(process, agent.path)
        send(process, b"".join(frame(Kind.OPEN, number) for number in range(20)))
        there = [agent.accept() for _ in range(20)]
        end(process)
        assert [one.recv(1) for one in there] == [b""] * 20
    assert process.returncode == 0


def test_a_connection_that_is_not_made_is_told_and_the_next_one_may_be(short_path: Path) -> None:
    path = short_path / "s"
    with dialled("--multiplex", "--socket", str(path)) as process:
        client = Client(process, path)
        send(process, frame(Kind.OPEN, 1))
        kind, number, content = client.next()
        assert (kind, number, content.split()[0].decode()) == (Kind.REFUSED, 1, Why.MISSING)
        with Listener(path) as made:
            send(process, frame(Kind.OPEN, 2) + data(2, b"ping"))
            assert made.accept().recv(100) == b"ping"
        send(process, frame(Kind.OPEN, 3))
        found = [client.next(), client.next()]
        assert (Kind.CLOSE, 2, b"") in found
        assert [content.split()[0].decode() for kind, _, content in found if kind is Kind.REFUSED] == [Why.DEAD]
        end(process)
    assert process.returncode == 0


def test_what_is_no_frame_ends_it(agent: Listener) -> None:
    with dialled("--multiplex", "--socket", str(agent.path)) as process:
        Client(process, agent.path)
        send(process, b"GET / HTTP/1.1\r\n\r\n")
        process.wait(WITHIN)
    assert process.returncode == 1


def test_stdin_may_be_a_file(agent: Listener, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(frame(Kind.OPEN, 1))
    with (
        (tmp_path / "in").open("rb") as given,
        dialled("--multiplex", "--socket", str(agent.path), stdin=given) as process,
    ):
        assert agent.accept().recv(1) == b""
    assert process.returncode == 0
