"""Sessions with the databases of streams: one for each database and role, opened on first use.

Sessions are for questions and for objects that the provider makes. A worker connects by itself.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row

from replicator import authref
from replicator.authref import Redactor
from replicator.backends.postgres.endpoint import PostgresEndpoint
from replicator.errors import (
    DestinationDenied,
    DestinationMissing,
    EngineDenied,
    EngineRefused,
    EngineUnavailable,
    ReplicatorError,
    SourceDenied,
    SourceLimit,
    SourceMissing,
)

PATIENCE = 5
"""Seconds that a connection may take, and that a statement waits for a lock."""
_STATEMENT = 30
"""Seconds that a question may take."""

Row = dict[str, Any]


class Session:
    """A connection of one role with one database. Statements run one at a time, each in a transaction of its own."""

    def __init__(self, at: PostgresEndpoint, environ: Mapping[str, str], redactor: Redactor) -> None:
        self.at = at
        self._environ = environ
        self._redactor = redactor
        self._connection: AsyncConnection[DictRow] | None = None
        self._turn = asyncio.Lock()

    async def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Return the rows of a query. A connection that has ended is opened again, once.

        :raises EngineUnavailable: the database does not answer.
        :raises SourceDenied: the role may not log in, or may not read this; `DestinationDenied` at that end.
        """
        async with self._turn:
            reused = not self._is_broken()
            try:
                return await self._rows(query, parameters)
            except psycopg.OperationalError as error:
                if not reused or not self._is_broken():
                    raise self.error(error) from None
            except psycopg.Error as error:
                raise self.error(error) from None
            try:
                return await self._rows(query, parameters)
            except psycopg.Error as error:
                raise self.error(error) from None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """Open a connection for one transaction, which is rolled back if the block raises.

        Raise the errors of `rows` for those of the database.
        """
        try:
            async with await self._open() as connection:
                await connection.set_autocommit(False)
                yield connection
        except psycopg.Error as error:
            raise self.error(error) from None

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """Open a connection for statements that may last, each in a transaction of its own."""
        try:
            connection = await self._open(statement=0)
        except psycopg.Error as error:
            raise self.error(error) from None
        try:
            yield connection
        finally:
            await connection.close()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    def error(self, error: psycopg.Error) -> ReplicatorError:
        """Return the error for what the database or its driver reports."""
        told = self._redactor(_told(error))
        uri, login = f"{self.at.end}.uri", self.at.ref_property
        is_source = self.at.end == "source"
        denied = SourceDenied if is_source else DestinationDenied
        missing = SourceMissing if is_source else DestinationMissing
        where = f"the database {self.at.database} at {self.at.server}"
        kind = _kind_of(error)
        if issubclass(kind, errors.InvalidAuthorizationSpecification):
            return denied(
                f"{where} refuses the login: {told}",
                property=login if self.at.ref else uri,
                fix="check the role and its password, and that pg_hba.conf lets this host in",
            )
        if issubclass(kind, errors.UndefinedTable):
            return missing(f"{where}: {told}", property="include", fix="create it, or correct include")
        if issubclass(kind, errors.InvalidCatalogName):
            return missing(f"{where} does not exist: {told}", property=uri, fix="create it, or correct the URI")
        if isinstance(error, errors.InsufficientPrivilege):
            return denied(f"{where} refuses it: {told}", property=login, fix="grant what docs/debezium.md lists")
        if issubclass(kind, (errors.TooManyConnections, errors.ConfigurationLimitExceeded)):
            return SourceLimit(
                f"{where} has no place left: {told}",
                property=uri,
                fix="raise the limit that the text names, or free a place",
            )
        if error.sqlstate is None and _TLS.search(told):
            return EngineDenied(
                f"{where} and this host do not agree on TLS: {told}",
                property=uri,
                fix="correct sslmode and sslrootcert of the URI, or let the server speak TLS",
            )
        if issubclass(kind, psycopg.OperationalError) and _is_away(error):
            return EngineUnavailable(
                f"{where} does not answer: {told}",
                property=uri,
                fix="see that it runs, and that this host reaches it",
            )
        return EngineRefused(f"{where}: {told}", property=uri)

    async def _rows(self, query: str, parameters: Mapping[str, Any] | None) -> list[Row]:
        if self._connection is None or self._connection.closed:
            self._connection = await self._open()
        cursor = await self._connection.execute(query.encode(), parameters)
        return await cursor.fetchall() if cursor.description else []

    def _is_broken(self) -> bool:
        return self._connection is None or self._connection.closed

    async def _open(self, statement: int = _STATEMENT) -> AsyncConnection[DictRow]:
        login = await self._login()
        parameters = {
            "host": self.at.host,
            "port": str(self.at.port),
            "dbname": self.at.database,
            "connect_timeout": str(PATIENCE),
            "application_name": "replicator",
            "options": f"-c statement_timeout={statement}s -c lock_timeout={PATIENCE}s -c search_path=pg_catalog",
            # Left out, libpq reads them from its environment variables and files, which are another person's.
            "password": "",
            "passfile": "/nonexistent",  # libpq warns of one that is no plain file
            "sslmode": self.at.sslmode or "prefer",
            **login,
            **({"sslrootcert": self.at.root_cert} if self.at.root_cert else {}),
        }
        return await AsyncConnection.connect(
            make_conninfo(**parameters),
            autocommit=True,
            row_factory=dict_row,
            prepare_threshold=None,  # a pooler between may not keep prepared statements
        )

    async def _login(self) -> dict[str, str]:
        if self.at.ref is None:
            return {"user": self.at.user or ""}
        needed = self.at.needed
        try:
            found = await asyncio.to_thread(
                authref.resolve, self.at.ref, needed, required=needed, environ=self._environ
            )
        except ReplicatorError as error:
            error.property = self.at.ref_property
            raise
        self._redactor.add(found["password"])
        return {"user": self.at.user or found["username"], "password": found["password"]}


class Sessions:
    """The sessions of one process, by database and role.

    :param environ: the environment for `env://` references.
    :param redactor: receives every secret that is read.
    """

    def __init__(self, environ: Mapping[str, str], redactor: Redactor) -> None:
        self._environ = environ
        self._redactor = redactor
        self._open: dict[PostgresEndpoint, Session] = {}

    def at(self, endpoint: PostgresEndpoint) -> Session:
        """Return the session of a database and role."""
        if endpoint not in self._open:
            self._open[endpoint] = Session(endpoint, self._environ, self._redactor)
        return self._open[endpoint]

    async def role(self, endpoint: PostgresEndpoint) -> str:
        """Return the name of the role that a login uses; raise `SecretNotFound` if the secret has none."""
        if endpoint.user is not None:
            return endpoint.user
        rows = await self.at(endpoint).rows("SELECT current_user AS name")
        return str(rows[0]["name"])

    async def aclose(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(session.aclose() for session in self._open.values()))


_LOGIN_ERRORS: tuple[tuple[str, type[psycopg.Error]], ...] = (
    ("password authentication failed", errors.InvalidAuthorizationSpecification),
    ("no pg_hba.conf entry", errors.InvalidAuthorizationSpecification),
    ("no password supplied", errors.InvalidAuthorizationSpecification),
    ("is not permitted to log in", errors.InvalidAuthorizationSpecification),
    ("role ", errors.InvalidAuthorizationSpecification),
    ("database ", errors.InvalidCatalogName),
    ("too many c", errors.TooManyConnections),
    ("remaining connection slots", errors.TooManyConnections),
)
"""By their English text, since libpq gives no SQLSTATE for a connection that fails (libpq 17)."""


_TLS = re.compile(r"\bSSL\b|certificate")


def _told(error: psycopg.Error) -> str:
    """Return what the server says, with its detail; or the first attempt's reason where no connection comes about."""
    if error.diag.message_primary:
        return ": ".join(filter(None, (error.diag.message_primary, error.diag.message_detail)))
    return str(error).strip().splitlines()[0].removeprefix("connection failed: ")


def _kind_of(error: psycopg.Error) -> type[psycopg.Error]:
    """Return the class of an error; for a connection that fails, by its text."""
    if error.sqlstate is None and ("FATAL:" in str(error) or "no password supplied" in str(error)):
        told = str(error).rpartition("FATAL:")[2].strip()
        return next((kind for text, kind in _LOGIN_ERRORS if text in told), type(error))
    return type(error)


def _is_away(error: psycopg.Error) -> bool:
    """Tell whether the server did not answer, or is starting or stopping."""
    return error.sqlstate is None or error.sqlstate[:2] in ("08", "57", "58")
