"""The home folder of this user, below which the defaults are. A user without an entry in passwd may have none."""

from __future__ import annotations

from pathlib import Path

from replicator.errors import InvalidConfig


def home(what: str, instead: str) -> Path:
    """Return the home folder; raise `InvalidConfig` where there is none.

    :param what: what is looked for below it, for the error.
    :param instead: what says the place without it, such as a variable or an option.
    """
    if (found := known_home()) is None:
        raise InvalidConfig(
            f"this user has no home folder, below which {what} would be: HOME is not set, and passwd has no entry",
            fix=f"set {instead}, or HOME",
        )
    return found


def known_home() -> Path | None:
    """Return the home folder; `None` where there is none."""
    try:
        return Path.home()
    except RuntimeError:
        return None
