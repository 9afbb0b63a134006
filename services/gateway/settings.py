"""Settings of the gateway: environment variables `TIDEMILL_GATEWAY_*`."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tidemill.config import CommonSettings
from tidemill.keys import MIN_PEPPER_BYTES


class GatewaySettings(BaseSettings):
    """What the gateway needs to know; paths default to places below `TIDEMILL_HOME`."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_GATEWAY_", extra="ignore", frozen=True)

    address: str = Field(default="127.0.0.1:7070", description="Where clients connect (gRPC).")
    http_address: str = Field(default="127.0.0.1:7071", description="Where /metrics, /healthz and /readyz are.")
    scheduler: str = Field(
        default="127.0.0.1:7080", description="Address of the scheduler, or `host:port,host:port,…` of several."
    )
    store: str | None = Field(default=None, description="Object store. Default: `file://<home>/store`.")
    keys_file: Path | None = Field(default=None, description="API keys. Default: `<home>/keys.json`.")
    key_pepper: SecretStr = Field(description="Secret under which API keys are hashed, 16 bytes or more.")
    segment_rows: int = Field(default=4096, ge=1, le=1 << 20, description="Most rows of an input segment.")
    segment_bytes: int = Field(default=8 << 20, ge=1024, le=1 << 30, description="Most request bytes of a segment.")
    linger_seconds: float = Field(default=0.05, ge=0, le=5, description="How long rows wait for company.")
    scheduler_patience_seconds: float = Field(
        default=30, gt=0, le=3600, description="How long a call waits for a scheduler that is away."
    )
    heartbeat_seconds: float = Field(default=15, gt=0, le=300, description="Silence after which WatchJob says so.")
    drain_seconds: float = Field(default=10, ge=0, le=600, description="How long open calls may last after SIGTERM.")

    @field_validator("key_pepper")
    @classmethod
    def _long_enough(cls, pepper: SecretStr) -> SecretStr:
        if len(pepper.get_secret_value().encode()) < MIN_PEPPER_BYTES:
            raise ValueError(f"needs {MIN_PEPPER_BYTES} bytes or more, for instance of `openssl rand -hex 32`")
        return pepper

    def store_uri(self, common: CommonSettings) -> str:
        """`store`, or its default below the home folder."""
        return self.store or (common.home / "store").absolute().as_uri()

    def keys_path(self, common: CommonSettings) -> Path:
        """`keys_file`, or its default below the home folder."""
        return self.keys_file or common.home / "keys.json"
