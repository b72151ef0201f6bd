"""A PostgreSQL database as an endpoint names it: `postgres://user@host:5432/database?sslmode=require`.

The parameters are libpq's. None of them is secret; the password is what `authRef` names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from replicator import authref
from replicator.authref import AuthRef
from replicator.errors import InvalidStream, ReplicatorError
from replicator.model import End, Endpoint

PORT = 5432
SSL_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
_PARAMETERS = ("sslmode", "sslrootcert")
_EXAMPLE = "write postgres://user@host:5432/database?sslmode=require"


@dataclass(frozen=True, slots=True)
class PostgresEndpoint:
    """The database at one end.

    :param end: the end's property, the prefix of every property that an error names.
    :param user: the role in the URI; `None` if the secret names it.
    :param sslmode: as libpq has it, and the driver of Debezium too; `None` for their default, which is `prefer`.
    :param root_cert: the authority's certificates as a PEM file, on the host that connects.
    :param ref: the password, or the user name and the password.
    :param ref_property: the property that names the secret.
    """

    end: End
    host: str
    port: int
    database: str
    user: str | None
    sslmode: str | None = None
    root_cert: str | None = None
    ref: AuthRef | None = None
    ref_property: str = "source.authRef"

    @property
    def server(self) -> str:
        """Return host and port, as text for people."""
        return f"{self.host}:{self.port}"

    @property
    def uri(self) -> str:
        """Return the canonical spelling of the database, its role and its connection."""
        parameters = {"sslmode": self.sslmode, "sslrootcert": self.root_cert}
        query = urlencode({key: value for key, value in parameters.items() if value}, safe="/")
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgres://{user}{host}:{self.port}/{quote(self.database, safe='')}" + (f"?{query}" if query else "")

    @property
    def needed(self) -> tuple[str, ...]:
        """Return the fields that the secret must have."""
        if self.ref is None:
            return ()
        return ("password",) if self.user else ("username", "password")


@lru_cache(maxsize=4096)  # a preview compares each stream with every other one
def postgres_endpoint(endpoint: Endpoint, end: End, *, admin: bool = False) -> PostgresEndpoint:
    """Read an endpoint; raise `InvalidStream` or `SecretSyntax` with the property.

    :param admin: use `adminAuthRef` if it is set. A user name in the URI is then not that role's.
    """
    parts = urlsplit(endpoint.uri)
    try:
        port = parts.port or PORT
    except ValueError:
        raise _invalid(end, "names a port that is no number below 65536", _EXAMPLE) from None
    if "," in parts.netloc:
        raise _invalid(end, "names several hosts, and a slot is on one of them", _EXAMPLE)
    if not parts.hostname:
        raise _invalid(end, "names no host", _EXAMPLE)
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database:
        raise _invalid(end, "names no database", _EXAMPLE)
    if parts.fragment:
        raise _invalid(end, "has a part after #", _EXAMPLE)
    given = _parameters(parts.query, end)
    is_admin = admin and endpoint.admin_auth_ref is not None
    text = endpoint.admin_auth_ref if is_admin else endpoint.auth_ref
    ref_property = f"{end}.adminAuthRef" if is_admin else f"{end}.authRef"
    ref = _ref(text, ref_property) if text else None
    user = unquote(parts.username) if parts.username else None
    if is_admin and ref is not None and ref.key is None:
        user = None
    if ref is not None and ref.key is not None and user is None:
        raise InvalidStream(
            "names one value, which is a password, and the URI names no role",
            property=ref_property,
            fix="write the role into the URI, postgres://role@host/database; or name a bundle of both, env://PG_ORDERS_*",
        )
    if ref is None and user is None:
        raise InvalidStream(
            "names no role, and nothing names credentials",
            property=f"{end}.uri",
            fix=f"{_EXAMPLE}, and its password with authRef: env://PG_PASSWORD",
        )
    return PostgresEndpoint(
        end=end,
        host=parts.hostname,
        port=port,
        database=database,
        user=user,
        sslmode=given.get("sslmode"),
        root_cert=given.get("sslrootcert"),
        ref=ref,
        ref_property=ref_property,
    )


def _parameters(query: str, end: End) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    if unknown := sorted(given.keys() - set(_PARAMETERS)):
        raise _invalid(end, f"has the parameter {unknown[0]}", f"it takes {', '.join(_PARAMETERS)}")
    if len(given) < len(pairs):
        raise _invalid(end, "has a parameter twice")
    mode, root_cert = given.get("sslmode"), given.get("sslrootcert")
    if mode is not None and mode not in SSL_MODES:
        raise _invalid(end, "sslmode has an unknown value", f"it is one of {', '.join(SSL_MODES)}")
    if root_cert is not None and not re.fullmatch(r"/[^\"\\$\n]+", root_cert):
        raise _invalid(end, "sslrootcert is no absolute path")
    if root_cert is None and mode in ("verify-ca", "verify-full"):
        raise _invalid(
            end,
            f"sslmode is {mode}, and nothing names the authority's certificate",
            "add sslrootcert=/path/of/ca.pem, a path on the workers and where Pulumi runs",
        )
    if root_cert is not None and mode not in ("verify-ca", "verify-full"):
        raise _invalid(end, "has sslrootcert, and sslmode does not verify the server", "write sslmode=verify-full")
    return given


def _ref(text: str, property: str) -> AuthRef:
    try:
        return authref.parse(text)
    except ReplicatorError as error:
        error.property = property
        raise


def _invalid(end: End, problem: str, fix: str | None = None) -> InvalidStream:
    return InvalidStream(problem, property=f"{end}.uri", fix=fix)
