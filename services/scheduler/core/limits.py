"""Operator-set bounds that decisions respect."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on chunks and leases.

    Attributes:
        chunk_rows: most rows of a chunk.
        max_leases: most leased chunks at a time; the other three bound them by tenant, model and job.
        max_attempts: after so many expired or failed leases of one chunk its job fails.
    """

    chunk_rows: int = 2048
    max_leases: int = 64
    max_leases_per_tenant: int = 32
    max_leases_per_model: int = 32
    max_leases_per_job: int = 16
    max_attempts: int = 5
