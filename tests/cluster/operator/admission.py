"""The operator's validating webhook: a real HTTPS server that the API server asks."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import ssl
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cluster import kube
from tests.cluster.kube import Client, Json
from tests.cluster.operator.rules import refusal

PATH = "/validate-machinelearning-seldon-io-v1-seldondeployment"
MANAGER = "seldon-stand-in"


class Admission:
    """Listens, while it is entered, on a port that the system chooses."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._key, self._certificate = _certify(address)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post(PATH, _review)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address, 0, ssl_context=self._tls())
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "both.pem")
            file.write_bytes(self._key + self._certificate)
            context.load_cert_chain(file)
        return context

    async def register(self, cluster: Client, namespace: str) -> None:
        """Tell the API server to ask here before it accepts a SeldonDeployment."""
        only = {"matchLabels": {"kubernetes.io/metadata.name": namespace}} if namespace else {}
        await cluster.apply(kube.WEBHOOKS, {
            "apiVersion": kube.WEBHOOKS.api_version,
            "kind": kube.WEBHOOKS.name,
            "metadata": {"name": f"seldon-{namespace}".strip("-")},
            "webhooks": [{
                "name": "v1.vseldondeployment.kb.io",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "namespaceSelector": only,
                "clientConfig": {
                    "url": f"https://{self._address}:{self._port}{PATH}",
                    "caBundle": base64.b64encode(self._certificate).decode(),
                },
                "rules": [{
                    "apiGroups": ["machinelearning.seldon.io"],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["seldondeployments"],
                }],
            }],
        }, MANAGER)  # fmt: skip


async def _review(request: web.Request) -> web.Response:
    asked: Json = await request.json()
    refused = refusal(asked["request"]["object"])
    answer: Json = {"uid": asked["request"]["uid"], "allowed": refused is None}
    if refused:
        answer["status"] = refused
    return web.json_response({"apiVersion": asked["apiVersion"], "kind": "AdmissionReview", "response": answer})


def _certify(address: str) -> tuple[bytes, bytes]:
    """A key and a certificate of its own for `address`, valid for a day, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "seldon-stand-in")])
    now = dt.datetime.now(dt.UTC)
    where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(where, critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret, certificate.public_bytes(serialization.Encoding.PEM)
