"""The RPC about quotas."""

# ruff: noqa: N802, ARG002 - names and signatures are those of the generated servicer

from typing import Any

import grpc.aio

from services.scheduler.core import quotas
from services.scheduler.core.times import to_timestamp
from services.scheduler.engine import Turn
from services.scheduler.shell import Shell
from tidemill.internal.v1 import scheduler_service_pb2 as pb
from tidemill.names import check_tenant
from tidemill.v1 import quota_service_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class QuotaCalls:
    """Show limits."""

    _shell: Shell

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Context) -> pb.GetQuotaResponse:
        """A tenant's limits and what it uses."""
        tenant = check_tenant(request.tenant)
        quota, cap = self._shell.quotas.of(tenant), self._shell.limits.tenant_cap(tenant)

        def step(turn: Turn) -> pb.GetQuotaResponse:
            uses = quotas.uses(turn.state, tenant, quota, cap, turn.now_ns)
            return pb.GetQuotaResponse(
                uses=[quota_service_pb2.QuotaUse(quota=what, limit=limit, used=used) for what, limit, used in uses],
                day_end_time=to_timestamp(quotas.day_end_ns(turn.now_ns)),
            )

        return await self._shell.engine.execute(step)
