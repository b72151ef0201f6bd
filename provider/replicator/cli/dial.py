"""`replicator agent dial-stdio`: what ssh runs on an agent's host."""

from __future__ import annotations

import sys
from pathlib import Path

from replicator.cli.exits import Exit
from replicator.remote.dial import carry, carry_many, find_socket, why
from replicator.remote.ssh.frames import Why

_EXITS = {Why.MISSING: Exit.NO_AGENT, Why.DEAD: Exit.NO_AGENT, Why.DENIED: Exit.NO_PERMISSION}


def fast(arguments: list[str]) -> None:
    """Run one of the plain command lines, which clients send, and exit; return for any other one."""
    multiplex = arguments[:1] == ["--multiplex"]
    match arguments[multiplex:]:
        case []:
            sys.exit(run(None, multiplex=multiplex))
        case ["--socket", socket]:
            sys.exit(run(Path(socket), multiplex=multiplex))


def run(socket: Path | None, *, multiplex: bool) -> Exit:
    """Connect stdin and stdout to the agent's socket until one of them ends; return the exit code."""
    path = (socket or find_socket()).absolute()
    if multiplex:
        carry_many(path)
        return Exit.DONE
    try:
        carry(path)
    except OSError as error:
        print(f"error: {_explain(error, f'unix://{path}')}", file=sys.stderr)
        return _EXITS.get(why(error), Exit.FAILED)
    return Exit.DONE


def _explain(error: OSError, address: str) -> Exception:
    from replicator.lifecycle.connections import start_hint
    from replicator.remote.connection import no_connection

    return no_connection(error, address, start_hint("litestream", address))
