"""What a publication's comment says: for which stream it was made, and since when its row filters are as they are.

The comment changes in the transaction that changes the publication, so it is never of another state of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from replicator.backends.postgres.publications import Publication

_NOTE = re.compile(
    r'replicator-provider: stream "(?P<stream>[a-z0-9-]+)", claim (?P<claim>[0-9a-f]+)'
    r"(?:; filter since (?P<since>\S+) as (?P<version>[0-9a-f]+))?(?P<kept>; kept)?"
)
_PENDING = "now"


@dataclass(frozen=True, slots=True)
class PublicationNote:
    """The note of a publication that was made for a stream.

    :param claim: the word of the stream that it was made for.
    :param since: the LSN since which its row filters are as they are; `None` if that is not known.
    :param version: the state of the publication that `since` is of.
    :param kept: the stream was deleted, and its slot waits for another one of the name.
    """

    stream: str
    claim: str
    since: str | None = None
    version: str | None = None
    kept: bool = False

    def __str__(self) -> str:
        since = f"; filter since {self.since or _PENDING} as {self.version}" if self.version else ""
        return f'replicator-provider: stream "{self.stream}", claim {self.claim}{since}{"; kept" if self.kept else ""}'


def note_of(publication: Publication | None) -> PublicationNote | None:
    """Return the note of a publication; `None` if no stream made it."""
    match = _NOTE.fullmatch((publication.comment if publication else None) or "")
    if match is None:
        return None
    since = None if match["since"] == _PENDING else match["since"]
    return PublicationNote(match["stream"], match["claim"], since, match["version"], bool(match["kept"]))


def filtered_since(publication: Publication | None) -> str | None:
    """Return the LSN since which a publication's row filters are as they are now; `None` if that is not known."""
    note = note_of(publication)
    return note.since if note and publication and note.version == publication.version else None
