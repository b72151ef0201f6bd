"""The translation of ssh's stderr to errors. Its exit code is 255 for all of them."""

from __future__ import annotations

from replicator.errors import (
    AgentUnreachable,
    HostKeyChanged,
    HostKeyUnknown,
    HostUnreachable,
    LoginRefused,
    SshFailed,
)
from replicator.remote.address import SshAddress
from replicator.remote.ssh.command import login
from replicator.remote.ssh.frames import Why

_CHANGED = ("REMOTE HOST IDENTIFICATION HAS CHANGED", "REVOKED HOST KEY", "revoked by file")
_UNKNOWN = ("Host key verification failed", "host key is known for")
_REFUSED = ("Permission denied (", "Too many authentication failures", "Authentication failed")
_AWAY = (
    "connect to host",
    "Could not resolve hostname",
    "kex_exchange_identification",
    "ssh_exchange_identification",
    "banner exchange",
    "timed out",
    "not responding",
    "Connection closed by",
    "Connection reset by",
)
_LINES = 4
_LONGEST_QUOTE = 300


def is_another_key(said: str) -> bool:
    """Tell whether the host presented another key than the known one."""
    return any(word in said for word in _CHANGED)


def explain(address: SshAddress, said: str) -> AgentUnreachable:
    """Return the error for the stderr text of an ssh that ended or failed."""

    def holds(words: tuple[str, ...]) -> bool:
        return any(word in said for word in words)

    host = address.host
    if is_another_key(said):
        return HostKeyChanged(
            f"the host key of {host} is not the one on record, or was revoked: {_quote(said, 'Offending', 'revoked')}",
            fix="ask who runs the host whether its key was changed; only then remove the old one with ssh-keygen -R",
        )
    if holds(_UNKNOWN):
        return HostKeyUnknown(
            f"the host key of {host}, or of a jump host before it, is not known here",
            fix=f"log in once by hand, and compare the fingerprint before you accept it: {login(address)}",
        )
    if holds(_REFUSED):
        return LoginRefused(
            f"{host} refuses the login: {_quote(said, *_REFUSED)}",
            fix=f"see that this works without a question: {login(address)}; "
            "a key with a passphrase has to be in ssh-agent",
        )
    if holds(_AWAY):
        return HostUnreachable(
            f"{host} cannot be reached: {_quote(said)}",
            fix=f"see that the host runs, and that this works: {login(address)}",
        )
    return SshFailed(f"ssh to {host} failed: {_quote(said)}", fix=f"see that this works: {login(address)}")


def no_connection(host: str, socket: str, why: Why, start_hint: str) -> AgentUnreachable:
    """Return the error for a failed connection to a socket on the host, with the reason if the host knows it."""
    match why:
        case Why.MISSING:
            return AgentUnreachable(f"no agent runs on {host}: there is no socket {socket}", fix=start_hint)
        case Why.DENIED:
            return AgentUnreachable(
                f"the login has no permission on the agent's socket {socket} on {host}",
                fix="log in as its owner, or start the agent with a --socket-group that the login is in",
            )
        case Why.DEAD:
            return AgentUnreachable(
                f"no agent runs on {host}: the socket {socket} is there, but nothing listens", fix=start_hint
            )
        case _:
            return AgentUnreachable(
                f"{host} makes no connection to {socket}, and does not say why",
                fix=f"see whether an agent runs there ({start_hint}), and whether the login may use its socket",
            )


def may_pass(why: Why, *, answered: bool) -> bool:
    """Tell whether a retry may help. The socket of a restarting agent is missing for a moment."""
    return why is not Why.DENIED and (answered or why is not Why.MISSING)


def _quote(said: str, *words: str) -> str:
    """Return the last line that contains one of the words; without words, the last lines."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fitting = [line for line in lines if any(word in line for word in words)][-1:] or lines[-_LINES:]
    return "; ".join(fitting)[:_LONGEST_QUOTE] or "it said nothing"
