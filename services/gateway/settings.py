"""Settings of the gateway: environment variables `TIDEMILL_GATEWAY_*`."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.gateway.limits import MAX_FRAME_BYTES
from services.gateway.places import Roots, check_roots
from services.gateway.rates import RateLimits
from services.gateway.transfers import Transfers
from tidemill.config import CommonSettings
from tidemill.keys import MIN_PEPPER_BYTES
from tidemill.tls import TlsFiles, optional_files

TLS_VARIABLES = ("TIDEMILL_GATEWAY_TLS_CERTIFICATE", "TIDEMILL_GATEWAY_TLS_KEY")
MIN_BYTES_PER_SECOND = 1 << 20


class GatewaySettings(BaseSettings):
    """What the gateway needs to know; paths default to places below `TIDEMILL_HOME`."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_GATEWAY_", extra="ignore", frozen=True)

    address: str = Field(default="127.0.0.1:7070", description="Where clients connect (gRPC).")
    tls_certificate: Path | None = Field(
        default=None, description="PEM certificate chain that clients see. Default: plaintext, on loopback only."
    )
    tls_key: Path | None = Field(default=None, description="Its PEM key, without a passphrase.")
    http_address: str = Field(default="127.0.0.1:7071", description="Where /metrics, /healthz and /readyz are.")
    scheduler: str = Field(
        default="127.0.0.1:7080", description="Address of the scheduler, or `host:port,host:port,…` of several."
    )
    store: str | None = Field(
        default=None, description="Object store, file:// or s3://. Default: `file://<home>/store`."
    )
    keys_file: Path | None = Field(default=None, description="API keys. Default: `<home>/keys.json`.")
    key_pepper: SecretStr = Field(description="Secret under which API keys are hashed, 16 bytes or more.")
    audit_file: Path | None = Field(
        default=None, description="A line for each call that changes something. Default: the log, as `audit`."
    )
    tenant_calls_per_second: int = Field(
        default=2000, ge=0, description="Calls that a tenant may make a second, twice as many at once; 0: no limit."
    )
    tenant_upload_bytes_per_second: int = Field(
        default=0, ge=0, description="Bytes of requests a second and tenant, 1 MiB or more; 0: no limit."
    )
    tenant_download_bytes_per_second: int = Field(
        default=0, ge=0, description="Bytes of results a second and tenant, 1 MiB or more; 0: no limit."
    )
    tenant_streams: int = Field(
        default=2048, ge=0, description="Streams (rows, results, watches) that a tenant may hold open; 0: no limit."
    )
    segment_rows: int = Field(default=4096, ge=1, le=1 << 20, description="Most rows of an input segment.")
    segment_bytes: int = Field(default=8 << 20, ge=1024, le=1 << 30, description="Most request bytes of a segment.")
    linger_seconds: float = Field(default=0.05, ge=0, le=5, description="How long rows wait for company.")
    append_streams_per_tenant: int = Field(
        default=64, ge=1, le=10_000, description="Most append streams and submissions that a tenant has open."
    )
    append_bytes: int = Field(
        default=256 << 20,
        ge=16 << 20,
        le=1 << 40,
        description="Most bytes of rows, over all streams, that were read and are not durable yet.",
    )
    append_idle_seconds: float = Field(
        default=300,
        gt=0,
        le=86_400,
        description="An append stream ends when its client sends no frame, or reads no answer, for so long.",
    )
    scheduler_patience_seconds: float = Field(
        default=30, gt=0, le=3600, description="How long a call waits for a scheduler that is away."
    )
    heartbeat_seconds: float = Field(default=15, gt=0, le=300, description="Silence after which WatchJob says so.")
    drain_seconds: float = Field(default=10, ge=0, le=600, description="How long open calls may last after SIGTERM.")

    import_roots: str = Field(
        default="",
        description="Folders and bucket prefixes whose files ImportRows may read: "
        "`file:///data/{tenant},s3://bucket/in`. Default: none.",
    )
    export_roots: str = Field(default="", description="The same for files that ExportResults may write. Default: none.")
    import_bytes: int = Field(default=16 << 30, ge=1024, description="Largest file that ImportRows reads.")
    transfers: int = Field(default=4, ge=1, le=64, description="Imports and exports at a time.")
    spool: Path | None = Field(default=None, description="Folder for files on their way. Default: `<home>/spool`.")

    @field_validator("import_roots", "export_roots")
    @classmethod
    def _are_roots(cls, text: str) -> str:
        return check_roots(text)

    @field_validator("key_pepper")
    @classmethod
    def _long_enough(cls, pepper: SecretStr) -> SecretStr:
        if len(pepper.get_secret_value().encode()) < MIN_PEPPER_BYTES:
            raise ValueError(f"needs {MIN_PEPPER_BYTES} bytes or more, for instance of `openssl rand -hex 32`")
        return pepper

    @field_validator("tenant_upload_bytes_per_second", "tenant_download_bytes_per_second")
    @classmethod
    def _lets_a_message_pass(cls, rate: int) -> int:
        if 0 < rate < MIN_BYTES_PER_SECOND:
            raise ValueError(
                f"must be 0 or at least {MIN_BYTES_PER_SECOND}: one frame may have {MAX_FRAME_BYTES} bytes"
            )
        return rate

    @property
    def tls(self) -> TlsFiles | None:
        """What clients see; None for plaintext. Raises INVALID_ARGUMENT for half of the settings."""
        return optional_files(self.tls_certificate, self.tls_key, None, names=TLS_VARIABLES, needs_ca=False)

    @property
    def rates(self) -> RateLimits:
        """What one tenant may ask of this gateway."""
        return RateLimits(
            self.tenant_calls_per_second,
            self.tenant_upload_bytes_per_second,
            self.tenant_download_bytes_per_second,
            self.tenant_streams,
        )

    def transfers_of(self, common: CommonSettings) -> Transfers:
        """What imports and exports may do."""
        return Transfers(
            Roots(self.import_roots, "TIDEMILL_GATEWAY_IMPORT_ROOTS"),
            Roots(self.export_roots, "TIDEMILL_GATEWAY_EXPORT_ROOTS"),
            self.spool or common.home / "spool",
            self.import_bytes,
            self.transfers,
        )

    def store_uri(self, common: CommonSettings) -> str:
        """`store`, or its default below the home folder."""
        return self.store or (common.home / "store").absolute().as_uri()

    def keys_path(self, common: CommonSettings) -> Path:
        """`keys_file`, or its default below the home folder."""
        return self.keys_file or common.home / "keys.json"
