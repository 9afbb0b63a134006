"""`python -m services.scheduler`."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

from services.scheduler.app import Scheduler
from services.scheduler.leadership import Barred, Leadership
from services.scheduler.ledger import Ledger, RedisLedger
from services.scheduler.routing import RoutedService
from services.scheduler.service import NAME
from services.scheduler.settings import SchedulerSettings
from tidemill import telemetry
from tidemill.config import MTLS_VARIABLES, CommonSettings
from tidemill.errors import TidemillError
from tidemill.internal.v1 import scheduler_service_pb2_grpc
from tidemill.ops import Readiness
from tidemill.serving import ServerSpec, serve

log = telemetry.logger(__name__)


async def run(common: CommonSettings, settings: SchedulerSettings) -> None:
    """Serve until told to stop, or until the ledger has another owner."""
    common.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    ledger = settings.open_ledger(common.home)
    if isinstance(ledger, RedisLedger):
        await _run_one_of_several(ledger, common, settings)
    else:
        await _run_alone(ledger, common, settings)


async def _run_alone(ledger: Ledger, common: CommonSettings, settings: SchedulerSettings) -> None:
    """The ledger has room for one scheduler; a second one is refused."""
    scheduler = _scheduler(ledger, settings)
    await scheduler.start()
    guard = asyncio.create_task(_stop_when_fenced(scheduler))
    spec = _spec(scheduler.service, scheduler.readiness, common, settings)
    try:
        await serve(replace(spec, drain=scheduler.drain))
    finally:
        guard.cancel()
        await scheduler.close()
    if scheduler.engine.stopped.is_set() and scheduler.engine.failure:
        raise scheduler.engine.failure


async def _run_one_of_several(ledger: RedisLedger, common: CommonSettings, settings: SchedulerSettings) -> None:
    """Schedulers share the ledger: this one serves from the start, and answers while it leads."""
    leadership = Leadership(ledger, partial(_scheduler, ledger, settings), settings.term_seconds)
    spec = _spec(RoutedService(leadership.leading), leadership.readiness, common, settings)
    await serve(replace(spec, lead=partial(leadership.run, advertise=settings.advertise)))


def _scheduler(ledger: Ledger, settings: SchedulerSettings, barred: Barred | None = None) -> Scheduler:
    quotas = settings.tenant_quotas
    return Scheduler(
        ledger, settings.limits, settings.lease_seconds, quotas=quotas, barred=barred, upkeep=settings.upkeep
    )


def _spec(
    service: object, ready: Callable[[], Readiness], common: CommonSettings, settings: SchedulerSettings
) -> ServerSpec:
    add = cast("Any", scheduler_service_pb2_grpc).add_SchedulerServiceServicer_to_server
    return ServerSpec(
        address=settings.address,
        http_address=settings.http_address,
        services=(NAME,),
        register=lambda server: add(service, server),
        ready=ready,
        ready_file=common.ready_file,
        max_message_bytes=16 << 20,
        grace_seconds=settings.drain_seconds,
        tls=common.mtls,
        tls_remedy=f"set {', '.join(MTLS_VARIABLES)}",
        plaintext=common.plaintext,
        # Gateways and workers trace what is worth it; thousands of traces of single polls would be noise.
        traces=False,
    )


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
