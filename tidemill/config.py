"""What the settings of every process share. Each service has its own class with its own environment prefix."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from tidemill.tls import TlsFiles, optional_files

MTLS_VARIABLES = ("TIDEMILL_MTLS_CERTIFICATE", "TIDEMILL_MTLS_KEY", "TIDEMILL_MTLS_CA")


def default_home() -> Path:
    """Folder of the embedded mode: ledger, store, keys, logs."""
    return Path.home() / ".tidemill"


class CommonSettings(BaseSettings):
    """Settings without a service of their own: `TIDEMILL_HOME`, `TIDEMILL_MTLS_CERTIFICATE` and so on."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=default_home, description="Folder of the embedded mode.")
    telemetry_dir: Path | None = Field(
        default=None, description="Where spans and logs go without a collector. Default: `<home>/telemetry`."
    )
    ready_file: Path | None = Field(
        default=None, description="Written with the process's addresses once it serves; set by `tidemill up`."
    )
    mtls_certificate: Path | None = Field(
        default=None, description="PEM chain that this process shows to other services, as server and as client."
    )
    mtls_key: Path | None = Field(default=None, description="Its PEM key, without a passphrase.")
    mtls_ca: Path | None = Field(
        default=None, description="PEM certificates of who may sign for services; gateways and workers show one too."
    )
    plaintext: bool = Field(
        default=False,
        description="Let gRPC servers be reachable from other machines without TLS: a private network or a proxy "
        "protects them.",
    )

    @property
    def mtls(self) -> TlsFiles | None:
        """How services talk to each other; None for plaintext. Raises INVALID_ARGUMENT for half of the settings."""
        return optional_files(self.mtls_certificate, self.mtls_key, self.mtls_ca, names=MTLS_VARIABLES, needs_ca=True)

    @property
    def telemetry_folder(self) -> Path:
        """`telemetry_dir`, or its default below `home`."""
        return self.telemetry_dir or self.home / "telemetry"
