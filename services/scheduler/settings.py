"""Settings of the scheduler process: `TIDEMILL_SCHEDULER_*`."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.scheduler.core.limits import LOAD_SECONDS, Limits
from services.scheduler.core.quotas import Quotas
from services.scheduler.ledger import Ledger, MemoryLedger, RedisLedger, SqliteLedger, redis_address
from services.scheduler.quota_settings import read_quotas
from services.scheduler.upkeep import Upkeep

SQLITE = "sqlite:///"
MEMORY = "memory:"
REDIS = tuple(f"{scheme}://" for scheme in redis_address.SCHEMES)

MIN_WEIGHT = 0.001


class SchedulerSettings(BaseSettings):
    """What an operator may set."""

    # A refused ledger address is not repeated: somebody may have written a password into it.
    model_config = SettingsConfigDict(
        env_prefix="TIDEMILL_SCHEDULER_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    address: str = Field(default="127.0.0.1:7080", description="gRPC address; port 0 takes a free one.")
    http_address: str = Field(default="127.0.0.1:7081", description="Address of /metrics, /healthz and /readyz.")
    ledger: str = Field(
        default="",
        description="`sqlite:///PATH`, `memory:`, or `redis://[user@]host[:port][/database][?name=LEDGER&ca=FILE]` "
        "(`rediss://` for TLS), which several schedulers may share: one leads. "
        "Default: `sqlite:///<home>/ledger.sqlite3`.",
    )
    ledger_password: SecretStr = Field(default=SecretStr(""), description="Password of the Redis user.")
    ledger_vouched: bool = Field(
        default=False,
        description="Where CONFIG GET is forbidden: you made sure that Redis has appendonly yes, appendfsync always, "
        "maxmemory-policy noeviction and enough maxmemory.",
    )
    term_seconds: float = Field(
        default=3.0,
        ge=0.5,
        le=60,
        description="Schedulers that share a ledger: one takes over so long after another fell silent.",
    )
    advertise: str = Field(
        default="", description="`host:port` at which gateways and workers reach this scheduler. Default: its address."
    )
    lease_seconds: float = Field(default=15.0, gt=0, le=3600, description="A lease not extended for so long is lost.")
    chunk_rows: int = Field(default=2048, ge=1, le=65536, description="Most rows of a chunk.")
    max_leases: int = Field(default=64, ge=1, description="Most leased chunks at a time.")
    max_leases_per_tenant: int = Field(default=32, ge=1, description="Most leased chunks of one tenant.")
    max_leases_per_model: int = Field(default=32, ge=1, description="Most leased chunks for one model.")
    max_leases_per_job: int = Field(default=16, ge=1, description="Most leased chunks of one job.")
    chunk_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="Engine-seconds of a chunk, once the pace of its model is known."
    )
    cold_chunk_rows: int = Field(
        default=256, ge=1, le=65536, description="Most rows of a chunk before the pace of its model is known."
    )
    urgent_slack: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="Theta: a job is urgent while its slack is under this share of the time from seal to deadline.",
    )
    owed_seconds: float = Field(
        default=600.0,
        gt=0,
        le=1e6,
        description="Q: a worker leaves its model when a tenant of another one is owed so many engine-seconds, where "
        "that one loads in `load_seconds`; in proportion otherwise.",
    )
    load_seconds: float = Field(
        default=LOAD_SECONDS,
        gt=0,
        le=86_400,
        description="What loading a model is taken to cost where no worker measured it.",
    )
    dedicated_loads: float = Field(
        default=10.0,
        ge=0,
        le=1e6,
        description="A job that leaves its mode open gets engines of its own where a chunk of it keeps one busy for so "
        "many times what loading the model takes, and a worker has room for one; 0: only jobs that ask for it.",
    )
    urgent_weight: float = Field(default=4.0, le=1000, description="Share of the class URGENT in a busy service.")
    standard_weight: float = Field(default=2.0, le=1000, description="Share of the class STANDARD.")
    flex_weight: float = Field(default=1.0, le=1000, description="Share of the class FLEX.")
    admission_headroom: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the capacity that admission promises to nobody."
    )
    max_attempts: int = Field(default=5, ge=1, description="So many failed leases of one chunk fail its job.")
    max_condemned_rows: int = Field(
        default=20, ge=0, description="A job with more rows that kill an engine alone twice fails."
    )
    breaker_rows: int = Field(
        default=1000, ge=1, description="A job whose first rows all failed pauses itself after so many."
    )
    retention_days: float = Field(
        default=30.0, gt=0, le=3650, description="Jobs that have ended are deleted after so long."
    )
    orphan_seconds: float = Field(
        default=3600.0, ge=0, description="Files that a job left behind without a use go so long after its end."
    )
    drain_seconds: float = Field(default=10.0, ge=0, description="Open calls get so long at shutdown.")

    snapshot_events: int = Field(default=50_000, ge=1, description="A snapshot is taken every so many ledger events.")
    archive_seconds: float = Field(
        default=600.0, ge=0, description="A job that ended so long ago leaves memory for the ledger's archive."
    )
    archive_jobs: int = Field(default=1000, ge=0, description="Most jobs in memory that have ended.")

    quotas: str = Field(
        default="",
        description="Limits by tenant as JSON; `*` is the rest. Keys: jobs, rows, tokens, tokens_per_day, chunks; 0 or "
        "absent is no limit.",
    )

    @field_validator("quotas")
    @classmethod
    def _readable_quotas(cls, value: str) -> str:
        read_quotas(value)
        return value

    @field_validator("ledger")
    @classmethod
    def _known_ledger(cls, value: str) -> str:
        if value in ("", MEMORY) or (value.startswith(SQLITE) and len(value) > len(SQLITE)):
            return value
        if value.startswith(REDIS):
            redis_address.parse(value)
            return value
        raise ValueError(f"must be `{SQLITE}PATH`, `{MEMORY}` or `{redis_address.FORM}`")

    @field_validator("urgent_weight", "standard_weight", "flex_weight")
    @classmethod
    def _served_at_all(cls, value: float) -> float:
        if value >= MIN_WEIGHT:
            return value
        raise ValueError(
            f"must be at least {MIN_WEIGHT}: a class of weight {value} would never be served; drain or pause instead"
        )

    @property
    def limits(self) -> Limits:
        """The bounds on decisions."""
        quotas = self.tenant_quotas
        return Limits(
            chunk_rows=self.chunk_rows,
            max_leases=self.max_leases,
            max_leases_per_tenant=quotas.default.chunks or self.max_leases_per_tenant,
            tenant_leases={tenant: quota.chunks for tenant, quota in quotas.tenants.items() if quota.chunks},
            max_leases_per_model=self.max_leases_per_model,
            max_leases_per_job=self.max_leases_per_job,
            max_attempts=self.max_attempts,
            chunk_seconds=self.chunk_seconds,
            cold_chunk_rows=self.cold_chunk_rows,
            urgent_slack=self.urgent_slack,
            urgent_weight=self.urgent_weight,
            standard_weight=self.standard_weight,
            flex_weight=self.flex_weight,
            owed_seconds=self.owed_seconds,
            load_seconds=self.load_seconds,
            dedicated_loads=self.dedicated_loads,
            admission_headroom=self.admission_headroom,
            max_condemned_rows=self.max_condemned_rows,
            breaker_rows=self.breaker_rows,
            retention_days=self.retention_days,
            orphan_seconds=self.orphan_seconds,
        )

    @property
    def upkeep(self) -> Upkeep:
        """The bounds on memory and ledger."""
        return Upkeep(self.snapshot_events, self.archive_seconds, self.archive_jobs)

    @property
    def tenant_quotas(self) -> Quotas:
        """The limits on what tenants hold."""
        return read_quotas(self.quotas)

    def open_ledger(self, home: Path) -> Ledger:
        """The ledger that `ledger` names; it is not taken over yet."""
        if self.ledger == MEMORY:
            return MemoryLedger()
        if self.ledger.startswith(REDIS):
            address = redis_address.parse(self.ledger, self.ledger_password.get_secret_value())
            return RedisLedger(address, vouched=self.ledger_vouched)
        if not self.ledger:
            return SqliteLedger(home / "ledger.sqlite3")
        return SqliteLedger(Path(self.ledger.removeprefix(SQLITE)).expanduser())
