"""What ssh says on stderr, as errors for people. Its exit code is 255 for all of them."""

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

OPEN_FAILED = "open failed:"
"""Is in the line that ssh logs when the host did not connect a forwarded connection. Why, it never says."""

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


def explain(address: SshAddress, said: str) -> AgentUnreachable:
    """The error behind the text of an ssh that ended, or that made no socket."""

    def holds(words: tuple[str, ...]) -> bool:
        return any(word in said for word in words)

    host = address.host
    if holds(_CHANGED):
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


def _quote(said: str, *words: str) -> str:
    """The last line that holds one of the words; without words, the last lines."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fitting = [line for line in lines if any(word in line for word in words)][-1:] or lines[-_LINES:]
    return "; ".join(fitting)[:_LONGEST_QUOTE] or "it said nothing"
