"""One call of a real worker: what is sent again, what is an error, and which worker is asked."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from replicator.backends.kafka_connect import rest as rest_module
from replicator.backends.kafka_connect.rest import Access, Repeat, path_of
from replicator.errors import EngineDenied, EngineRefused, EngineUnavailable, InvalidConfig, ReplicatorError

from tests.backends.kafka_connect.conftest import OpenRest
from tests.backends.kafka_connect.proxy import (
    HTML,
    LOST,
    NEVER_ARRIVED,
    NOT_READY,
    STOPPING,
    Fault,
    Proxy,
    said,
)
from tests.engines import free_ports
from tests.kafka import unique
from tools.kafka.cluster import Login, Worker
from tools.kafka.pair import Pair
from tools.kafka.tls import make_tls

pytestmark = pytest.mark.engine

PASSING = {
    "the answer is lost": LOST,
    "the call is lost": NEVER_ARRIVED,
    "HTML 404 of a worker that starts": NOT_READY,
    "empty 404 of a worker that stops": Fault(reaches=True, status=404, type="text/plain"),
    "empty 500 of a worker that stops": STOPPING,
    "503 of a worker that is not healthy": Fault(reaches=False, status=503, body=b'{"status":"starting"}'),
    "502 of a proxy": Fault(reaches=False, status=502, body=HTML, type="text/html"),
    "409 of a rebalance": said(409),
    "500 of a rebalance": said(500, text="Request cannot be completed because a rebalance is expected"),
}
SPOKEN = said(500, text="Could not read it")


@pytest.mark.parametrize("repeat", [Repeat.SAFE, Repeat.CHECKED])
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
async def test_what_passes_is_asked_again(open_rest: OpenRest, proxy: Proxy, fault: Fault, repeat: Repeat) -> None:
    proxy.fail("GET /", fault, fault)
    answer = await open_rest(proxy.url).call("GET", "/", repeat=repeat, patience=10)
    assert answer.body["version"].startswith("4.")
    assert proxy.count("GET /") == 3


async def test_a_404_means_missing_only_where_connect_says_so(open_rest: OpenRest, proxy: Proxy) -> None:
    path = path_of("connectors", unique("none"))
    proxy.fail("GET", NOT_READY)
    async with httpx.AsyncClient(trust_env=False) as naive:
        assert (await naive.get(proxy.url + "/")).status_code == 404  # of a worker that is there all the time
    proxy.fail("GET", NOT_READY)
    rest = open_rest(proxy.url)
    assert (await rest.call("GET", path, repeat=Repeat.SAFE, patience=10)).missing
    assert proxy.count(f"GET {path}") >= 2  # more, where the connectors of other tests move the worker
    proxy.chooser = lambda verb, path: NOT_READY
    with pytest.raises(EngineUnavailable, match=r"not ready \(HTTP 404\); that says nothing about the stream"):
        await rest.call("GET", path, repeat=Repeat.SAFE, patience=0.3)


async def test_a_500_in_words_passes_where_the_call_is_safe_and_is_an_answer_where_it_is_checked(
    open_rest: OpenRest, proxy: Proxy
) -> None:
    rest = open_rest(proxy.url)
    proxy.fail("GET /", SPOKEN)
    assert (await rest.call("GET", "/", repeat=Repeat.SAFE, patience=10)).done
    assert proxy.count("GET") == 2
    proxy.fail("GET /", SPOKEN)
    with pytest.raises(EngineRefused, match=r"Kafka Connect says: Could not read it \(HTTP 500\)"):
        await rest.call("GET", "/", repeat=Repeat.CHECKED, patience=10)
    assert proxy.count("GET") == 3


async def test_a_500_in_words_is_asked_again_for_a_bounded_time(
    open_rest: OpenRest, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "_FAULTS_FOR", 0.5)
    proxy.chooser = lambda verb, path: SPOKEN
    started = time.monotonic()
    with pytest.raises(EngineRefused, match="Could not read it"):
        await open_rest(proxy.url).call("GET", "/", repeat=Repeat.SAFE, patience=30)
    assert proxy.count("GET") > 1
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("fault", [*PASSING.values(), SPOKEN], ids=[*PASSING, "500 in words"])
async def test_a_call_that_must_not_be_repeated_is_sent_once(open_rest: OpenRest, proxy: Proxy, fault: Fault) -> None:
    proxy.fail("POST", fault)
    call = open_rest(proxy.url).call("POST", "/connectors/none/restart", repeat=Repeat.NEVER, patience=10)
    if fault.status is None:
        with pytest.raises(EngineUnavailable, match="did not answer"):
            await call
    else:
        assert (await call).status == fault.status
    await asyncio.sleep(0.3)
    assert proxy.count("POST") == 1


async def test_what_the_engine_says_is_on_one_line_trimmed_and_without_secrets(
    open_rest: OpenRest, proxy: Proxy
) -> None:
    long = "of a broken configuration: " + "hunter2 x " * 200
    proxy.fail("PUT", said(400, text=long))
    rest = open_rest(proxy.url, redact=lambda text: text.replace("hunter2", "[redacted]"))
    with pytest.raises(EngineRefused) as refused:
        await rest.call("PUT", "/connectors/none/config", body={}, repeat=Repeat.SAFE, patience=10)
    assert "[redacted]" in refused.value.message
    assert "hunter2" not in str(refused.value)
    assert len(refused.value.message) < 600
    assert proxy.count("PUT") == 1  # what is wrong stays wrong


async def test_an_error_without_a_text_is_told_so(open_rest: OpenRest, proxy: Proxy) -> None:
    proxy.fail("GET", Fault(reaches=False, status=400, body=b'{"error_code":400,"message":null}'))
    with pytest.raises(EngineRefused, match=r"Kafka Connect gives no reason \(HTTP 400\)"):
        await open_rest(proxy.url).call("GET", "/", repeat=Repeat.SAFE, patience=10)


async def test_what_is_no_connect_worker_is_told_so(open_rest: OpenRest, proxy: Proxy) -> None:
    proxy.chooser = lambda verb, path: Fault(reaches=False, status=405, body=HTML, type="text/html")
    with pytest.raises(EngineRefused, match=r"does not answer as Kafka Connect does \(HTTP 405\)"):
        await open_rest(proxy.url).call("GET", "/", repeat=Repeat.SAFE, patience=10)


async def test_the_next_worker_is_asked_where_one_does_not_answer_and_again_from_then_on(
    open_rest: OpenRest, proxy: Proxy, kafka: Pair
) -> None:
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    proxy.chooser = lambda verb, path: NOT_READY
    rest = open_rest(dead, proxy.url, kafka.west.connect)
    for _ in range(2):
        assert (await rest.call("GET", "/", repeat=Repeat.SAFE, patience=10)).worker == kafka.west.connect
    assert proxy.count("GET") == 1


@pytest.mark.parametrize("repeat", list(Repeat))
async def test_a_call_that_reached_nobody_goes_to_the_next_worker_even_if_it_must_not_be_repeated(
    open_rest: OpenRest, proxy: Proxy, repeat: Repeat
) -> None:
    rest = open_rest(f"http://127.0.0.1:{free_ports(1)[0]}", proxy.url)
    assert (await rest.call("GET", "/", repeat=repeat, patience=0)).done


async def test_where_no_worker_answers_each_is_named_without_a_password(open_rest: OpenRest) -> None:
    first, second = free_ports(2)
    rest = open_rest(f"http://127.0.0.1:{first}", f"http://who:hunter2@127.0.0.1:{second}")
    with pytest.raises(EngineUnavailable, match=f":{first}, http://127.0.0.1:{second} did not answer") as unanswered:
        await rest.call("GET", "/", repeat=Repeat.SAFE, patience=0.2)
    assert "hunter2" not in str(unanswered.value)
    assert "hunter2" not in repr(Access(("http://who:hunter2@127.0.0.1",), "who", "hunter2"))


async def test_a_worker_that_hangs_is_left_for_the_next_one(
    open_rest: OpenRest, kafka: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rest_module._ANSWER_WITHIN >= 30
    monkeypatch.setattr(rest_module, "_ANSWER_WITHIN", 0.3)
    silence = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silence.wait()
        writer.close()

    server = await asyncio.start_server(keep_silent, "127.0.0.1", 0)
    silent = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        rest = open_rest(silent, kafka.west.connect)
        assert (await rest.call("GET", "/", repeat=Repeat.SAFE, patience=0.2)).worker == kafka.west.connect
    finally:
        silence.set()
        server.close()


class ClosedWorker(Worker):
    """A worker that speaks TLS with those alone whose certificate it knows, and wants a login."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.own, self.key = folder / "own.pem", folder / "own.key"
        authority, password = trustme.CA(), "a password"
        issued = authority.issue_cert("replicator.example")
        issued.cert_chain_pems[0].write_to_path(self.own)
        issued.private_key_pem.write_to_path(self.key)
        trusted = pkcs12.PKCS12Certificate(x509.load_pem_x509_certificate(authority.cert_pem.bytes()), b"clients")
        store = folder / "clients.p12"
        store.write_bytes(pkcs12.serialize_java_truststore([trusted], BestAvailableEncryption(password.encode())))
        properties = {
            "listeners.https.ssl.client.auth": "required",
            "listeners.https.ssl.truststore.location": store,
            "listeners.https.ssl.truststore.type": "PKCS12",
            "listeners.https.ssl.truststore.password": password,
        }
        login = Login("operator", 'it\'s "a" \\ $HOME')
        tls = make_tls(folder / "tls")
        super().__init__(folder, bootstrap, group=unique("closed"), tls=tls, login=login, properties=properties)

    def client(self) -> httpx.Client:
        assert self.tls is not None and self.login is not None
        context = ssl.create_default_context(cafile=str(self.tls.ca))
        context.load_cert_chain(self.own, self.key)
        auth = (self.login.user, self.login.password)
        return httpx.Client(base_url=self.url, auth=auth, verify=context, trust_env=False, timeout=30)


async def test_a_worker_that_wants_a_certificate_and_a_login(open_rest: OpenRest, kafka: Pair, tmp_path: Path) -> None:
    with ClosedWorker(tmp_path, kafka.west.bootstrap) as worker:
        assert worker.tls is not None and worker.login is not None
        certificate: dict[str, Any] = {"certificate_file": worker.own, "key_file": worker.key}
        trust: dict[str, Any] = {"ca_file": worker.tls.ca}
        login = {"username": worker.login.user, "password": worker.login.password}

        async def ask(**access: Any) -> str | None:
            """The path asks for a login; `/` does not."""
            try:
                answer = await open_rest(worker.url, **access).call(
                    "GET", "/connectors", repeat=Repeat.SAFE, patience=5
                )
            except ReplicatorError as error:
                assert isinstance(error, EngineDenied), error
                assert "another" not in str(error)
                return error.message
            assert answer.body == []
            return None

        assert await ask(**trust, **certificate, **login) is None
        for access, told in (
            ({**certificate, **login}, "no TLS connection.*certificate verify failed"),
            ({**trust, **login}, "no TLS connection"),
            ({**trust, **certificate}, r"refuses the call without credentials \(HTTP 401\)"),
            ({**trust, **certificate, "username": "operator", "password": "another"}, r"with these credentials"),
        ):
            message = await ask(**access)
            assert message is not None
            assert re.search(told, message), message


@pytest.mark.parametrize(("field", "property"), [("ca_file", "caFile"), ("certificate_file", "certificateFile")])
@pytest.mark.parametrize("content", [None, "no PEM"])
async def test_a_file_that_is_no_certificate_is_named(
    open_rest: OpenRest, tmp_path: Path, field: str, property: str, content: str | None
) -> None:
    file = tmp_path / "some.pem"
    access: dict[str, Any] = {field: file}
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidConfig, match=r"some\.pem.* cannot be read as PEM") as invalid:
        await open_rest("https://127.0.0.1:1", **access).call("GET", "/", repeat=Repeat.SAFE, patience=0)
    assert invalid.value.property == property


async def test_an_encrypted_key_is_refused_and_not_asked_for_at_the_terminal(
    open_rest: OpenRest, tmp_path: Path
) -> None:
    issued = trustme.CA().issue_cert("replicator.example")
    own, key = tmp_path / "own.pem", tmp_path / "own.key"
    issued.cert_chain_pems[0].write_to_path(own)
    private = load_pem_private_key(issued.private_key_pem.bytes(), None)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password")))
    rest = open_rest("https://127.0.0.1:1", certificate_file=own, key_file=key)
    with pytest.raises(InvalidConfig, match="cannot be read as PEM"):
        await rest.call("GET", "/", repeat=Repeat.SAFE, patience=0)


async def test_a_name_of_any_characters_is_asked_for_as_it_is(open_rest: OpenRest, proxy: Proxy) -> None:
    rest = open_rest(proxy.url)
    for name in ("a b;c?d#e&f=ü", "a.b", "..."):
        answer = await rest.call("GET", path_of("connectors", name), repeat=Repeat.SAFE, patience=5)
        assert answer.missing and f"Connector {name} not found" in answer.text
    for name in ("..", "a/b"):
        with pytest.raises(EngineRefused):  # the worker takes no such path, and it is no other path either
            await rest.call("GET", path_of("connectors", name), repeat=Repeat.SAFE, patience=5)
