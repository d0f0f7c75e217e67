"""Keys and certificates of a node that lives for a test session."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def private(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as unencrypted PKCS #8 in PEM, which is how Go's programs read it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half in PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class Authority:
    """A certificate authority that is forgotten with the process."""

    name: x509.Name = field(default_factory=lambda: _named("node"))
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def certificate(self) -> bytes:
        """Its own certificate in PEM."""
        rule = x509.BasicConstraints(ca=True, path_length=None)
        return self._signed(self._begun(self.name, self.key).add_extension(rule, critical=True))

    def issue(self, folder: Path, stem: str, name: str, group: str = "", hosts: Sequence[str] = ()) -> None:
        """Write `STEM.crt` and `STEM.key`: for a server on `hosts` (addresses), or for a client in `group`."""
        key = new_key()
        begun = self._begun(_named(name, group), key)
        if hosts:
            addresses = [x509.IPAddress(ip_address(host)) for host in hosts]
            begun = begun.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.crt").write_bytes(self._signed(begun))
        (folder / f"{stem}.key").write_bytes(private(key))

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        begun = x509.CertificateBuilder(subject_name=subject, issuer_name=self.name, public_key=key.public_key())
        begun = begun.serial_number(x509.random_serial_number())
        return begun.not_valid_before(now - _DAY).not_valid_after(now + 2 * _DAY)

    def _signed(self, begun: x509.CertificateBuilder) -> bytes:
        return begun.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _named(name: str, group: str = "") -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, group), (NameOID.COMMON_NAME, name)]
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts if value])
