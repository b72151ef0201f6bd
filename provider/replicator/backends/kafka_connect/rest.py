"""Calls of a Kafka Connect cluster's REST API: the choice of a worker, retries, and errors.

A worker that starts or stops answers 404 on every path, in HTML or with no body. One that cannot reach its leader
answers 500, and so does a request about a connector while a rebalance is due. So a 404 refers to the connector only if
it is JSON with an `error_code`, and a 5xx never does. A follower forwards most changes to the host that its leader
advertises. If it cannot, it answers 500 too, and another worker may be able to. (Seen on Kafka 4.3.)
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from replicator.backoff import Backoff
from replicator.errors import EngineDenied, EngineRefused, EngineUnavailable, InvalidConfig, ReplicatorError
from replicator.progress import tell

T = TypeVar("T")

_ANSWER_WITHIN = 30.0  # seconds until the next byte; a worker whose peer was killed took 12
_WHOLE_WITHIN = 60.0  # seconds for a complete answer
_BODY_LIMIT = 64 * 1024 * 1024  # bytes of an uncompressed answer; a listing has about 1 kB per connector
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip"}
_UNPACKED = frozenset({"gzip", "deflate"})
_CONNECT_WITHIN = 5.0
_FAULTS_FOR = 8.0  # seconds for which a 500 with a text is retried; a cluster needs 2 to replace its leader
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_TEXT_LIMIT = 500
_NOT_FORWARDED = "IO Error trying to forward REST request"  # prefix of such a 500's text
_UNKNOWN_HOST = re.compile(r"UnknownHostException: ([^\s:]+)")

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, StopIteration, OverflowError, RecursionError)
"""The exceptions of reading an answer that does not have Connect's form."""

_patient: ContextVar[bool] = ContextVar("_patient", default=False)


@contextmanager
def patient() -> Iterator[None]:
    """Make calls in this block wait for the end of each rebalance, without a time limit of their own."""
    before = _patient.set(True)
    try:
        yield
    finally:
        _patient.reset(before)


class Repeat(Enum):
    """When to retry a call after no answer, from a worker that is not ready, or during a rebalance.

    A rebalance is a 409, or a 500 with such a text.
    """

    SAFE = "safe"
    """Always; for some seconds also after a 500 with the engine's text."""
    CHECKED = "checked"
    """Always; a 500 with the engine's text is the answer to the request."""
    NEVER = "never"
    """Never, unless no connection was made. The caller gets every answer as it is, and reads what was done."""


@dataclass(frozen=True, slots=True)
class Access:
    """The addresses of one cluster's workers, and the credentials for them.

    :param urls: one or several workers, `http://host:8083`; if one does not answer, the next one is used.
    :param ca_file: PEM; the default is the authorities that the system trusts.
    :param certificate_file: PEM, the client certificate; `key_file` is its key, if that is in another file.
    """

    urls: tuple[str, ...]
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("a Connect cluster has at least one URL")

    def __repr__(self) -> str:
        return f"Access({', '.join(map(_shown, self.urls))})"


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's answer.

    :param body: its JSON; None without JSON.
    :param worker: the URL that answered.
    """

    status: int
    body: Any = field(repr=False)  # a validation's answer holds the values of placeholders
    worker: str

    @property
    def done(self) -> bool:
        """Tell whether the request succeeded."""
        return httpx.codes.is_success(self.status)

    @property
    def spoken(self) -> bool:
        """Tell whether the error comes from Connect itself, not from a worker that starts or stops, or a proxy."""
        return isinstance(self.body, dict) and "error_code" in self.body

    @property
    def rebalancing(self) -> bool:
        """Tell whether a rebalance must end first; a change of offsets reports it as a 500. (Seen on Kafka 4.3.)"""
        if self.status == httpx.codes.CONFLICT:
            return True
        return httpx.codes.is_server_error(self.status) and "rebalance is expected" in self.text

    @property
    def unforwarded(self) -> bool:
        """Tell whether the worker could not forward the call to its cluster's leader."""
        return httpx.codes.is_server_error(self.status) and self.text.startswith(_NOT_FORWARDED)

    @property
    def missing(self) -> bool:
        """Tell whether Connect says that the object does not exist."""
        return self.status == httpx.codes.NOT_FOUND and self.spoken

    @property
    def text(self) -> str:
        """Return Connect's error message."""
        return str(self.body["message"]) if self.spoken and self.body.get("message") else ""


class Turns:
    """The pauses between attempts, each longer than the one before, until the time is up."""

    def __init__(self, within: float) -> None:
        self._start = time.monotonic()
        self._within = within
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)

    async def again(self, within: float = math.inf) -> bool:
        """Wait briefly; return False at once if another attempt would start after `within` seconds."""
        if time.monotonic() + self._backoff.delay > self._start + min(self._within, within):
            return False
        await asyncio.sleep(self._backoff.grow())
        return True

    async def again_after_fault(self) -> bool:
        """Do the same after a 500, which may refer to the request itself."""
        return await self.again(_FAULTS_FOR)


def path_of(*segments: str) -> str:
    """Return the path of an object, with any characters in its name."""
    # Dots are encoded too, since `.` and `..` would be path segments.
    return "".join("/" + quote(segment, safe="").replace(".", "%2E") for segment in segments)


class ConnectRest:
    """The workers of one Connect cluster. Belongs to one event loop.

    :param redact: removes secrets from the engine's text.
    """

    def __init__(self, access: Access, *, redact: Callable[[str], str]) -> None:
        self._access = access
        self.redact = redact
        self._at = 0
        self._opened: httpx.AsyncClient | None = None

    @property
    def address(self) -> str:
        """Return the workers' URLs, for people."""
        return ", ".join(_shown(url) for url in self._access.urls)

    async def call(
        self,
        verb: str,
        path: str,
        *,
        body: object = None,
        params: Any = None,
        repeat: Repeat,
        patience: float,
    ) -> Answer:
        """Return a success, or a 404 of Connect itself; with `Repeat.NEVER`, any other answer but 401 and 403 too.

        :param path: a result of `path_of`.
        :param patience: seconds after the start within which another attempt may start.
        :raises EngineUnavailable: no worker answered, none was ready, or a rebalance did not end.
        :raises EngineDenied: credentials or certificates are not accepted.
        :raises EngineRefused: Connect rejects the request, or fails.
        """
        turns, attempts = Turns(patience), 0
        rebalance = Turns(math.inf)
        while True:
            attempts += 1
            faulty = False
            try:
                answer = await self._send(verb, path, body, params)
            except (EngineUnavailable, EngineRefused) as unanswered:
                if repeat is Repeat.NEVER:
                    raise
                faulty = isinstance(unanswered, EngineRefused)
                if faulty and attempts < len(self._access.urls):
                    continue
                if faulty:
                    raise
                error: ReplicatorError = unanswered
            else:
                if answer.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                    raise self._denied(answer)
                if answer.done or answer.missing or repeat is Repeat.NEVER:
                    return answer
                error = self.error(answer)
                if not _may_pass(answer, repeat):
                    raise error
                if answer.rebalancing and await self.waited(rebalance):
                    turns, attempts = Turns(patience), 0
                    continue
                faulty = answer.spoken and httpx.codes.is_server_error(answer.status) and not _passes(answer)
            more = await (turns.again_after_fault() if faulty else turns.again())
            # A worker that hangs uses up the time, but the next one may still answer.
            if not more and (faulty or attempts >= len(self._access.urls)):
                raise error

    async def waited(self, rebalance: Turns) -> bool:
        """Wait briefly for the end of a rebalance; return False at once outside of `patient`."""
        if not _patient.get():
            return False
        tell(f"waiting for a rebalance of the Connect cluster at {self.address} to end")
        return await rebalance.again()

    def error(self, answer: Answer) -> ReplicatorError:
        """Return the error for an answer that is not a success, from whatever server."""
        told = f": {self.quote(answer.text)}" if answer.text else ""
        if answer.status == httpx.codes.CONFLICT:
            return EngineUnavailable(
                f"Kafka Connect at {_shown(answer.worker)} is busy{told}",
                fix="try again; where a rebalance does not end, look at the workers",
            )
        if answer.unforwarded:
            return self._unforwarded(answer)
        if not answer.spoken and (answer.status == httpx.codes.NOT_FOUND or httpx.codes.is_server_error(answer.status)):
            return EngineUnavailable(
                f"Kafka Connect at {_shown(answer.worker)} is not ready (HTTP {answer.status}); "
                "that says nothing about the stream",
                fix="wait until the worker has started; if it stays so, check the address, and read the worker's log",
            )
        if not answer.spoken:
            return self._stranger(answer.worker, f"HTTP {answer.status}")
        return EngineRefused(f"Kafka Connect {'says' if told else 'gives no reason'}{told} (HTTP {answer.status})")

    def quote(self, text: str) -> str:
        """Return the engine's text on one line, without secrets."""
        line = " ".join(self.redact(text).split())
        return line if len(line) <= _TEXT_LIMIT else f"{line[:_TEXT_LIMIT]}…"

    def read(self, answer: Answer, shape: Callable[[Any], T]) -> T:
        """Return the body as `shape` parses it.

        :raises EngineRefused: the body does not have Connect's form.
        """
        try:
            return shape(answer.body)
        except MALFORMED as error:
            raise self._stranger(answer.worker, f"HTTP {answer.status}") from error

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.aclose()

    async def _send(self, verb: str, path: str, body: object, params: Any) -> Answer:
        """Make one attempt, at the worker that answered last, or at another one if the connection fails.

        :raises EngineRefused: the answer is not from Kafka Connect.
        """
        for _ in self._access.urls:
            worker = self._access.urls[self._at]
            try:
                async with asyncio.timeout(_WHOLE_WITHIN):
                    status, found = await self._exchange(verb, worker.rstrip("/") + path, body, params)
            except _Garbled as error:
                self._distrust(worker)
                raise self._stranger(worker, str(error)) from error
            except TimeoutError as error:
                self._distrust(worker)
                raise EngineUnavailable(
                    f"Kafka Connect at {_shown(worker)} did not end its answer within {_WHOLE_WITHIN:g} s; that says "
                    "nothing about the stream",
                    fix="look at the load of that worker, and at what is between it and this host",
                ) from error
            except (httpx.RequestError, ssl.SSLError) as error:  # httpx lets an alert after the handshake through
                self._distrust(worker)
                if any(_is_refusal(cause) for cause in _causes(error)):
                    raise self._untrusted(worker, error) from error
                failure = error
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    continue
                break
            answer = Answer(status, found, worker)
            if not (answer.done or answer.spoken) or answer.unforwarded:
                self._distrust(worker)
            return answer
        told = self.quote(str(failure)) or type(failure).__name__
        raise EngineUnavailable(
            f"Kafka Connect at {self.address} did not answer ({told}); that says nothing about the stream",
            fix="check the address, and that a worker runs there; then try again",
        ) from failure

    async def _exchange(self, verb: str, url: str, body: object, params: Any) -> tuple[int, Any]:
        """Return the status and the JSON of an answer; `None` without JSON."""
        async with self._client().stream(verb, url, json=body, params=params, headers=_HEADERS) as reply:
            text = await _read_body(reply)
        try:
            return reply.status_code, json.loads(text)
        except (ValueError, RecursionError):
            if text and reply.is_success:
                raise _Garbled(f"HTTP {reply.status_code}, and no JSON") from None
            return reply.status_code, None

    def _distrust(self, worker: str) -> None:
        """Make the next attempt use the next worker."""
        if self._access.urls[self._at] == worker:
            self._at = (self._at + 1) % len(self._access.urls)

    def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            access = self._access
            self._opened = httpx.AsyncClient(
                auth=None if access.username is None else (access.username, access.password or ""),
                verify=_tls(access),
                timeout=httpx.Timeout(_ANSWER_WITHIN, connect=_CONNECT_WITHIN, pool=None),
            )
        return self._opened

    def _stranger(self, worker: str, how: str) -> EngineRefused:
        return EngineRefused(
            f"what answers at {_shown(worker)} does not answer as Kafka Connect does ({how})",
            fix="give the address of a Connect worker's REST interface",
        )

    def _unforwarded(self, answer: Answer) -> EngineUnavailable:
        unknown = _UNKNOWN_HOST.search(answer.text)
        if unknown is not None:
            fix = (
                f"the host {unknown[1]} does not resolve there: set rest.advertised.host.name of the leader to a name "
                "that each worker resolves; or add the URL of that worker to address, since it is asked next"
            )
        else:
            fix = "let the workers reach each other at their rest.advertised.host.name and rest.advertised.port"
        return EngineUnavailable(
            f"Kafka Connect at {_shown(answer.worker)} does not reach the leader of its cluster: "
            f"{self.quote(answer.text)} (HTTP {answer.status})",
            fix=fix,
        )

    def _denied(self, answer: Answer) -> EngineDenied:
        who = "without credentials" if self._access.username is None else "with these credentials"
        return EngineDenied(
            f"Kafka Connect at {_shown(answer.worker)} refuses the call {who} (HTTP {answer.status})",
            fix="check the user name and the password for the REST interface of Kafka Connect",
        )

    def _untrusted(self, worker: str, error: Exception) -> EngineDenied:
        said = re.sub(r" \(_ssl\.c:\d+\)", "", self.quote(str(error)))  # a location in CPython's source
        return EngineDenied(
            f"no TLS connection to Kafka Connect at {_shown(worker)}: {said}",
            fix="check the CA file against the worker's certificate, and our certificate against what the worker asks",
        )


def _passes(answer: Answer) -> bool:
    """Tell whether an error with a text is about the workers, not about the request."""
    return answer.rebalancing or answer.unforwarded


def _may_pass(answer: Answer, repeat: Repeat) -> bool:
    if _passes(answer):
        return True
    if httpx.codes.is_server_error(answer.status):
        return repeat is Repeat.SAFE or not answer.spoken
    return answer.status == httpx.codes.NOT_FOUND


class _Garbled(Exception):
    """Why an answer is not from Kafka Connect."""


async def _read_body(reply: httpx.Response) -> bytes:
    """Return the uncompressed body.

    httpx would decompress each piece in full, which lets 64 kB of an answer become 64 MB of memory.
    """
    encoding = reply.headers.get("Content-Encoding", "identity").strip().lower()
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32) if encoding in _UNPACKED else None
    if unpacker is None and encoding != "identity":
        raise _Garbled(f"HTTP {reply.status_code}, Content-Encoding {encoding[:40]!r}")
    found = bytearray()
    try:
        async for piece in reply.aiter_raw():
            found += unpacker.decompress(piece, _BODY_LIMIT + 1 - len(found)) if unpacker else piece
            if len(found) > _BODY_LIMIT:
                raise _Garbled(f"HTTP {reply.status_code}, and more than {_BODY_LIMIT >> 20} MiB")
    except zlib.error:
        raise _Garbled(f"HTTP {reply.status_code}, and no {encoding}") from None
    return bytes(found)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_refusal(error: BaseException) -> bool:
    """Tell whether one side of a TLS connection rejects the other; the end of a connection does not count."""
    return isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _tls(access: Access) -> ssl.SSLContext:
    if not any(url.startswith("https:") for url in access.urls):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts no certificate, and loads no CA file
    try:
        context = ssl.create_default_context(cafile=access.ca_file)
    except OSError as error:
        raise InvalidConfig(
            f"the CA file {access.ca_file} cannot be read as PEM: {error.strerror or error}", property="caFile"
        ) from error
    if access.certificate_file is not None:
        try:
            # Without a password here, OpenSSL would prompt for that of an encrypted key.
            context.load_cert_chain(access.certificate_file, access.key_file, password="")
        except OSError as error:
            raise InvalidConfig(
                f"the certificate {access.certificate_file} and its key cannot be read as PEM: "
                f"{error.strerror or error}",
                property="certificateFile",
                fix="give a certificate and its key without a password",
            ) from error
    return context


def _shown(url: str) -> str:
    """Return the URL without a user or a password in it."""
    return str(httpx.URL(url).copy_with(userinfo=b""))
