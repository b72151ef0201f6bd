"""A certificate authority of a test bed, and one certificate for 127.0.0.1, in the forms that Java and clients read."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12

from tools.kafka.process import write_private


@dataclass(frozen=True)
class Tls:
    """Files of a server that speaks TLS.

    :param ca: the authority's certificate, in PEM.
    :param keystore: the server's key and certificate, in PKCS 12.
    """

    ca: Path
    keystore: Path
    password: str

    def properties(self, prefix: str = "") -> dict[str, str]:
        """What a Kafka server's configuration says of the keystore."""
        return {
            f"{prefix}ssl.keystore.location": str(self.keystore),
            f"{prefix}ssl.keystore.type": "PKCS12",
            f"{prefix}ssl.keystore.password": self.password,
            f"{prefix}ssl.key.password": self.password,
        }


def make_tls(folder: Path) -> Tls:
    """A new authority, and a certificate of it for 127.0.0.1 and localhost."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    made = Tls(folder / "ca.pem", folder / "server.p12", secrets.token_urlsafe(24))
    authority.cert_pem.write_to_path(made.ca)
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    certificate, *chain = (x509.load_pem_x509_certificate(blob.bytes()) for blob in issued.cert_chain_pems)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    sealed = pkcs12.serialize_key_and_certificates(
        b"server", key, certificate, chain, BestAvailableEncryption(made.password.encode())
    )
    write_private(made.keystore, "")
    made.keystore.write_bytes(sealed)
    return made
