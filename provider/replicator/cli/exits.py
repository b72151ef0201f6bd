"""The exit codes of the command."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes; `--help` and docs/cli.md show their `meaning`."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        """Return a code and its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "done; for status commands and doctor: all is well"
    FAILED = (
        1,
        "an error, which is on stderr; a failed replay or stream; a wait in vain; a restored database with faults; "
        "something that doctor found",
    )
    USAGE = 2, "a wrong command line; nothing was done"
    NO_AGENT = 3, "agent status and agent dial-stdio: no agent runs"
    NO_PERMISSION = 4, "agent dial-stdio: no permission on the agent's socket"
    READER_GONE = 141, "whoever read the output closed it, as head does"
    INTERRUPTED = 130, "^C; a replay that has begun continues at the agent, and a restore leaves nothing"


def help_text() -> str:
    """Return the exit codes for `--help`."""
    return "\n".join(["\b", "Exit codes:", *(f"  {code:<3d}  {code.meaning}" for code in Exit)])
