"""Certificates of servers and of channels, read from PEM files again when these change.

Replacing the files under a running process is enough: new connections get what is there then, open ones go on. A pair
that does not fit, as it is for a moment between two renames, is passed over until it does.
"""

import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from tidemill import telemetry
from tidemill.errors import Reason, TidemillError

log = telemetry.logger(__name__)

Version = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of one end of a connection.

    Attributes:
        certificate, key: what this end shows; a channel may do without.
        ca: whom it trusts. A server with one asks every client for a certificate; a channel without one trusts what
            the machine trusts.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True)
class _Pem:
    certificate: bytes | None
    key: bytes | None
    ca: bytes | None

    @property
    def pairs(self) -> list[tuple[bytes, bytes]]:
        return [(self.key, self.certificate)] if self.key and self.certificate else []


class Certificates:
    """The content of `TlsFiles`, which follows the files."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises INVALID_ARGUMENT for files that cannot be used."""
        self._files = files
        self._version = _version(files)
        self._pem = _read(files)

    def changed(self) -> bool:
        """Take up the files if they changed and can be used; whether that was so."""
        version = _version(self._files)
        if version == self._version:
            return False
        try:
            pem = _read(self._files)
        except TidemillError as exc:
            log.warning("certificates refused", error=exc.message)
            return False
        self._version = version
        if pem == self._pem:
            return False
        self._pem = pem
        log.info("certificates read again", certificate=str(self._files.certificate or self._files.ca))
        return True

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a port; each new connection looks at the files."""

        def current() -> grpc.ServerCertificateConfiguration | None:
            return self._configuration() if self.changed() else None

        # The stubs forget that None stands for no change.
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", current)
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), fetch, require_client_authentication=self._files.ca is not None
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a channel, as the files were when they were read last."""
        pem = self._pem
        return grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(self._pem.pairs, self._pem.ca)


def optional_files(
    certificate: Path | None, key: Path | None, ca: Path | None, *, names: Sequence[str], needs_ca: bool
) -> TlsFiles | None:
    """The files of three settings, or None where none is set.

    Raises INVALID_ARGUMENT, with the `names` of the settings, where one that belongs to the others is missing.
    """
    if not (certificate or key or ca):
        return None
    if not (certificate and key) or (needs_ca and not ca):
        raise TidemillError(Reason.INVALID_ARGUMENT, f"set all of {', '.join(names)}, or none of them")
    return TlsFiles(certificate, key, ca)


def _version(files: TlsFiles) -> Version:
    found: list[tuple[int, int, int]] = []
    for path in (files.certificate, files.key, files.ca):
        try:
            status = os.stat(path) if path is not None else None
        except OSError:
            status = None
        found.append((status.st_mtime_ns, status.st_size, status.st_ino) if status is not None else (0, 0, 0))
    return tuple(found)


def _read(files: TlsFiles) -> _Pem:
    try:
        # gRPC says nothing of what is wrong with a file; OpenSSL does, and whether certificate and key fit.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if files.certificate is not None and files.key is not None:
            context.load_cert_chain(files.certificate, files.key, password=_no_password)
        if files.ca is not None:
            context.load_verify_locations(files.ca)
        return _Pem(*(path.read_bytes() if path is not None else None for path in _paths(files)))
    except (OSError, ValueError) as exc:
        shown = ", ".join(str(path) for path in _paths(files) if path is not None)
        raise TidemillError(
            Reason.INVALID_ARGUMENT, f"cannot use the certificates in {shown}: {exc}", metadata={"files": shown}
        ) from exc


def _paths(files: TlsFiles) -> tuple[Path | None, Path | None, Path | None]:
    return (files.certificate, files.key, files.ca)


def _no_password() -> str:
    raise ValueError("the key is encrypted; Tidemill reads keys without a passphrase, readable for its user alone")
