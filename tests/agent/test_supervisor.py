"""The supervisor, with small programs as children, and killed agents."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from replicator.agent import supervisor as supervisor_module
from replicator.agent.supervisor import (
    AlreadySupervised,
    ChildState,
    LineLog,
    Restarts,
    Supervisor,
    SupervisorError,
)

from tests.waiting import wait_until

QUICK = Restarts(first=0.05, most=0.2, healthy_after=5.0)
FOREVER = "import time, sys\nprint('up', flush=True)\nwhile True: time.sleep(60)"
Make = Callable[..., Supervisor]


async def nothing() -> None:
    """An `on_start` that has nothing to do."""


async def eventually(condition: Callable[[], object], *, timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture(autouse=True)
def short_wait_for_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_TAKE_OVER", 0.5)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes supervisors of Python programs, and stops them afterwards."""
    made: list[tuple[Supervisor, LineLog]] = []

    def build(
        program: str,
        *,
        name: str = "child",
        env: dict[str, str] | None = None,
        on_start: Callable[[], Awaitable[None]] = nothing,
        redact: Callable[[str], str] = str,
        stop_timeout: float = 5.0,
    ) -> Supervisor:
        script = tmp_path / f"{name}.py"
        script.write_text(program)
        log = LineLog(tmp_path / f"{name}-{len(made)}.log", redact=redact, keep=50)
        supervisor = Supervisor(
            [sys.executable, "-I", "-S", str(script)],
            env or {},
            log=log,
            pid_file=tmp_path / f"{name}.pid",
            marker=str(script),
            on_start=on_start,
            restarts=QUICK,
            stop_timeout=stop_timeout,
        )
        made.append((supervisor, log))
        return supervisor

    yield build
    for supervisor, log in made:
        await supervisor.stop()
        log.close()


def log_of(folder: Path, name: str = "child-0") -> str:
    return (folder / f"{name}.log").read_text()


async def test_the_child_is_ready_only_after_on_start(make: Make) -> None:
    gate = asyncio.Event()
    supervisor = make(FOREVER, on_start=gate.wait)
    await supervisor.start()
    await eventually(lambda: supervisor.pid)
    with pytest.raises(TimeoutError):
        await supervisor.wait_ready(0.2)
    assert supervisor.state is ChildState.STARTING
    gate.set()
    await supervisor.wait_ready(5)
    assert supervisor.pid is not None and alive(supervisor.pid)


async def test_the_child_gets_the_given_environment_and_nothing_else(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "secret")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere")
    supervisor = make(
        "import os, json\nprint(json.dumps(dict(os.environ)), flush=True)\n" + FOREVER,
        env={"ONLY": "this", "LC_CTYPE": "C.UTF-8"},  # Python sets LC_CTYPE itself where it is missing
    )
    await supervisor.start()
    await eventually(lambda: "up" in log_of(tmp_path))
    assert json.loads(log_of(tmp_path).splitlines()[0]) == {"ONLY": "this", "LC_CTYPE": "C.UTF-8"}


async def test_lines_are_redacted_in_memory_and_in_a_private_file(make: Make, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        supervisor = make(
            "import sys\nprint('key=hunter2 out')\nprint('key=hunter2 err', file=sys.stderr)\n" + FOREVER,
            redact=lambda line: line.replace("hunter2", "***"),
        )
    finally:
        os.umask(old)
    await supervisor.start()
    await eventually(lambda: "up" in log_of(tmp_path))
    text = log_of(tmp_path)
    assert "key=*** out" in text and "key=*** err" in text
    assert "hunter2" not in text and "hunter2" not in repr(vars(supervisor.log))
    assert sorted(supervisor.said)[:2] == ["key=*** err", "key=*** out"]
    assert stat.S_IMODE((tmp_path / "child-0.log").stat().st_mode) == 0o600


async def test_lines_of_any_length_neither_block_the_child_nor_fill_the_memory(make: Make, tmp_path: Path) -> None:
    program = "import sys\nsys.stdout.write('x' * 1_000_000 + '\\nshort\\n' + 'y' * 5000 + '\\n')\n" + FOREVER
    supervisor = make(program)
    await supervisor.start()
    await eventually(lambda: "up" in log_of(tmp_path))
    first, short, second, up = log_of(tmp_path).splitlines()
    assert (len(first), short, len(second), up) == (4001, "short", 4001, "up")


def test_the_log_rotates_and_keeps_the_last_lines(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "x.log", keep=5, max_bytes=1000, backups=2)
    for number in range(100):
        log.write(f"line {number:04d} " + "." * 40)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x.log", "x.log.1", "x.log.2"]
    assert all(file.stat().st_size <= 1000 and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert [line[:9] for line in log.tail(99)] == [f"line {n:04d}" for n in range(95, 100)]


async def test_a_killed_child_comes_back_and_on_start_is_called_again(make: Make) -> None:
    calls: list[int] = []

    async def on_start() -> None:
        calls.append(1)

    supervisor = make(FOREVER, on_start=on_start)
    await supervisor.start()
    await supervisor.wait_ready(5)
    first = supervisor.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: supervisor.starts == 2 and supervisor.state is ChildState.READY)
    assert supervisor.pid != first and not alive(first)
    assert (len(calls), supervisor.last_exit) == (2, -signal.SIGKILL)


async def test_delays_grow_while_the_child_keeps_dying(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = make("raise SystemExit(3)")
    began = asyncio.get_running_loop().time()
    await supervisor.start()
    await eventually(lambda: supervisor.starts == 4)
    assert asyncio.get_running_loop().time() - began >= 0.05 + 0.1 + 0.2
    assert supervisor.last_exit == 3


async def test_a_failing_on_start_ends_the_child_and_is_tried_again(make: Make, tmp_path: Path) -> None:
    pids: list[int] = []

    async def on_start() -> None:
        assert supervisor.pid is not None
        pids.append(supervisor.pid)
        if len(pids) < 3:
            raise RuntimeError("not yet")

    supervisor = make(FOREVER, on_start=on_start)
    await supervisor.start()
    await eventually(lambda: supervisor.last_error)
    assert supervisor.last_error == "RuntimeError: not yet"
    await supervisor.wait_ready(10)
    assert len(set(pids)) == 3 and [alive(pid) for pid in pids] == [False, False, True]
    assert supervisor.last_error is None
    assert log_of(tmp_path).count("not started: RuntimeError: not yet") == 2


async def test_stop_ends_the_child_and_start_begins_again(make: Make) -> None:
    supervisor = make(FOREVER)
    await supervisor.start()
    await supervisor.wait_ready(5)
    first = supervisor.pid
    assert first is not None
    await supervisor.stop()
    assert (supervisor.state, supervisor.pid, alive(first)) == (ChildState.STOPPED, None, False)
    assert supervisor.last_exit == -signal.SIGTERM
    await supervisor.start()
    await supervisor.wait_ready(5)
    assert supervisor.pid != first


async def test_a_child_that_ignores_sigterm_is_killed(make: Make, tmp_path: Path) -> None:
    program = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER
    supervisor = make(program, stop_timeout=0.3)
    await supervisor.start()
    await eventually(lambda: "up" in log_of(tmp_path))
    await supervisor.stop()
    assert supervisor.last_exit == -signal.SIGKILL


async def test_a_cancelled_stop_leaves_no_child(make: Make, tmp_path: Path) -> None:
    program = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER
    supervisor = make(program, stop_timeout=60)
    await supervisor.start()
    await eventually(lambda: "up" in log_of(tmp_path))
    pid = supervisor.pid
    assert pid is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await supervisor.stop()
    assert not alive(pid)


async def test_stop_does_not_wait_for_the_next_start(make: Make) -> None:
    supervisor = make("raise SystemExit(1)")
    supervisor._restarts = Restarts(first=60)
    await supervisor.start()
    await eventually(lambda: supervisor.state is ChildState.WAITING)
    async with asyncio.timeout(2):
        await supervisor.stop()


async def test_a_missing_program_is_said_at_once(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "x.log")
    supervisor = Supervisor(
        [str(tmp_path / "none")], {}, log=log, pid_file=tmp_path / "pid", marker="none", on_start=nothing
    )
    with pytest.raises(SupervisorError, match="not an executable"):
        await supervisor.start()
    log.close()


async def test_a_second_supervisor_is_refused_while_the_first_lives(make: Make) -> None:
    first, second = make(FOREVER), make(FOREVER)
    await first.start()
    await first.wait_ready(5)
    pid = first.pid
    with pytest.raises(AlreadySupervised, match=str(os.getpid())):
        await second.start()
    assert pid is not None and alive(pid) and first.pid == pid


async def test_a_second_supervisor_is_refused_between_two_children_of_the_first(make: Make) -> None:
    first, second = make("raise SystemExit(1)"), make("raise SystemExit(1)")
    first._restarts = Restarts(first=60)
    await first.start()
    await eventually(lambda: first.state is ChildState.WAITING)
    with pytest.raises(AlreadySupervised):
        await second.start()


async def test_a_process_that_is_not_ours_is_never_ended(make: Make, tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", FOREVER], stdout=subprocess.DEVNULL)
    lock = os.open(tmp_path / "child.pid", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, json.dumps({"child": stranger.pid, "supervisor": 1}).encode())
        with pytest.raises(AlreadySupervised):
            await make(FOREVER).start()
        assert stranger.poll() is None
    finally:
        os.close(lock)
        stranger.kill()
        stranger.wait()


AGENT = """
    import asyncio, sys
    from pathlib import Path
    from replicator.agent import supervisor
    folder, script, pdeathsig = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if pdeathsig == "off":
        supervisor.die_with_parent = list
    async def nothing(): pass
    async def main():
        log = supervisor.LineLog(folder / "agent.log")
        child = supervisor.Supervisor([sys.executable, "-I", "-S", script], {}, log=log, pid_file=folder / "child.pid",
                                      marker=script, on_start=nothing)
        await child.start()
        await child.wait_ready(5)
        print(child.pid, flush=True)
        await asyncio.sleep(60)
    asyncio.run(main())
"""


def killed_agent(tmp_path: Path, *, pdeathsig: str) -> int:
    """Run an agent, kill it with SIGKILL, and give the process id of its child."""
    (tmp_path / "child.py").write_text(FOREVER)
    command = [sys.executable, "-c", textwrap.dedent(AGENT), str(tmp_path), str(tmp_path / "child.py"), pdeathsig]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        child = int(agent.stdout.readline())
        wait_until(lambda: "up" in (tmp_path / "agent.log").read_text(), what="the child runs")
        assert alive(child)
        agent.kill()
    return child


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux's")
def test_the_child_dies_with_a_killed_agent(tmp_path: Path) -> None:
    child = killed_agent(tmp_path, pdeathsig="on")
    wait_until(lambda: not alive(child), timeout=2, what="the child is dead")


async def test_an_orphan_is_ended_before_the_next_child_starts(make: Make, tmp_path: Path) -> None:
    orphan = killed_agent(tmp_path, pdeathsig="off")
    assert alive(orphan)  # without it, the child lives on
    supervisor = make(FOREVER)
    await supervisor.start()
    assert not alive(orphan)
    await supervisor.wait_ready(5)
    assert supervisor.pid != orphan
