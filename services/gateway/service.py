"""The public gRPC services: each method names its caller and hands over to the part that does the work."""

# ruff: noqa: N802 - gRPC method names are those of the proto

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import Message

from services.gateway.admin import Admin
from services.gateway.append import AppendRows, AppendRowsOnce
from services.gateway.ask_again import AskAgain
from services.gateway.auth import Principal, caller
from services.gateway.completions import Completions
from services.gateway.convert import public_job
from services.gateway.create import CreateJob
from services.gateway.export_results import ExportResults
from services.gateway.import_rows import ImportRows
from services.gateway.jobs import Jobs
from services.gateway.models import Models
from services.gateway.provenance import Provenance
from services.gateway.quotas import Quotas
from services.gateway.results import ReadResults
from services.gateway.seal import Sealer
from services.gateway.submit import SubmitJob
from services.gateway.unknown_fields import has_unknown_fields, unknown_fields
from services.gateway.verbs import Verbs
from services.gateway.watch import WatchJob
from tidemill.store import ObjectStore
from tidemill.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    provenance_pb2,
    quota_service_pb2,
    quota_service_pb2_grpc,
    transfer_pb2,
)


class Callers:
    """Names the caller of an RPC, whom the guard let in."""

    def caller(self, context: Any, request: Message | None = None) -> Principal:  # noqa: ARG002 - the call's own
        """The caller; UNSUPPORTED_PARAMETER when `request` has fields that nobody would read."""
        if request is not None and has_unknown_fields(request):
            raise unknown_fields()
        return caller.get()


class JobService(job_service_pb2_grpc.JobServiceServicer):
    """`tidemill.v1.JobService`."""

    def __init__(
        self,
        callers: Callers,
        store: ObjectStore,
        *,
        create: CreateJob,
        jobs: Jobs,
        append: AppendRows,
        append_once: AppendRowsOnce,
        sealer: Sealer,
        submit: SubmitJob,
        watch: WatchJob,
        results: ReadResults,
        completions: Completions,
        verbs: Verbs,
        again: AskAgain,
        provenance: Provenance,
        importer: ImportRows,
        exporter: ExportResults,
    ) -> None:
        self._importer = importer
        self._exporter = exporter
        self._callers = callers
        self._store = store
        self._create = create
        self._jobs = jobs
        self._append = append
        self._append_once = append_once
        self._sealer = sealer
        self._submit = submit
        self._watch = watch
        self._results = results
        self._completions = completions
        self._verbs = verbs
        self._again = again
        self._provenance = provenance

    async def CreateJob(self, request: job_service_pb2.CreateJobRequest, context: Any) -> job_pb2.Job:
        return await self._create.handle(self._callers.caller(context, request), request)

    async def AppendRows(
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[job_service_pb2.AppendRowsResponse]:
        caller = self._callers.caller(context)
        async for response in self._append.handle(caller, request_iterator):
            yield response

    async def AppendRowsOnce(
        self, request: job_service_pb2.AppendRowsOnceRequest, context: Any
    ) -> job_service_pb2.AppendAck:
        return await self._append_once.handle(self._callers.caller(context), request)

    async def ImportRows(
        self, request: transfer_pb2.ImportRowsRequest, context: Any
    ) -> transfer_pb2.ImportRowsResponse:
        return await self._importer.handle(self._callers.caller(context, request), request)

    async def ExportResults(
        self, request: transfer_pb2.ExportResultsRequest, context: Any
    ) -> transfer_pb2.ExportResultsResponse:
        return await self._exporter.handle(self._callers.caller(context, request), request)

    async def SealJob(self, request: job_service_pb2.SealJobRequest, context: Any) -> job_pb2.Job:
        name = self._callers.caller(context, request).job(request.name)
        return public_job(await self._sealer.seal(name, request.row_count), self._store)

    async def SubmitJob(self, request_iterator: Any, context: Any) -> job_pb2.Job:
        caller = self._callers.caller(context)
        record = await self._submit.handle(caller, request_iterator)
        return public_job(record, self._store)

    async def GetJob(self, request: job_service_pb2.GetJobRequest, context: Any) -> job_pb2.Job:
        return await self._jobs.get(self._callers.caller(context, request), request)

    async def ListJobs(
        self, request: job_service_pb2.ListJobsRequest, context: Any
    ) -> job_service_pb2.ListJobsResponse:
        return await self._jobs.list(self._callers.caller(context, request), request)

    async def CancelJob(self, request: job_service_pb2.CancelJobRequest, context: Any) -> job_pb2.Job:
        return await self._jobs.cancel(self._callers.caller(context, request), request)

    async def WatchJob(
        self, request: job_service_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[job_service_pb2.WatchJobResponse]:
        caller = self._callers.caller(context, request)
        async for response in self._watch.handle(caller, request):
            yield response

    async def ReadResults(
        self, request: job_service_pb2.ReadResultsRequest, context: Any
    ) -> AsyncIterator[job_service_pb2.ReadResultsResponse]:
        caller = self._callers.caller(context, request)
        async for response in self._results.handle(caller, request):
            yield response

    async def ListCompletions(
        self, request: job_service_pb2.ListCompletionsRequest, context: Any
    ) -> job_service_pb2.ListCompletionsResponse:
        return await self._completions.list(self._callers.caller(context, request), request)

    async def PauseJob(self, request: job_service_pb2.PauseJobRequest, context: Any) -> job_pb2.Job:
        return await self._verbs.pause(self._callers.caller(context, request), request)

    async def ResumeJob(self, request: job_service_pb2.ResumeJobRequest, context: Any) -> job_pb2.Job:
        return await self._verbs.resume(self._callers.caller(context, request), request)

    async def UpdateJob(self, request: job_service_pb2.UpdateJobRequest, context: Any) -> job_pb2.Job:
        return await self._verbs.update(self._callers.caller(context, request), request)

    async def DeleteJob(
        self, request: job_service_pb2.DeleteJobRequest, context: Any
    ) -> job_service_pb2.DeleteJobResponse:
        return await self._verbs.delete(self._callers.caller(context, request), request)

    async def RetryFailedRows(self, request: job_service_pb2.RetryFailedRowsRequest, context: Any) -> job_pb2.Job:
        return public_job(await self._again.retry(self._callers.caller(context, request), request), self._store)

    async def EstimateJob(
        self, request: job_service_pb2.EstimateJobRequest, context: Any
    ) -> job_service_pb2.EstimateJobResponse:
        return await self._verbs.estimate(self._callers.caller(context, request), request)

    async def ExplainJob(
        self, request: job_service_pb2.ExplainJobRequest, context: Any
    ) -> job_service_pb2.ExplainJobResponse:
        return await self._verbs.explain(self._callers.caller(context, request), request)

    async def ReplayRows(self, request: provenance_pb2.ReplayRowsRequest, context: Any) -> job_pb2.Job:
        record = await self._again.replay(self._callers.caller(context, request), request)
        return public_job(record, self._store)

    async def GetRowProvenance(
        self, request: provenance_pb2.GetRowProvenanceRequest, context: Any
    ) -> provenance_pb2.RowProvenance:
        return await self._provenance.get(self._callers.caller(context, request), request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`tidemill.v1.ModelService`."""

    def __init__(self, callers: Callers, models: Models) -> None:
        self._callers = callers
        self._models = models

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Any
    ) -> model_service_pb2.ListModelsResponse:
        self._callers.caller(context, request)
        return await self._models.list(request)

    async def GetModel(self, request: model_service_pb2.GetModelRequest, context: Any) -> model_service_pb2.Model:
        self._callers.caller(context, request)
        return await self._models.get(request.name)

    async def DrainModel(self, request: model_service_pb2.DrainModelRequest, context: Any) -> model_service_pb2.Model:
        self._callers.caller(context, request)
        return await self._models.change(request.name, drained=True)

    async def UndrainModel(
        self, request: model_service_pb2.UndrainModelRequest, context: Any
    ) -> model_service_pb2.Model:
        self._callers.caller(context, request)
        return await self._models.change(request.name, drained=False)

    async def PinModel(self, request: model_service_pb2.PinModelRequest, context: Any) -> model_service_pb2.Model:
        self._callers.caller(context, request)
        return await self._models.change(request.name, pinned=True)

    async def UnpinModel(self, request: model_service_pb2.UnpinModelRequest, context: Any) -> model_service_pb2.Model:
        self._callers.caller(context, request)
        return await self._models.change(request.name, pinned=False)


class AdminService(admin_service_pb2_grpc.AdminServiceServicer):
    """`tidemill.v1.AdminService`."""

    def __init__(self, callers: Callers, admin: Admin) -> None:
        self._callers = callers
        self._admin = admin

    async def RequeueChunk(self, request: admin_service_pb2.RequeueChunkRequest, context: Any) -> job_pb2.Job:
        self._callers.caller(context, request)
        return await self._admin.requeue_chunk(request)

    async def ForceFailJob(self, request: admin_service_pb2.ForceFailJobRequest, context: Any) -> job_pb2.Job:
        self._callers.caller(context, request)
        return await self._admin.force_fail(request)


class QuotaService(quota_service_pb2_grpc.QuotaServiceServicer):
    """`tidemill.v1.QuotaService`."""

    def __init__(self, callers: Callers, quotas: Quotas) -> None:
        self._callers = callers
        self._quotas = quotas

    async def GetQuota(self, request: quota_service_pb2.GetQuotaRequest, context: Any) -> quota_service_pb2.Quota:
        return await self._quotas.get(self._callers.caller(context, request), request)
