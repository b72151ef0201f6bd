"""The result of the check of one part of an installation."""

from __future__ import annotations

from dataclasses import dataclass

from replicator import __version__

WHEEL = f"replicator_provider-{__version__}-py3-none-any.whl"
"""The file to install. No registry has the package, so its name alone installs nothing of ours."""


@dataclass(frozen=True, slots=True)
class Look:
    """One finding.

    :param about: the part, in one word.
    :param found: the result, as a clause.
    :param fix: what to type, one command or setting a line; `None` if nothing is wrong.
    :param warning: it works now, but will not in a later release.
    """

    about: str
    found: str
    fix: str | None = None
    warning: bool = False

    @property
    def well(self) -> bool:
        """Tell whether no action is needed now."""
        return self.fix is None or self.warning
