"""What the settings of every process share. Each service has its own class with its own environment prefix."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_home() -> Path:
    """Folder of the embedded mode: ledger, store, keys, logs."""
    return Path.home() / ".tidemill"


class CommonSettings(BaseSettings):
    """Settings without a service of their own: `TIDEMILL_HOME`, `TIDEMILL_TELEMETRY_DIR`, `TIDEMILL_READY_FILE`."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=default_home, description="Folder of the embedded mode.")
    telemetry_dir: Path | None = Field(
        default=None, description="Where spans and logs go without a collector. Default: `<home>/telemetry`."
    )
    ready_file: Path | None = Field(
        default=None, description="Written with the process's addresses once it serves; set by `tidemill up`."
    )

    @property
    def telemetry_folder(self) -> Path:
        """`telemetry_dir`, or its default below `home`."""
        return self.telemetry_dir or self.home / "telemetry"
