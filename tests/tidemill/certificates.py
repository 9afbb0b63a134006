"""Certificates for tests, made as an operator makes them."""

import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tidemill.tls import TlsFiles

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "certificates.sh"


@dataclass(frozen=True)
class Authority:
    """A private CA and what it signed, in one folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        """Its certificate."""
        return self.folder / "ca.pem"

    def issue(self, *names: str) -> None:
        """Make certificates, or renew them."""
        subprocess.run([SCRIPT, self.folder, *names], check=True, capture_output=True, timeout=60)

    def files(self, name: str, *, mutual: bool = True) -> TlsFiles:
        """What a process called `name` is given."""
        return TlsFiles(self.folder / f"{name}.pem", self.folder / f"{name}-key.pem", self.ca if mutual else None)

    def variables(self, name: str) -> dict[str, str]:
        """Settings of mutual TLS for a process called `name`."""
        files = self.files(name)
        parts = {"CERTIFICATE": files.certificate, "KEY": files.key, "CA": files.ca}
        return {f"TIDEMILL_MTLS_{part}": str(path) for part, path in parts.items()}


def serial_of(path: Path) -> str:
    """Serial number of a certificate, in hexadecimal digits."""
    command = ["openssl", "x509", "-in", path, "-noout", "-serial"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().partition("=")[2]


def serial_at(address: str, ca: Path, client: TlsFiles | None = None) -> str:
    """Serial number that a new connection is shown."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    if client is not None and client.certificate is not None:
        context.load_cert_chain(client.certificate, client.key)
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=20)
    with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
        certificate = wrapped.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])
