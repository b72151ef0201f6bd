"""What a look at one part of an installation came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """One finding.

    :param about: the part, in one word.
    :param found: what is there, as a clause.
    :param fix: what to type, one command or setting a line; `None` where all is well.
    :param warning: it works as it is, and will not in a later release.
    """

    about: str
    found: str
    fix: str | None = None
    warning: bool = False

    @property
    def well(self) -> bool:
        """Tell whether nothing has to be done now."""
        return self.fix is None or self.warning
