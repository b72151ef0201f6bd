"""Addresses of agents: a Unix socket on this host, or on another host through ssh."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import InvalidConfig
from replicator.home import home

SOCKET_PATH_LIMIT = 104
"""The limit of a Unix socket's path on every system, in bytes; the path must be shorter."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The address `unix:///path/of/socket`."""

    path: Path


@dataclass(frozen=True, slots=True)
class SshAddress:
    """The address `ssh://user@host:port/path/of/socket`; the host may be an alias of ssh's configuration.

    :param user: `None` for the one that ssh's configuration names.
    :param host: without the brackets of an IPv6 address.
    :param port: `None` for the one that ssh's configuration names.
    :param socket: `None` for the agent's default on that host.
    """

    user: str | None
    host: str
    port: int | None
    socket: str | None


Address = UnixAddress | SshAddress

# ssh and the host's shell get these verbatim, so they must not contain an option, a token or a quote.
_SOCKET = re.compile(r"/[A-Za-z0-9_.,+=@/-]*[A-Za-z0-9_.,+=@-]")
_SSH = re.compile(
    r"""ssh://
    (?:(?P<user>[A-Za-z0-9_.+][A-Za-z0-9_.+-]*)@)?
    (?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*))
    (?::(?P<port>[0-9]{1,5}))?
    (?P<socket>/.*)?""",
    re.VERBOSE,
)
_FORMS = (
    "write unix:// and the absolute path of its socket, as in unix:///run/replicator/agent.sock, "
    "or ssh://user@host:port and the path on that host; user, port and path may be left out"
)


def parse_address(address: str) -> Address:
    """Return the parts of an address; raise `InvalidConfig` if it is invalid."""
    scheme, _, rest = address.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return UnixAddress(Path(rest))
    if scheme == "ssh":
        return _parse_ssh(address)
    raise _invalid("is not an address of an agent")


def parse_unix(address: str) -> Path:
    """Return the socket of a local address; raise `InvalidConfig` for any other."""
    parsed = parse_address(address)
    if isinstance(parsed, SshAddress):
        raise InvalidConfig(
            f"{address} is on another host", property="address", fix="run the same command there, through ssh"
        )
    return parsed.path


def is_socket_path(text: str) -> bool:
    """Tell whether ssh can forward to this path."""
    return _SOCKET.fullmatch(text) is not None and len(text) < SOCKET_PATH_LIMIT


def _parse_ssh(address: str) -> SshAddress:
    parts = _SSH.fullmatch(address)
    if parts is None:
        login, at, _ = address.removeprefix("ssh://").partition("@")
        if at and ":" in login:
            raise _invalid("an address holds no password", fix="use a key, in ssh-agent or named by ~/.ssh/config")
        raise _invalid("is not an address of an agent")
    port = int(parts["port"]) if parts["port"] else None
    if port is not None and not 0 < port < 65536:
        raise _invalid(f"has {port} for a port")
    socket = None if parts["socket"] in (None, "/") else parts["socket"]
    if socket is not None and not is_socket_path(socket):
        raise _invalid(
            "has a path that ssh cannot forward",
            fix=f"choose a path of letters, digits and any of /_.,+=@- that is shorter than {SOCKET_PATH_LIMIT} bytes",
        )
    return SshAddress(parts["user"], parts["literal"] or parts["host"], port, socket)


def _invalid(message: str, fix: str = _FORMS) -> InvalidConfig:
    """Return the error for an invalid address. It does not hold the address, which may be a secret."""
    return InvalidConfig(message, property="address", fix=fix)


def default_socket() -> Path:
    """Return the default socket of this user's agent: in `/run/replicator` for root, else in a folder of the user."""
    if os.geteuid() == 0:
        return Path("/run/replicator/agent.sock")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        return home("the agent's socket", "its address, --socket or XDG_RUNTIME_DIR") / ".replicator" / "agent.sock"
    return Path(runtime) / "replicator" / "agent.sock"


def default_address() -> str:
    """Return the agent's default socket as a client's address."""
    return f"unix://{default_socket()}"


def is_default(address: str) -> bool:
    """Tell whether an address is that of this user's own agent. A user without a home folder may have none."""
    try:
        return address == default_address()
    except InvalidConfig:
        return False
