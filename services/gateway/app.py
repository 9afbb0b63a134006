"""Puts the gateway's parts together and serves them."""

import asyncio
import os
import signal
from dataclasses import dataclass

import grpc
import grpc.aio

from services.gateway.admin import Admin
from services.gateway.append import AppendRows, AppendRowsOnce
from services.gateway.append_limits import MemoryBudget, StreamLimit
from services.gateway.appender import SegmentLimits
from services.gateway.ask_again import AskAgain
from services.gateway.audit import AuditLog
from services.gateway.auth import Authenticator
from services.gateway.background import Background
from services.gateway.catalogue import ModelCatalogue
from services.gateway.completions import Completions
from services.gateway.create import CreateJob
from services.gateway.drain import Drain
from services.gateway.export_results import ExportResults
from services.gateway.guard import Guard
from services.gateway.import_rows import ImportRows
from services.gateway.job_copier import JobCopier
from services.gateway.jobs import Jobs
from services.gateway.limits import MAX_MESSAGE_BYTES
from services.gateway.models import Models
from services.gateway.page_tokens import PageTokens
from services.gateway.provenance import Provenance
from services.gateway.quotas import Quotas
from services.gateway.rates import Rates
from services.gateway.results import ReadResults
from services.gateway.scheduler import Scheduler
from services.gateway.seal import Sealer
from services.gateway.service import AdminService, Callers, JobService, ModelService, QuotaService
from services.gateway.settings import TLS_VARIABLES, GatewaySettings
from services.gateway.submit import SubmitJob
from services.gateway.verbs import Verbs
from services.gateway.watch import WatchJob
from services.gateway.writers import Writers
from tidemill import telemetry
from tidemill.config import CommonSettings
from tidemill.leaders import open_leader_channel
from tidemill.ops import Readiness
from tidemill.segments import input_table
from tidemill.serving import ServerSpec, serve
from tidemill.store import open_store
from tidemill.v1 import (
    admin_service_pb2_grpc,
    job_service_pb2_grpc,
    model_service_pb2_grpc,
    quota_service_pb2_grpc,
)

log = telemetry.logger(__name__)

SERVICES = (
    "tidemill.v1.JobService",
    "tidemill.v1.ModelService",
    "tidemill.v1.AdminService",
    "tidemill.v1.QuotaService",
)


@dataclass(frozen=True)
class Gateway:
    """The gateway's servicers, and what ends with them."""

    jobs: JobService
    models: ModelService
    admin: AdminService
    quotas: QuotaService
    guard: Guard
    drain: Drain
    background: Background


def build(settings: GatewaySettings, common: CommonSettings, connection: grpc.aio.Channel) -> Gateway:
    """The gateway's parts; raises STORE_FAILED when the object store cannot be used."""
    store = open_store(settings.store_uri(common))
    pepper = settings.key_pepper.get_secret_value()
    callers = Callers()
    rates = Rates(settings.rates)
    guard = Guard(Authenticator(settings.keys_path(common), pepper), rates, AuditLog(settings.audit_file))
    scheduler = Scheduler(connection, settings.scheduler_patience_seconds)
    drain, background = Drain(), Background()
    catalogue, tokens = ModelCatalogue(scheduler), PageTokens(pepper)
    limits = SegmentLimits(settings.segment_rows, settings.segment_bytes, settings.linger_seconds)
    jobs = Jobs(scheduler, store, catalogue, tokens)
    budget, streams = MemoryBudget(settings.append_bytes), StreamLimit(settings.append_streams_per_tenant)
    writers = Writers(scheduler, store, catalogue, limits, budget=budget, streams=streams)
    sealer = Sealer(scheduler, store)
    copier = JobCopier(writers, sealer, catalogue, scheduler=scheduler, background=background)
    results, transfers = ReadResults(scheduler, store, drain), settings.transfers_of(common)
    service = JobService(
        callers,
        store,
        create=CreateJob(jobs, scheduler, store),
        jobs=jobs,
        append=AppendRows(writers, drain, settings.append_idle_seconds),
        append_once=AppendRowsOnce(writers, scheduler),
        sealer=sealer,
        submit=SubmitJob(
            jobs,
            writers,
            sealer,
            scheduler=scheduler,
            store=store,
            background=background,
            idle_seconds=settings.append_idle_seconds,
        ),
        watch=WatchJob(scheduler, store, drain, settings.heartbeat_seconds),
        results=results,
        completions=Completions(scheduler, store),
        verbs=Verbs(scheduler, store),
        again=AskAgain(copier, scheduler, store),
        provenance=Provenance(scheduler, store),
        importer=ImportRows(writers, scheduler, transfers, drain),
        exporter=ExportResults(results, scheduler, store, transfers),
    )
    return Gateway(
        service,
        ModelService(callers, Models(scheduler, tokens)),
        AdminService(callers, Admin(scheduler, store)),
        QuotaService(callers, Quotas(scheduler, rates)),
        guard,
        drain,
        background,
    )


async def run(settings: GatewaySettings, common: CommonSettings) -> None:
    """Serve until told to stop."""
    # pyarrow imports pandas for its first table, which takes a second that no client should wait for.
    input_table([])
    async with open_leader_channel(settings.scheduler, tls=common.mtls) as connection:
        gateway = build(settings, common, connection)
        link = _SchedulerLink(connection)
        tasks = [asyncio.create_task(link.follow()), asyncio.create_task(gateway.guard.watch())]
        for task in tasks:
            task.add_done_callback(_stop_unless_cancelled)

        def register(server: grpc.aio.Server) -> None:
            job_service_pb2_grpc.add_JobServiceServicer_to_server(gateway.jobs, server)
            model_service_pb2_grpc.add_ModelServiceServicer_to_server(gateway.models, server)
            admin_service_pb2_grpc.add_AdminServiceServicer_to_server(gateway.admin, server)
            quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(gateway.quotas, server)

        try:
            await serve(
                ServerSpec(
                    address=settings.address,
                    http_address=settings.http_address,
                    services=SERVICES,
                    register=register,
                    tls=settings.tls,
                    tls_remedy=f"set {' and '.join(TLS_VARIABLES)}",
                    plaintext=common.plaintext,
                    interceptors=[gateway.guard],
                    ready=link.readiness,
                    drain=gateway.drain.start,
                    ready_file=common.ready_file,
                    max_message_bytes=MAX_MESSAGE_BYTES,
                    grace_seconds=settings.drain_seconds,
                )
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await gateway.background.close(settings.drain_seconds)


def _stop_unless_cancelled(task: asyncio.Task[None]) -> None:
    """Without these the gateway would go on with revoked keys or a wrong health: leave, as on SIGTERM."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("gateway stops", error=repr(error))
        os.kill(os.getpid(), signal.SIGTERM)


class _SchedulerLink:
    """Whether the scheduler is connected, for `/readyz`."""

    def __init__(self, connection: grpc.aio.Channel) -> None:
        self._connection = connection
        self._state = grpc.ChannelConnectivity.IDLE

    async def follow(self) -> None:
        """Keep the state current, and the channel connected."""
        while True:
            self._state = self._connection.get_state(try_to_connect=True)
            await self._connection.wait_for_state_change(self._state)

    def readiness(self) -> Readiness:
        """Ready while the scheduler is connected."""
        return Readiness(self._state is grpc.ChannelConnectivity.READY, {"scheduler": self._state.name})
