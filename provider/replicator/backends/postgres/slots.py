"""Logical replication slots. A slot keeps the WAL that its consumer has not confirmed, until it is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import errors

from replicator.backends.postgres.lsn import read_lsn
from replicator.backends.postgres.session import Row, Session
from replicator.errors import SourcePosition, SourceSetup, WaitTimeout
from replicator.model import format_size
from replicator.progress import tell

PLUGIN = "pgoutput"
WORD = 8
"""Characters at the end of a slot's name by which `look` finds several."""
_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Slot:
    """A logical slot.

    :param active_pid: the process that reads from it; `None` if nothing does.
    :param confirmed: what the consumer has confirmed, in bytes; transactions that ended before it are not sent again.
    :param restart: where decoding would begin, in bytes; never after the position of a consumer that follows the slot.
    :param held: bytes of WAL that the server keeps for it; `None` if the server does not tell.
    :param wal_status: `reserved`, `extended`, `unreserved` or `lost`, as PostgreSQL has them.
    :param left: bytes that can still be written before the slot may lose WAL; `None` without a limit.
    :param end: where the server's WAL ended, in bytes.
    :param now: the server's clock at that moment.
    """

    name: str
    plugin: str
    database: str
    active_pid: int | None
    confirmed: int | None
    restart: int | None
    held: int | None
    wal_status: str | None
    left: int | None
    end: int
    now: datetime

    @property
    def is_lost(self) -> bool:
        """Tell whether WAL that it needs was removed."""
        return self.wal_status == "lost"

    @property
    def is_endangered(self) -> bool:
        """Tell whether the server is about to remove WAL that it needs."""
        return self.wal_status == "unreserved"

    @property
    def room(self) -> str:
        """Return how much can still be written before it may lose WAL, as the end of a text; empty without a limit."""
        if self.left is None:
            return ""
        return f"; {format_size(max(0, self.left))} are left before the server removes what it needs"

    @property
    def holder(self) -> str:
        """Return who has it, as text for people."""
        active = f"active for process {self.active_pid}" if self.active_pid else "not active"
        return f"a slot of {self.plugin} in the database {self.database}, {active}"


END = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END"

_SLOTS = f"""
SELECT s.slot_name AS name, s.plugin, s.database, s.active_pid, s.confirmed_flush_lsn::text AS confirmed,
       s.restart_lsn::text AS restart,
       pg_wal_lsn_diff(w.at, s.restart_lsn)::bigint AS held, s.wal_status, s.safe_wal_size AS left, w.at::text AS at,
       clock_timestamp() AS now
FROM pg_replication_slots s, (SELECT {END} AS at) w
WHERE s.slot_type = 'logical'
  AND (s.slot_name = ANY(%(names)s) OR right(s.slot_name, {WORD}) = ANY(%(words)s))
"""  # noqa: S608 - no text of a person is in it


async def look(session: Session, names: Collection[str], words: Collection[str] = ()) -> dict[str, Slot]:
    """Return the slots that exist, in one question. Slots of every database of the server count.

    :param names: of slots.
    :param words: the last `WORD` characters of the names of more slots.
    """
    rows = await session.rows(_SLOTS, {"names": list(names), "words": list(words)})
    return {row["name"]: _slot(row) for row in rows}


async def create(session: Session, name: str) -> Slot:
    """Make a slot that begins now.

    PostgreSQL waits for every transaction that writes now. A cancelled wait leaves no slot.

    :raises SourceSetup: a slot of the name exists.
    """
    tell(f"making the replication slot {name}, after the transactions that write now")
    async with session.alone() as connection:
        try:
            await connection.execute("SELECT pg_create_logical_replication_slot(%s, %s)", (name, PLUGIN))
        except errors.DuplicateObject:
            raise in_use((await look(session, [name]))[name]) from None
        except psycopg.Error as error:
            raise session.error(error) from None
    return (await look(session, [name]))[name]


async def copy(session: Session, name: str, to: str) -> Slot:
    """Make a slot that stands where another one does, which may be active.

    :raises SourceSetup: a slot of the name exists.
    :raises SourcePosition: the other slot does not exist, or has lost WAL.
    """
    async with session.alone() as connection:
        try:
            await connection.execute("SELECT pg_copy_logical_replication_slot(%s, %s, false)", (name, to))
        except errors.DuplicateObject:
            raise in_use((await look(session, [to]))[to]) from None
        except (errors.UndefinedObject, errors.ObjectNotInPrerequisiteState) as error:
            raise SourcePosition(
                f"the replication slot {name} cannot be copied: {error.diag.message_primary}",
                property="bookmarks",
                fix="see what replicator status says of the slot; one that has lost WAL cannot be copied",
            ) from None
        except psycopg.Error as error:
            raise session.error(error) from None
    return (await look(session, [to]))[to]


_END_OWN = """
SELECT pg_terminate_backend(s.active_pid) FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = %s AND a.usename = current_user
"""


async def drop(session: Session, name: str, within: float) -> None:
    """Drop a slot after its consumer has left. A missing one is dropped already.

    A consumer that has not left after half of the time is ended if it has the role of the session: it is a task that
    outlives its connector. Another role's is not.

    :raises WaitTimeout: a process still reads from it after `within` seconds.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with session.alone() as connection:
        while True:
            try:
                await connection.execute("SELECT pg_drop_replication_slot(%s)", (name,))
            except errors.UndefinedObject:
                return
            except errors.ObjectInUse:
                found = (await look(session, [name])).get(name)
                if loop.time() - began > within / 2:
                    await _end_own(session, connection, name)
                if found is not None and loop.time() - began > within:
                    raise WaitTimeout(
                        f"the replication slot {name} is still read by process {found.active_pid} after {within:g} s",
                        fix=f"end that process: SELECT pg_terminate_backend({found.active_pid})",
                    ) from None
                tell(f"waiting for the consumer of the replication slot {name} to leave")
                await asyncio.sleep(_EVERY)
            except psycopg.Error as error:
                raise session.error(error) from None
            else:
                return


async def _end_own(session: Session, connection: psycopg.AsyncConnection[Row], name: str) -> None:
    try:
        await connection.execute(_END_OWN, (name,))
    except psycopg.Error as error:
        raise session.error(error) from None


def in_use(slot: Slot) -> SourceSetup:
    """Return the error for a name that another slot has."""
    return SourceSetup(
        f"the server has {slot.holder}, with the name {slot.name}, and this stream did not make it",
        property="name",
        fix="give the stream another name; or, if nothing needs the slot: "
        f"SELECT pg_drop_replication_slot('{slot.name}')",
    )


def _slot(row: Row) -> Slot:
    return Slot(
        name=row["name"],
        plugin=row["plugin"],
        database=row["database"],
        active_pid=row["active_pid"],
        confirmed=row["confirmed"] and read_lsn(row["confirmed"]),
        restart=row["restart"] and read_lsn(row["restart"]),
        held=row["held"],
        wal_status=row["wal_status"],
        left=row["left"],
        end=read_lsn(row["at"]),
        now=row["now"],
    )
