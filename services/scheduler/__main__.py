"""`python -m services.scheduler`."""

import asyncio
import os
import signal
import sys

from services.scheduler.app import Scheduler
from services.scheduler.service import NAME
from services.scheduler.settings import SchedulerSettings
from tidemill import telemetry
from tidemill.config import CommonSettings
from tidemill.errors import TidemillError
from tidemill.internal.v1 import scheduler_service_pb2_grpc
from tidemill.serving import ServerSpec, serve

log = telemetry.logger(__name__)


async def run(common: CommonSettings, settings: SchedulerSettings) -> None:
    """Serve until told to stop, or until the ledger has another owner."""
    common.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    scheduler = Scheduler(
        settings.open_ledger(common.home), settings.limits, settings.lease_seconds, quotas=settings.tenant_quotas
    )
    await scheduler.start()
    spec = ServerSpec(
        address=settings.address,
        http_address=settings.http_address,
        services=(NAME,),
        register=lambda server: scheduler_service_pb2_grpc.add_SchedulerServiceServicer_to_server(
            scheduler.service, server
        ),
        ready=scheduler.readiness,
        drain=scheduler.drain,
        ready_file=common.ready_file,
        max_message_bytes=16 << 20,
        grace_seconds=settings.drain_seconds,
        # Gateways and workers trace what is worth it; thousands of traces of single polls would be noise.
        traces=False,
    )
    guard = asyncio.create_task(_stop_when_fenced(scheduler))
    try:
        await serve(spec)
    finally:
        guard.cancel()
        await scheduler.close()
    if scheduler.engine.stopped.is_set() and scheduler.engine.failure:
        raise scheduler.engine.failure


async def _stop_when_fenced(scheduler: Scheduler) -> None:
    """A scheduler that lost its ledger must not go on answering reads: leave as on SIGTERM."""
    await scheduler.engine.stopped.wait()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Exit status: 0 after an orderly stop, 1 when the ledger cannot be had."""
    common = CommonSettings()
    telemetry.setup("scheduler", common.telemetry_folder)
    try:
        asyncio.run(run(common, SchedulerSettings()))
    except TidemillError as error:
        log.error("scheduler stopped", reason=error.reason, message=error.message)
        return 1
    finally:
        telemetry.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
