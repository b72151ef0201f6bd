"""What a look at one part of an installation came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """One finding.

    :param about: the part, in one word.
    :param found: what is there, as a clause.
    :param fix: what to type, one command or setting a line; `None` where all is well.
    """

    about: str
    found: str
    fix: str | None = None

    @property
    def well(self) -> bool:
        """Whether nothing has to be done."""
        return self.fix is None
