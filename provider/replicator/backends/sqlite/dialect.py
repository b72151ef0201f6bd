"""The differences between the engines of this family, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Dialect:
    """The names that one engine uses.

    `kind` is the backend's name.
    `side_folder` is the folder that the engine keeps beside a database, `{name}` being the database's file name.
    `own_tables` is the prefix of the tables that the engine creates in a database.
    """

    kind: str
    binary: str
    minimum_version: tuple[int, int, int]
    already_registered: str
    already_unregistered: str
    side_folder: str
    own_tables: str

    def side_folder_of(self, database: Path) -> Path:
        """Return the folder that the engine keeps beside `database`."""
        return database.with_name(self.side_folder.format(name=database.name))

    def is_side_folder(self, folder: Path) -> bool:
        """Tell whether a folder has the name of one that the engine keeps beside a database."""
        before, _, after = self.side_folder.partition("{name}")
        return folder.name.startswith(before) and folder.name.endswith(after)

    def transactions_of(self, database: Path) -> Path:
        """Return the folder beside `database` in which the engine keeps single transactions for a while."""
        return self.side_folder_of(database) / "ltx" / "0"


LITESTREAM = Dialect(
    kind="litestream",
    binary="litestream",
    minimum_version=(0, 5, 17),
    already_registered="already_registered",
    already_unregistered="already_unregistered",
    side_folder=".{name}-litestream",
    own_tables="_litestream_",
)
