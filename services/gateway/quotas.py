"""`GetQuota`: what the scheduler limits, and what this gateway does."""

from services.gateway.auth import Principal
from services.gateway.rates import Rates
from services.gateway.scheduler import Scheduler
from tidemill.errors import Reason, TidemillError
from tidemill.keys import Scope
from tidemill.names import parse_parent
from tidemill.v1 import quota_service_pb2

_SUFFIX = "/quota"


class Quotas:
    """Quotas as resources."""

    def __init__(self, scheduler: Scheduler, rates: Rates) -> None:
        self._scheduler = scheduler
        self._rates = rates

    async def get(self, principal: Principal, request: quota_service_pb2.GetQuotaRequest) -> quota_service_pb2.Quota:
        """The caller's, or for an admin key anybody's."""
        tenant = _tenant(principal, request.name)
        kept = await self._scheduler.get_quota(tenant)
        here = [
            quota_service_pb2.QuotaUse(quota=what, limit=most, used=now) for what, most, now in self._rates.uses(tenant)
        ]
        return quota_service_pb2.Quota(
            name=f"tenants/{tenant}{_SUFFIX}", uses=[*kept.uses, *here], day_end_time=kept.day_end_time
        )


def _tenant(principal: Principal, name: str) -> str:
    if not name:
        return principal.tenant
    if not name.endswith(_SUFFIX):
        raise TidemillError(
            Reason.INVALID_NAME,
            f"quota name {name[:128]!r} is not of the form tenants/{{tenant}}/quota",
            metadata={"name": name[:128]},
        )
    parent = name.removesuffix(_SUFFIX)
    if Scope.ADMIN not in principal.scopes:
        principal.check_parent(parent)
    return parse_parent(parent)
