"""Walks a page of the documentation: its commands run in one shell at a terminal, as somebody types them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from replicator.agent.state import StateFolder

from tests.engines import EngineMissing, find_engine
from tests.pulumi import ROOT, cli_folder
from tests.waiting import wait_until
from tools.dist import build_wheel

COLUMNS = 128
END = "\x1e"
"""What the shell prints after each step, on both sides of the exit code."""
USER = 61_234
"""Nobody's number on any system. Where root runs the tests this user walks, since an agent of root is the system's."""
CONTROLS = re.compile(r"\x1b\[[?>]?([\d;]*)([A-Za-z])|([^\x1b])", re.DOTALL)
MOVES = frozenset("BCDEFGHJLMPSTXf")
"""What else moves the cursor or removes text; the rest is about colours and the cursor's form."""
VOLATILE = (
    (r"process( +)\d+", r"process\g<1>0"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "0000-00-00T00:00:00.000Z"),
    (r"\b\d+(\.\d+)? ?s\b", "0s"),
    (r"\b\d+ B\b", "0 B"),
    (r"  +", "  "),  # columns are as wide as durations
)
"""What differs between two runs, and what is compared in its place."""


@dataclass(frozen=True)
class Step:
    """A command, or a file to write, and what the page says that it prints."""

    command: str
    printed: str = ""


@dataclass(frozen=True)
class Ran:
    """What a step printed, as it stood on the screen at last, and its exit code."""

    printed: str
    code: int


def files(page: Path) -> dict[str, str]:
    """The blocks whose mark has a file's name after the language, by that name."""
    tokens = MarkdownIt("commonmark").parse(page.read_text("utf-8"))
    return {token.info.partition(" ")[2]: token.content for token in tokens if " " in token.info}


def steps(page: Path) -> Iterator[Step]:
    """The `$ ` lines of the blocks marked `console`, each with the lines that follow it; and every block whose mark has
    a file's name after the language, as that file.
    """
    for token in MarkdownIt("commonmark").parse(page.read_text("utf-8")):
        language, _, name = token.info.partition(" ")
        if token.type == "fence" and name:
            yield Step(f"cat > {name} <<'{END}'\n{token.content}{END}")
        elif token.type == "fence" and language == "console":
            for part in re.split(r"^\$ ", token.content, flags=re.MULTILINE)[1:]:
                command, _, printed = part.partition("\n")
                yield Step(command, printed)


def compared(text: str) -> list[str]:
    """The lines of an output without what differs between two runs. Pulumi has no order for its diagnostics."""
    for pattern, constant in VOLATILE:
        text = re.sub(pattern, constant, text)
    lines = text.strip("\n").splitlines()
    return sorted(lines) if "Diagnostics:" in lines else lines


@dataclass(frozen=True)
class Walk:
    """A home folder, and the programs that its owner has.

    :param folder: has a short path, and everybody may enter it.
    :param environment: more variables.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def runtime(self) -> Path:
        return self.folder / "run"

    def prepare(self) -> None:
        """Make the home with the wheel in it, and the folders of programs and of what pip would download."""
        programs, packages = self.folder / "bin", self.folder / "packages"
        for made in (self.home, self.runtime, programs, packages):
            made.mkdir()
        (programs / "python3").symlink_to(os.path.realpath(sys.executable))
        (programs / "litestream").symlink_to(find_engine("litestream"))
        for item in Path(sysconfig.get_path("purelib")).iterdir():
            if not re.match(r"_?(editable|replicator|pip|setuptools|__pycache__)|.*\.pth$", item.name):
                (packages / item.name).symlink_to(item)
        build_wheel(ROOT, self.home)
        for made in (self.home, self.runtime, *self.home.iterdir()):
            os.chown(made, *_owner())

    def run(self, walked: Sequence[Step]) -> list[Ran]:
        """Take the steps; paths are those that the page has."""
        script = self.folder / "script"
        script.write_text("".join(f"{step.command}\nprintf '{END}%d\\n{END}' $?\n" for step in walked))
        text = _at_a_terminal([*_as_user(), "bash", str(script)], self.variables(), self.home)
        parts = text.split(END)
        assert len(parts) == 2 * len(walked) + 1, f"the shell ended early:\n{screen(parts[-1])}"
        return [Ran(self._named(screen(text)), int(code)) for text, code in zip(parts[::2], parts[1::2], strict=False)]

    def end_agent(self) -> None:
        """Kill the agent, where one is left."""
        left = StateFolder(self.home / ".local/state/replicator").holder()
        if left is not None:
            os.kill(left, signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{left}").exists(), what="the agent is gone")

    def _named(self, text: str) -> str:
        return text.replace(str(self.home), "/home/ana").replace(str(self.runtime), "/run/user/1000")

    def variables(self) -> Mapping[str, str]:
        """The whole environment of its shell."""
        return {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "USER": "ana",
            "LANG": "C.UTF-8",
            "TERM": "screen",  # programs do not ask it for its colours, and wait for an answer
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(cli_folder()), "/usr/bin", "/bin"]),
            "PULUMI_HOME": str(self.home / ".pulumi"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PYTHONPATH": str(self.folder / "packages"),
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            **self.environment,
        }


@contextmanager
def walk(**environment: str) -> Iterator[Walk]:
    """A home folder, whose agent is ended with the block."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        made = Walk(Path(folder), environment)
        made.folder.chmod(0o755)
        made.prepare()
        try:
            yield made
        finally:
            made.end_agent()


def screen(text: str) -> str:
    """What is left on a terminal's screen, without colours and without spaces at the ends of lines."""
    rows, row, column = [""], 0, 0
    for count, letter, plain in CONTROLS.findall(text):
        if letter == "A":
            row -= int(count or 1)
        elif letter == "K":
            rows[row] = rows[row][:column]
        elif plain == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif plain == "\r":
            column = 0
        elif plain:
            rows[row] = rows[row][:column].ljust(column) + plain + rows[row][column + 1 :]
            column += 1
        else:
            assert letter not in MOVES, f"what {count}{letter} does to the screen is not known here"
    return "\n".join(line.rstrip() for line in rows)


def _at_a_terminal(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    """What a command and all that it starts write to a terminal, until the last of them ends."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    read = b""
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        try:
            while more := os.read(ours, 65_536):
                read += more
        except OSError:  # nobody has the terminal any more
            process.wait()
        finally:
            process.kill()
            os.close(ours)
    return read.decode()


def _owner() -> tuple[int, int]:
    return (USER, USER) if os.geteuid() == 0 else (os.getuid(), os.getgid())


def _as_user() -> list[str]:
    """What comes before a command: its user is not root, but may pass through folders that are closed to others."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EngineMissing("setpriv is not installed, which this test needs where root runs it: use another user")
    user, group = _owner()
    rights = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [setpriv, f"--reuid={user}", f"--regid={group}", "--clear-groups", *rights]
