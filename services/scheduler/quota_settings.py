"""Quotas as an operator writes them: JSON by tenant, `*` for the rest."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from services.scheduler.core.quotas import Quota, Quotas
from tidemill.errors import TidemillError
from tidemill.names import check_tenant

_Count = Annotated[int, Field(ge=0)]

REST = "*"


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    jobs: _Count = 0
    rows: _Count = 0
    tokens: _Count = 0
    tokens_per_day: _Count = 0
    chunks: _Count = 0

    def quota(self) -> Quota:
        return Quota(self.jobs, self.rows, self.tokens, self.tokens_per_day, self.chunks)


_BY_TENANT = TypeAdapter(dict[str, _Limits])


def read_quotas(text: str) -> Quotas:
    """The quotas that `text` says; empty: none.

    Raises:
        ValueError: it is not JSON of that shape; names the tenant and the key.
    """
    if not text:
        return Quotas()
    try:
        limits = _BY_TENANT.validate_json(text)
        for tenant in limits.keys() - {REST}:
            check_tenant(tenant)
    except ValidationError as exc:
        first = exc.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'value'}: {first['msg']}") from None
    except TidemillError as exc:
        raise ValueError(exc.message) from None
    quotas = {tenant: limit.quota() for tenant, limit in limits.items()}
    return Quotas(quotas.pop(REST, Quota()), quotas)
