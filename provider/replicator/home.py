"""The home folder of this user, which contains the defaults. A user without an entry in passwd may have none."""

from __future__ import annotations

from pathlib import Path

from replicator.errors import InvalidConfig


def home(what: str, instead: str) -> Path:
    """Return the home folder; raise `InvalidConfig` without one.

    :param what: what is needed from it, for the error.
    :param instead: what sets the path instead, such as a variable or an option.
    """
    if (found := known_home()) is None:
        raise InvalidConfig(
            f"this user has no home folder, below which {what} would be: HOME is not set, and passwd has no entry",
            fix=f"set {instead}, or HOME",
        )
    return found


def known_home() -> Path | None:
    """Return the home folder; `None` without one."""
    try:
        return Path.home()
    except RuntimeError:
        return None
