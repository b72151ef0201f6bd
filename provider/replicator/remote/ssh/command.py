"""The ssh command line: the user's own configuration, with overrides for a program without a terminal."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from replicator.errors import SshMissing
from replicator.pdeathsig import die_with_parent
from replicator.remote.address import SshAddress

DIAL = ("replicator", "agent", "dial-stdio", "--multiplex")
"""The command to run on the host. The login's own shell, which may be any, parses it."""

CONFIG_VARIABLE = "REPLICATOR_SSH_CONFIG"
"""The environment variable that names a configuration file to use in place of `~/.ssh/config` and `/etc/ssh`."""

_ALWAYS = (
    "BatchMode=yes",  # no one can answer prompts; an unknown host key is refused
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ControlMaster=no",  # a shared connection would outlive this process, or end with another
    "ControlPath=none",
    "LogLevel=INFO",  # the lines that the error texts come from
    "ForwardAgent=no",
    "ForwardX11=no",
    "RemoteCommand=none",
)
_FORWARDING = (
    "ExitOnForwardFailure=no",  # other forwardings of the user's configuration may already be in use
    "StreamLocalBindMask=0177",
    "StreamLocalBindUnlink=yes",
)


def forward(address: SshAddress, local: Path, socket: str) -> list[str]:
    """Return the command that forwards `local` to the socket on the host until it is ended; raise `SshMissing`."""
    options = [*_options((*_ALWAYS, *_FORWARDING)), "-N", "-T", "-L", f"{local}:{socket}"]
    return _ssh(address, options, ())


def dial(address: SshAddress) -> list[str]:
    """Return the command that runs `replicator agent dial-stdio --multiplex` on the host; raise `SshMissing`."""
    return run(address, " ".join([*DIAL, *(["--socket", address.socket] if address.socket else [])]))


def run(address: SshAddress, command: str) -> list[str]:
    """Return the command that runs a shell command line on the host; raise `SshMissing`."""
    return _ssh(address, [*_options((*_ALWAYS, "ClearAllForwardings=yes")), "-T"], (command,))


def login(address: SshAddress) -> str:
    """Return the command with which a user logs in the same way."""
    return shlex.join(["ssh", *_way(address)])


def _ssh(address: SshAddress, options: Sequence[str], command: Sequence[str]) -> list[str]:
    program = shutil.which("ssh")
    if program is None:
        raise SshMissing(
            "there is no ssh program on PATH", property="address", fix="install OpenSSH's client: openssh-client"
        )
    return die_with_parent([str(Path(program).absolute()), *options, *_way(address), *command])


def _way(address: SshAddress) -> list[str]:
    config = os.environ.get(CONFIG_VARIABLE)
    own = ["-F", config] if config else []
    port = ["-p", str(address.port)] if address.port else []
    return [*own, *port, address.host if address.user is None else f"{address.user}@{address.host}"]


def _options(options: Sequence[str]) -> list[str]:
    return [word for option in options for word in ("-o", option)]
