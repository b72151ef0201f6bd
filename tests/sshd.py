"""OpenSSH's server on a high port of 127.0.0.1, run by an ordinary user and for that user alone.

A laptop's user logs in as themselves. Where the tests run as root, a user is made that only this sshd can see: its row
is in a passwd file of its own, which libnss-wrapper shows to the process, so nothing of the machine is changed.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.engines import EngineMissing, EngineNotReady, free_ports
from tests.waiting import wait_until

OURS = Path(__file__).resolve().parents[1] / "provider"
"""Where this version of the package is."""

_UID = 61_234  # nobody's on any system
_WRAPPERS = ("/usr/lib/*/libnss_wrapper.so", "/usr/lib64/libnss_wrapper.so")


@dataclass(frozen=True)
class Login:
    """The user who logs in.

    :param group: a group that the login is in, for sockets that it may use.
    """

    user: str
    uid: int
    gid: int
    made_up: bool

    @property
    def group(self) -> str:
        return grp.getgrgid(self.gid).gr_name


def login() -> Login:
    """The user of the tests, or a made-up one where that is root."""
    if os.geteuid() != 0:
        return Login(getpass.getuser(), os.getuid(), os.getgid(), made_up=False)
    nobody = next(row for row in grp.getgrall() if row.gr_name in ("nogroup", "nobody"))
    return Login("deploy", _UID, nobody.gr_gid, made_up=True)


class Sshd:
    """One host.

    :param folder: has a short path, and everybody may enter it.
    :param alias: the name of the host in the client's configuration `config`.
    :param options: lines of sshd_config that come first, so they win.
    :param key_options: what stands before the key in authorized_keys.
    :param package: where the package is that the host's `replicator` runs; `None` where the host has no such program.
    """

    def __init__(
        self,
        folder: Path,
        alias: str = "db.example",
        *,
        options: Sequence[str] = (),
        key_options: str = "",
        package: Path | None = OURS,
    ) -> None:
        self.folder = folder
        self.alias = alias
        self.login = login()
        self.port = free_ports(1)[0]
        self.config = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        self.runtime = folder / "run"
        self._program = _find_sshd()
        self._wrapper = _find_wrapper() if self.login.made_up else None
        self._process: subprocess.Popen[bytes] | None = None
        self.dials = package == OURS
        self._prepare(options, key_options)
        if package is not None:
            self._install(package)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What sshd said."""
        return (self.folder / "sshd.log").read_text(errors="replace")

    def commands(self) -> list[int]:
        """The processes of the logins that run `replicator agent dial-stdio`."""
        listed = subprocess.run(["ps", "-axwwo", "pid=,args="], check=True, stdout=subprocess.PIPE, text=True)
        rows = [line.split(None, 1) for line in listed.stdout.splitlines()]
        ours = {int(pid) for pid, args in rows if "import main" in args and "dial-stdio" in args}
        return [pid for pid in _descendants(self.pid) if pid in ours]

    def logins(self) -> int:
        """How many logins it let in."""
        return self.log.count("Accepted publickey")

    def address(self, path: Path | str = "") -> str:
        """The address of a socket on this host, by the alias."""
        return f"ssh://{self.alias}{path}"

    def start(self) -> None:
        """Start the server, and wait until it listens; raise EngineNotReady."""
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        if self._wrapper is not None:
            environment |= {
                "LD_PRELOAD": str(self._wrapper),
                "NSS_WRAPPER_PASSWD": str(self.folder / "passwd"),
                "NSS_WRAPPER_GROUP": str(self.folder / "group"),
            }
        user = {"user": self.login.uid, "group": self.login.gid, "extra_groups": []} if self.login.made_up else {}
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = process = subprocess.Popen(
                [str(self._program), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment,
                start_new_session=True,
                **user,  # type: ignore[call-overload]
            )

        def listens() -> bool:
            if process.poll() is not None:
                raise EngineNotReady(f"sshd ended with {process.returncode}:\n{self.log[-800:]}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(listens, timeout=30, what="sshd listens")

    def stop(self) -> None:
        """End the server and every login."""
        if self._process is None:
            return
        self.end_logins()
        self._process.kill()
        self._process.wait()
        self._process = None

    def end_logins(self) -> None:
        """End the processes of the logins that are open; the server stays."""
        self._signal_logins(signal.SIGKILL)

    def freeze_logins(self) -> None:
        """Make the logins that are open hang; new ones are let in."""
        self._signal_logins(signal.SIGSTOP)

    def _signal_logins(self, number: signal.Signals) -> None:
        for pid in _descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def new_host_key(self) -> None:
        """Give the host another key than the one that the client knows; counts from the next start."""
        key = self.folder / "host_key"
        key.unlink()
        _make_key(key)
        os.chown(key, self.login.uid, self.login.gid)

    def configure(self, *lines: str) -> None:
        """Write the client's configuration; `lines` come first, so they win."""
        own = [
            "HostName 127.0.0.1",
            f"Port {self.port}",
            f"User {self.login.user}",
            f"IdentityFile {self.folder / 'key'}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
        ]
        self.config.write_text("\n  ".join([f"Host {self.alias}", *lines, *own]) + "\n")

    def own(self, path: Path) -> None:
        """Make a file the login's own."""
        os.chown(path, self.login.uid, self.login.gid)

    def _prepare(self, options: Sequence[str], key_options: str) -> None:
        folder, login = self.folder, self.login
        home = folder / "home"
        for made in (home, self.runtime):
            made.mkdir()
            self.own(made)
        for key in ("host_key", "key"):
            _make_key(folder / key)
        authorized = folder / "authorized_keys"
        authorized.write_text(f"{key_options} {(folder / 'key.pub').read_text()}")
        public = (folder / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")
        for path in (folder / "host_key", authorized):
            self.own(path)
        (folder / "passwd").write_text(
            f"root:x:0:0:root:/root:/bin/sh\n{login.user}:x:{login.uid}:{login.gid}::{home}:/bin/sh\n"
        )
        (folder / "group").write_text(f"root:x:0:\n{login.group}:x:{login.gid}:\n")
        lines = [
            *options,
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder / 'host_key'}",
            "PidFile none",
            f"AuthorizedKeysFile {authorized}",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "StrictModes no",
            "AllowTcpForwarding local",
            "AllowStreamLocalForwarding yes",
            f"SetEnv XDG_RUNTIME_DIR={self.runtime} PATH={folder / 'bin'}:/usr/bin:/bin",
        ]
        (folder / "sshd_config").write_text("\n".join(lines) + "\n")
        self.configure()

    def _install(self, package: Path) -> None:
        program = self.folder / "bin" / "replicator"
        program.parent.mkdir()
        places = [str(package), sysconfig.get_path("purelib")]
        program.write_text(
            f"#!/bin/sh\nPYTHONPATH={os.pathsep.join(places)} exec {self._find_python()} "
            "-c 'from replicator.cli import main; main()' \"$@\"\n"
        )
        program.chmod(0o755)

    def _find_python(self) -> str:
        """A Python of our version that the login may run."""
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
            if not self.login.made_up or _everybody_may_run(Path(python)):
                return python
        raise EngineMissing(f"a Python {version} that every user may run is not installed")


def _everybody_may_run(program: Path) -> bool:
    real = Path(os.path.realpath(program))
    return real.exists() and all(path.stat().st_mode & 0o001 for path in (real, *real.parents))


@contextlib.contextmanager
def sshd(
    alias: str = "db.example",
    *,
    options: Sequence[str] = (),
    key_options: str = "",
    package: Path | None = OURS,
) -> Iterator[Sshd]:
    """A host that takes logins inside the block."""
    folder = Path(tempfile.mkdtemp(prefix="rpl-"))
    folder.chmod(0o755)
    try:
        made = Sshd(folder, alias, options=options, key_options=key_options, package=package)
        try:
            made.start()
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)


def _descendants(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-axo", "pid=,ppid="], check=True, stdout=subprocess.PIPE, text=True)
    rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = [parent]
    for one in found:
        found += [pid for pid, above in rows if above == one]
    return found[1:]


def _make_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _find_sshd() -> Path:
    found = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None or shutil.which("ssh") is None:
        raise EngineMissing("sshd is not installed: make deps")
    return Path(found).absolute()  # sshd starts itself again, and wants to know where it is


def _find_wrapper() -> Path:
    for pattern in _WRAPPERS:
        for found in Path("/").glob(pattern.removeprefix("/")):
            return found
    raise EngineMissing("libnss-wrapper is not installed, which tests need where root runs them: make deps")
