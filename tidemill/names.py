"""Resource names: `tenants/{tenant}/jobs/{job}`. They are checked once, at the edge."""

import re
import secrets
import time
from dataclasses import dataclass

from tidemill.errors import Reason, TidemillError

_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_JOB = re.compile(r"tenants/([^/]+)/jobs/([^/]+)")
MAX_MODEL_BYTES = 256
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class JobName:
    """The two ids in a job's name."""

    tenant: str
    job_id: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/jobs/{self.job_id}"

    @property
    def prefix(self) -> str:
        """Folder of the job in the object store, without a trailing slash."""
        return f"jobs/{self.tenant}/{self.job_id}"


def new_job_id() -> str:
    """A ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32, so that ids sort by creation time."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def check_tenant(tenant: str) -> str:
    """Return `tenant`, or raise INVALID_NAME."""
    if not _TENANT.fullmatch(tenant):
        raise TidemillError(
            Reason.INVALID_NAME,
            f"tenant {tenant[:64]!r} is not a tenant id: use 1 to 63 of a-z, 0-9 and '-', not starting with '-'",
            metadata={"tenant": tenant[:64]},
        )
    return tenant


def parse_parent(parent: str) -> str:
    """The tenant in `tenants/{tenant}`, or raise INVALID_NAME."""
    collection, _, tenant = parent.partition("/")
    if collection != "tenants":
        raise TidemillError(
            Reason.INVALID_NAME,
            f"parent {parent[:128]!r} is not of the form tenants/{{tenant}}",
            metadata={"parent": parent[:128]},
        )
    return check_tenant(tenant)


def parse_job(name: str) -> JobName:
    """The ids in a job's name, or raise INVALID_NAME."""
    match = _JOB.fullmatch(name)
    if not match or not _TENANT.fullmatch(match[1]) or not _ULID.fullmatch(match[2]):
        raise TidemillError(
            Reason.INVALID_NAME,
            f"job name {name[:128]!r} is not of the form tenants/{{tenant}}/jobs/{{ULID}}",
            metadata={"name": name[:128]},
        )
    return JobName(match[1], match[2])


def parse_model(name: str) -> str:
    """The model id in `models/{model}`, or raise INVALID_NAME. Ids may hold slashes, as `Qwen/Qwen2.5-0.5B` does."""
    collection, _, model = name.partition("/")
    if collection != "models" or not 1 <= len(model.encode()) <= MAX_MODEL_BYTES:
        raise TidemillError(
            Reason.INVALID_NAME,
            f"model name {name[:128]!r} is not of the form models/{{model}}",
            metadata={"name": name[:128]},
        )
    return model
