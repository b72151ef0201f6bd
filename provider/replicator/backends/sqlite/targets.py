"""The target path of a copy. No link of another user is followed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from replicator.backends.sqlite import copies
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.grants import Gate
from replicator.backends.sqlite.handles import Untrusted, settled
from replicator.backends.sqlite.locations import parse_location, source_path
from replicator.backends.sqlite.replica import FolderLocation
from replicator.errors import InvalidStream, ReplayRefused
from replicator.model import Stream


def target_path(target: str) -> Path:
    """Return the path of a target; a relative one is refused later.

    Links in its folder are resolved, unless one belongs to another user: then the path stays as written.
    """
    path = Path(target.removeprefix("sqlite://"))
    if not path.is_absolute():
        return path
    try:
        return settled(path.parent) / path.name
    except Untrusted:
        return Path(os.path.normpath(path))


def check_target(stream: str, target: str | None, *, gate: Gate, state: Path) -> Path:
    """Return the path of a copy; raise where it may not be written. Blocks on the disk.

    :param gate: the check of the policy; it also knows the streams whose databases and folders are never targets.
    :param state: the agent's folder.
    """
    if target is None:
        raise InvalidStream("a copy needs a path on the agent's host", stream=stream, property="target")
    path = target_path(target)
    if not path.is_absolute() or path.name in ("", ".."):
        raise InvalidStream("must be the absolute path of a file on the agent's host", stream=stream, property="target")
    gate.check_copy(stream, path)
    refuse_part(path, stream)
    if path.is_relative_to(state.resolve()):
        raise _refused(f"{path} is in the agent's state folder", stream, "write elsewhere")
    for other in gate.declared():
        _refuse_places_of(other, path, stream)
    copies.refuse_occupied(path, stream)
    return path


def refuse_part(path: Path, stream: str | None) -> None:
    """Raise `ReplayRefused` where SQLite takes a file of this name for a part of another database."""
    for ending in copies.PARTS:
        if path.name.endswith(ending):
            database = path.with_name(path.name.removesuffix(ending))
            raise _refused(
                f"SQLite takes a file of this name for a part of {database}", stream, "give it another ending"
            )


def refuse_folders_of_engines(path: Path, stream: str | None) -> None:
    """Raise `ReplayRefused` where a file would be removed with the folder that it is in; without a list of streams.

    That is the folder that an engine keeps beside a database, and the state folder of an agent.
    """
    for folder in path.parents:
        if LITESTREAM.is_side_folder(folder):
            raise _refused(f"{folder} is a folder of litestream", stream, "write to another folder")
        if (folder / "registry" / "agent-id").exists():
            raise _refused(f"{folder} is the state folder of an agent", stream, "write to another folder")


def _refuse_places_of(other: Stream, path: Path, stream: str) -> None:
    database = source_path(other)
    live = database.parent.resolve() / database.name
    if path == live or path.is_relative_to(LITESTREAM.side_folder_of(live)):
        raise _refused(f"{path} belongs to the live database {live}", stream, "write elsewhere")
    with suppress(InvalidStream):  # a record may hold what this release refuses
        place = parse_location(other)
        if isinstance(place, FolderLocation) and path.is_relative_to(place.folder.resolve()):
            raise _refused(f"{path} is in the replica of stream {other.name!r}", stream, "write elsewhere")


def _refused(why: str, stream: str | None, fix: str) -> ReplayRefused:
    return ReplayRefused(why, stream=stream, property="target", fix=fix)
