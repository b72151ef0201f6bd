"""A Kafka cluster as an endpoint names it: `kafka://host:9092,host:9092?security.protocol=SASL_SSL`.

The parameters have Kafka's own names. None of them is secret; the credentials are what `authRef` names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, urlencode, urlsplit

from replicator import authref
from replicator.authref import AuthRef
from replicator.errors import InvalidStream, ReplicatorError
from replicator.model import End, Endpoint

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_LOGIN = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_PARAMETERS = ("security.protocol", "sasl.mechanism", "ssl.truststore.location")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class KafkaEndpoint:
    """The cluster at one end.

    :param end: the end's property, the prefix of every property that an error names.
    :param bootstrap: `host:port`, comma-separated.
    :param mechanism: the SASL mechanism; `None` without a login.
    :param truststore: the authority's certificates as a PEM file, on the worker's host; `None` for Java's own.
    :param ref: the credentials.
    """

    end: End
    bootstrap: str
    protocol: str = "PLAINTEXT"
    mechanism: str | None = None
    truststore: str | None = None
    ref: AuthRef | None = None

    @property
    def servers(self) -> str:
        """Return the brokers in one order and spelling."""
        return ",".join(sorted(set(self.bootstrap.lower().split(","))))

    def worker_properties(self, placeholders: Mapping[str, str]) -> dict[str, str]:
        """Return the configuration of a Java client of this cluster.

        :param placeholders: the placeholders for `username` and `password`.
        """
        found = {"bootstrap.servers": self.bootstrap}
        if self.protocol != "PLAINTEXT":
            found["security.protocol"] = self.protocol
        if self.truststore:
            found |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": self.truststore}
        if self.mechanism:
            username, password = placeholders["username"], placeholders["password"]
            found["sasl.mechanism"] = self.mechanism
            found["sasl.jaas.config"] = (
                f'{_LOGIN[self.mechanism]} required username="{username}" password="{password}";'
            )
        return found


@lru_cache(maxsize=4096)  # a preview compares each stream with every other one
def kafka_endpoint(endpoint: Endpoint, end: End, *, admin: bool = False) -> KafkaEndpoint:
    """Read an endpoint; raise `InvalidStream` or `SecretSyntax` with the property.

    :param admin: use `adminAuthRef` if it is set.
    """
    parts = urlsplit(endpoint.uri)
    servers = parts.netloc.split(",")
    if parts.path.strip("/") or parts.fragment:
        raise _invalid(end, "names a topic; say what is mirrored with include and exclude")
    for server in servers:
        match = _SERVER.fullmatch(server)
        if match is None or not 0 < int(match[2]) < 65536:
            raise _invalid(
                end, "names a broker that is no host:port", "write kafka://host:9092, or several with commas"
            )
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(pairs)
    if unknown := sorted(given.keys() - set(_PARAMETERS)):
        raise _invalid(end, f"has the parameter {unknown[0]}", f"it takes {', '.join(_PARAMETERS)}")
    if len(given) < len(pairs):
        raise _invalid(end, "has a parameter twice")
    text = (endpoint.admin_auth_ref if admin else None) or endpoint.auth_ref
    ref = _ref(text, end, "adminAuthRef" if admin and endpoint.admin_auth_ref else "authRef") if text else None
    protocol = given.get("security.protocol", "SASL_SSL" if ref else "PLAINTEXT")
    if protocol not in PROTOCOLS:
        raise _invalid(end, "security.protocol has an unknown value", f"it is one of {', '.join(PROTOCOLS)}")
    logs_in = protocol.startswith("SASL_")
    if logs_in and ref is None:
        raise InvalidStream(
            f"security.protocol is {protocol}, and nothing names the credentials",
            property=f"{end}.authRef",
            fix="name them: env://KAFKA_EU_* or file:///etc/kafka/eu.properties",
        )
    if ref and not logs_in:
        raise _invalid(end, f"security.protocol is {protocol}, which takes no credentials", "leave out authRef")
    encrypted = protocol.endswith("SSL")
    for name, used in (("sasl.mechanism", logs_in), ("ssl.truststore.location", encrypted)):
        if name in given and not used:
            raise _invalid(end, f"has {name}, and security.protocol is {protocol}, which does not use it")
    mechanism = given.get("sasl.mechanism", "SCRAM-SHA-512") if logs_in else None
    if mechanism is not None and mechanism not in _LOGIN:
        raise _invalid(end, "sasl.mechanism has an unknown value", f"it is one of {', '.join(_LOGIN)}")
    truststore = given.get("ssl.truststore.location")
    if truststore is not None and not re.fullmatch(r"/[^\"\\$\n]+", truststore):
        raise _invalid(end, "ssl.truststore.location is no absolute path")
    return KafkaEndpoint(end, ",".join(servers), protocol, mechanism, truststore, ref)


def canonical_kafka_uri(endpoint: Endpoint, end: End) -> str:
    """Return the canonical spelling of a cluster's brokers and connection; raise `InvalidStream` for an invalid URI.

    The order of brokers has no meaning.
    """
    at = kafka_endpoint(endpoint, end)
    parameters = {
        "security.protocol": at.protocol,
        "sasl.mechanism": at.mechanism,
        "ssl.truststore.location": at.truststore,
    }
    return f"kafka://{at.servers}?{urlencode({key: value for key, value in parameters.items() if value}, safe='/')}"


def is_same_cluster(one: Endpoint, other: Endpoint, end: End) -> bool:
    """Tell whether two URIs name the same brokers; raise `InvalidStream`."""
    return kafka_endpoint(one, end).servers == kafka_endpoint(other, end).servers


def _ref(text: str, end: End, name: str) -> AuthRef:
    try:
        return authref.parse(text)
    except ReplicatorError as error:
        error.property = f"{end}.{name}"
        raise


def _invalid(end: End, problem: str, fix: str | None = None) -> InvalidStream:
    return InvalidStream(problem, property=f"{end}.uri", fix=fix)
