"""A part of the fallback: queries to a host, each a POSIX shell command.

They find the agent's socket, and the reason why a socket does not answer.
The login's own shell, which may be any, parses the command first, so the scripts contain no quotes, `!` or `\\`.
"""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE

from replicator.errors import HostUnreachable
from replicator.remote.address import SshAddress
from replicator.remote.ssh.command import run
from replicator.remote.ssh.frames import Why
from replicator.remote.ssh.process import SSH_FAILED
from replicator.remote.ssh.stderr import explain

ANSWER_WITHIN = 20.0
"""Seconds for logging in and answering."""

WHERE = (
    'if [ "$(id -u)" = 0 ]; then s=/run/replicator/agent.sock; else '
    's="$HOME/.replicator/agent.sock"; '
    'if [ -n "$XDG_RUNTIME_DIR" ]; then x="$XDG_RUNTIME_DIR/replicator/agent.sock"; '
    'if [ -S "$x" ]; then s="$x"; elif [ -S "$s" ]; then :; else s="$x"; fi; fi; fi; '
    'echo "replicator=$s"'
)
"""A script that prints the host's `address.default_socket`, or the one in the home folder if only that exists."""

WHY = (
    'p="$1"; d="$p"; until [ -z "$d" ] || [ -e "$d" ]; do d="${d%/*}"; done; '
    'if [ -S "$p" ]; then '
    'if [ -w "$p" ]; then w=unknown; '
    "if [ -r /proc/net/unix ]; then w=dead; "
    "while read -r n r o flags t s i x; do "
    'if [ "$flags" = 00010000 ] && [ "$x" -ef "$p" ]; then w=listens; fi; '
    "done </proc/net/unix; fi; "
    "else w=denied; fi; "
    'elif [ -x "${d:-/}" ]; then w=missing; else w=denied; fi; '
    'echo "replicator=$w"'
)
"""A script that prints a `Why` for the socket `$1`. In `/proc/net/unix`, listening sockets have the flag 0x10000."""


async def where(address: SshAddress) -> str | None:
    """Return the default socket of an agent of this login, or `None` if the host does not tell."""
    return await _ask(address, f"sh -c '{WHERE}'")


async def why(address: SshAddress, socket: str) -> Why:
    """Return why a socket does not answer; `UNKNOWN` if the host does not tell."""
    answer = await _ask(address, f"sh -c '{WHY}' sh {socket}")
    return Why(answer) if answer in list(Why) else Why.UNKNOWN


async def _ask(address: SshAddress, command: str) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *run(address, command), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise HostUnreachable(
            f"{address.host} did not answer within {ANSWER_WITHIN:g} s", fix="see that the host runs, and try again"
        ) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == SSH_FAILED:
        raise explain(address, err.decode(errors="replace"))
    found = re.search(r"^replicator=(.+)$", out.decode(errors="replace"), re.MULTILINE)
    return found[1] if found else None
