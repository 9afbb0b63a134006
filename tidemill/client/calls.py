"""The unary calls of the client as values, made the same way by `Transport` and `AioTransport`."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Unpack

from google.protobuf import field_mask_pb2
from google.protobuf.message import Message

from tidemill.client.terms import Deadline, JobOptions, Terms, new_job, set_deadline, set_terms, window_of
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import (
    admin_service_pb2,
    job_pb2,
    job_service_pb2,
    model_service_pb2,
    provenance_pb2,
    quota_service_pb2,
    transfer_pb2,
)

T = TypeVar("T")
pb = job_service_pb2

CALL_SECONDS = 30.0
_RETRY_SECONDS = 600.0
_TRANSFER_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class Call(Generic[T]):
    """An idempotent call that answers with a T: a method of the `jobs`, `models`, `admin` or `quotas` stub, and
    its request."""

    service: str
    method: str
    request: Message
    timeout: float = CALL_SECONDS


def create_job(job: job_pb2.Job, request_id: str) -> Call[job_pb2.Job]:
    """A repeated attempt finds the job of the first one, so an id is made up where none is given."""
    return Call("jobs", "CreateJob", pb.CreateJobRequest(job=job, request_id=request_id or uuid.uuid4().hex))


def seal_job(name: str, row_count: int) -> Call[job_pb2.Job]:
    return Call("jobs", "SealJob", pb.SealJobRequest(name=name, row_count=row_count))


def get_job(name: str) -> Call[job_pb2.Job]:
    return Call("jobs", "GetJob", pb.GetJobRequest(name=name))


def cancel_job(name: str) -> Call[job_pb2.Job]:
    return Call("jobs", "CancelJob", pb.CancelJobRequest(name=name))


def pause_job(name: str) -> Call[job_pb2.Job]:
    return Call("jobs", "PauseJob", pb.PauseJobRequest(name=name))


def resume_job(name: str) -> Call[job_pb2.Job]:
    return Call("jobs", "ResumeJob", pb.ResumeJobRequest(name=name))


def update_job(name: str, deadline: Deadline | None, terms: Terms) -> Call[job_pb2.Job]:
    job = job_pb2.Job(name=name)
    paths = set_terms(job, terms)
    if deadline is not None:
        paths.append(set_deadline(job, deadline))
    return Call("jobs", "UpdateJob", pb.UpdateJobRequest(job=job, update_mask=field_mask_pb2.FieldMask(paths=paths)))


def delete_job(name: str, etag: str) -> Call[pb.DeleteJobResponse]:
    return Call("jobs", "DeleteJob", pb.DeleteJobRequest(name=name, etag=etag))


def retry_failed_rows(name: str, deadline: Any, request_id: str) -> Call[job_pb2.Job]:
    request = pb.RetryFailedRowsRequest(name=name, request_id=request_id or uuid.uuid4().hex)
    if deadline is not None:
        request.completion_window.CopyFrom(window_of(deadline))
    return Call("jobs", "RetryFailedRows", request, _RETRY_SECONDS)


def estimate_job(name: str) -> Call[pb.EstimateJobResponse]:
    return Call("jobs", "EstimateJob", pb.EstimateJobRequest(job=job_pb2.Job(name=name)))


def estimate(
    rows: int, model: str, prompt_tokens: int, output_tokens: int, **options: Unpack[JobOptions]
) -> Call[pb.EstimateJobResponse]:
    request = pb.EstimateJobRequest(
        job=new_job(model, **options),
        row_count=rows,
        prompt_tokens_per_row=prompt_tokens,
        output_tokens_per_row=output_tokens,
    )
    return Call("jobs", "EstimateJob", request)


def explain_job(name: str) -> Call[pb.ExplainJobResponse]:
    return Call("jobs", "ExplainJob", pb.ExplainJobRequest(name=name))


def get_row_provenance(name: str, row_index: int) -> Call[provenance_pb2.RowProvenance]:
    return Call("jobs", "GetRowProvenance", provenance_pb2.GetRowProvenanceRequest(name=name, row_index=row_index))


def replay_rows(name: str, rows: Iterable[int], deadline: Any, request_id: str) -> Call[job_pb2.Job]:
    request = provenance_pb2.ReplayRowsRequest(name=name, row_indices=rows, request_id=request_id or uuid.uuid4().hex)
    if deadline is not None:
        request.completion_window.CopyFrom(window_of(deadline))
    return Call("jobs", "ReplayRows", request, _RETRY_SECONDS)


def import_rows(name: str, uri: str, start: int) -> Call[transfer_pb2.ImportRowsResponse]:
    request = transfer_pb2.ImportRowsRequest(name=name, uri=uri, start_offset=start)
    return Call("jobs", "ImportRows", request, _TRANSFER_SECONDS)


def export_results(name: str, uri: str, *, overwrite: bool) -> Call[transfer_pb2.ExportResultsResponse]:
    request = transfer_pb2.ExportResultsRequest(name=name, uri=uri, overwrite=overwrite)
    return Call("jobs", "ExportResults", request, _TRANSFER_SECONDS)


def list_jobs(
    states: Iterable[str], model: str, labels: Mapping[str, str] | None, page_size: int, page_token: str
) -> Call[pb.ListJobsResponse]:
    request = pb.ListJobsRequest(model=model, labels=labels, page_size=page_size, page_token=page_token)
    request.states.extend(_state(name) for name in states)
    return Call("jobs", "ListJobs", request)


def list_models(page_token: str = "") -> Call[model_service_pb2.ListModelsResponse]:
    return Call("models", "ListModels", model_service_pb2.ListModelsRequest(page_token=page_token))


def get_model(model: str) -> Call[model_service_pb2.Model]:
    return Call("models", "GetModel", model_service_pb2.GetModelRequest(name=f"models/{model}"))


def drain_model(model: str) -> Call[model_service_pb2.Model]:
    return Call("models", "DrainModel", model_service_pb2.DrainModelRequest(name=f"models/{model}"))


def undrain_model(model: str) -> Call[model_service_pb2.Model]:
    return Call("models", "UndrainModel", model_service_pb2.UndrainModelRequest(name=f"models/{model}"))


def pin_model(model: str) -> Call[model_service_pb2.Model]:
    return Call("models", "PinModel", model_service_pb2.PinModelRequest(name=f"models/{model}"))


def unpin_model(model: str) -> Call[model_service_pb2.Model]:
    return Call("models", "UnpinModel", model_service_pb2.UnpinModelRequest(name=f"models/{model}"))


def requeue_chunk(job: str, row_index: int) -> Call[job_pb2.Job]:
    return Call("admin", "RequeueChunk", admin_service_pb2.RequeueChunkRequest(name=job, row_index=row_index))


def force_fail(job: str, message: str) -> Call[job_pb2.Job]:
    return Call("admin", "ForceFailJob", admin_service_pb2.ForceFailJobRequest(name=job, message=message))


def _state(name: str) -> job_pb2.JobState.ValueType:
    known = [state.removeprefix("JOB_STATE_") for state in job_pb2.JobState.keys()[1:]]
    if name.upper() not in known:
        message = f"{name!r} is not a job state; states are {', '.join(known).lower()}"
        raise TidemillError(Reason.INVALID_ARGUMENT, message)
    return job_pb2.JobState.Value(f"JOB_STATE_{name.upper()}")


def get_quota(tenant: str) -> Call[quota_service_pb2.Quota]:
    name = f"tenants/{tenant}/quota" if tenant else ""
    return Call("quotas", "GetQuota", quota_service_pb2.GetQuotaRequest(name=name))
