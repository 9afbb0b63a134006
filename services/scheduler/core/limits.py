"""Operator-set bounds that decisions respect."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.scheduler.core.records import ServiceClass
from services.scheduler.core.times import SECOND
from tidemill.v1 import job_pb2

LOAD_SECONDS = 60.0
"""What loading a model is taken to cost where no worker measured it and no operator said."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on chunks and leases.

    Attributes:
        chunk_rows: most rows of a chunk.
        chunk_seconds: engine-seconds of a chunk of a model whose rate is known.
        cold_chunk_rows: most rows of a chunk of a model whose rate is not.
        max_leases: most leased chunks at a time; the other three bound them by tenant, model and job.
        max_attempts: after so many failed leases of a chunk its job fails, after so many expired ones it is suspected.
        max_condemned_rows: a job with more rows that kill engines fails.
        breaker_rows: a job whose first rows all failed pauses itself after so many.
        retention_days: terminal jobs are deleted after so long.
        orphan_seconds: after its end a job's files that the ledger does not name are kept so long.
        max_cleanups: most tasks of removing files at workers at a time.
        urgent_slack: a job is urgent once its slack is below this share of its window (theta).
        urgent_weight, standard_weight, flex_weight: shares of the service classes.
        owed_seconds: engine-seconds that another tenant may be owed before a worker leaves its model (Q), for a model
            that loads in `load_seconds`; in proportion for others.
        load_seconds: what loading a model takes where no worker measured it.
        dedicated_loads: a job that left its mode open gets engines of its own where a chunk keeps one busy for at least
            so many times what loading the model takes; 0: never.
        admission_headroom: share of the capacity that admission promises to nobody.
        tenant_leases: caps of single tenants in place of `max_leases_per_tenant`.
    """

    chunk_rows: int = 2048
    chunk_seconds: float = 60.0
    cold_chunk_rows: int = 256
    max_leases: int = 64
    max_leases_per_tenant: int = 32
    max_leases_per_model: int = 32
    max_leases_per_job: int = 16
    max_attempts: int = 5
    max_condemned_rows: int = 20
    breaker_rows: int = 1000
    retention_days: float = 30.0
    orphan_seconds: float = 3600.0
    max_cleanups: int = 2
    urgent_slack: float = 0.15
    urgent_weight: float = 4.0
    standard_weight: float = 2.0
    flex_weight: float = 1.0
    owed_seconds: float = 600.0
    load_seconds: float = LOAD_SECONDS
    dedicated_loads: float = 10.0
    admission_headroom: float = 0.1
    tenant_leases: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def retention_ns(self) -> int:
        """`retention_days` in nanoseconds."""
        return int(self.retention_days * 86_400 * SECOND)

    @property
    def orphan_ns(self) -> int:
        """`orphan_seconds` in nanoseconds."""
        return int(self.orphan_seconds * SECOND)

    def tenant_cap(self, tenant: str) -> int:
        """Most leased chunks of the tenant."""
        return self.tenant_leases.get(tenant, self.max_leases_per_tenant)

    def weight(self, service_class: ServiceClass) -> float:
        """Share of a class; UNSPECIFIED reads as STANDARD."""
        if service_class == job_pb2.SERVICE_CLASS_URGENT:
            return self.urgent_weight
        return self.flex_weight if service_class == job_pb2.SERVICE_CLASS_FLEX else self.standard_weight

    def price(self, service_class: ServiceClass) -> int:
        """Virtual tokens for a thousand actual ones: the less, the more weight the class has; at least 1."""
        return max(1, round(1000 / self.weight(service_class)))
