"""Settings of the Dagster code location: environment variables `TIDEMILL_DAGSTER_*`."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class DagsterSettings(BaseSettings):
    """Where the gateway is and how its feed is read."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_DAGSTER_", extra="ignore", frozen=True)

    gateway: str = Field(
        default="127.0.0.1:7070", description="Address of the gateway (gRPC); `grpcs://host:port` for TLS."
    )
    ca: str = Field(
        default="", description="PEM file of who may sign for the gateway. Default: whom the system trusts."
    )
    api_key: SecretStr = Field(default=SecretStr(""), description="API key; Dagster sees the jobs of its tenant.")
    interval_seconds: int = Field(default=5, ge=1, le=3600, description="Least time between two looks at the feed.")
    trace_url_template: str = Field(
        default="", description="Page of a trace, with `{trace_id}` in it. Empty: outputs carry the id only."
    )

    @field_validator("trace_url_template")
    @classmethod
    def _names_the_trace(cls, template: str) -> str:
        if template and "{trace_id}" not in template:
            raise ValueError("must contain {trace_id}, for instance http://127.0.0.1:16686/trace/{trace_id}")
        return template
