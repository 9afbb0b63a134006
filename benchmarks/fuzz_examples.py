"""Good requests of each method, for a fuzzer to spoil: one thing wrong gets further than a message at random."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import duration_pb2, field_mask_pb2
from google.protobuf.message import Message

from benchmarks.fuzz_messages import Corpus
from tidemill.internal.v1 import records_pb2
from tidemill.internal.v1 import scheduler_service_pb2 as scheduler_pb
from tidemill.v1 import admin_service_pb2, job_pb2, model_service_pb2, provenance_pb2, row_pb2, transfer_pb2
from tidemill.v1 import job_service_pb2 as pb

__all__ = ["Examples", "FreshJobs", "corpus_of", "examples_of"]

Examples = Mapping[str, Sequence[Message]]
"""Requests by the name of the method; those of a stream in order."""


@dataclass(frozen=True)
class FreshJobs:
    """Names of jobs in several states, and the model that they are for."""

    model: str
    receiving: str
    filled: str
    queued: str
    ended: str

    @property
    def names(self) -> list[str]:
        """All of them, and two that do not exist."""
        strangers = ["tenants/nobody/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV", "tenants/dev/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"]
        return [self.receiving, self.filled, self.queued, self.ended, *strangers]


def corpus_of(jobs: FreshJobs) -> Corpus:
    """Texts by field name."""
    return {
        "name": [*jobs.names, f"models/{jobs.model}"],
        "job": jobs.names,
        "before_name": jobs.names,
        "parent": ["", jobs.queued.rpartition("/jobs/")[0]],
        "tenant": [jobs.queued.split("/")[1]],
        "model": [jobs.model],
        "worker_id": ["fuzz-worker"],
    }


def examples_of(jobs: FreshJobs) -> Examples:
    """Requests that the gateway and the scheduler accept, or almost."""
    return {**_job_examples(jobs), **_reading_examples(jobs), **_verb_examples(jobs), **_model_examples(jobs)}


def _rows(count: int) -> list[row_pb2.Row]:
    sampling = row_pb2.SamplingParams(temperature=0.5, max_tokens=4, stop=["x"], json_schema='{"type":"object"}')
    chat = row_pb2.ChatInput(messages=[row_pb2.ChatMessage(role="user", content="hello")])
    first = [row_pb2.Row(custom_id="a", prompt="x", sampling=sampling), row_pb2.Row(custom_id="b", chat=chat)]
    return [*first, *(row_pb2.Row(custom_id=f"c{n}", prompt="y") for n in range(count))]


def _new_job(model: str) -> job_pb2.Job:
    return job_pb2.Job(
        model=model,
        sampling=row_pb2.SamplingParams(temperature=1, top_p=0.9, max_tokens=8, seed=1),
        completion_window=duration_pb2.Duration(seconds=7200),
        dataset="mine",
        labels={"team": "a"},
        service_class=job_pb2.SERVICE_CLASS_FLEX,
        escalation=job_pb2.Escalation(raise_class=True),
    )


def _job_examples(jobs: FreshJobs) -> Examples:
    create = pb.CreateJobRequest(job=_new_job(jobs.model), expected_rows=10, expected_tokens=100)
    plain = pb.CreateJobRequest(job=_new_job(jobs.model))
    more = [pb.AppendRowsRequest(offset=0, rows=_rows(5)), pb.AppendRowsRequest(offset=7)]
    return {
        "CreateJob": [create],
        "AppendRows": [pb.AppendRowsRequest(job=jobs.receiving), *more],
        "AppendRowsOnce": [pb.AppendRowsOnceRequest(job=jobs.receiving, offset=0, rows=_rows(3))],
        "SubmitJob": [pb.SubmitJobRequest(create=plain), pb.SubmitJobRequest(rows=_rows(4))],
        "SealJob": [pb.SealJobRequest(name=jobs.filled, row_count=20)],
        "UpdateJob": [
            pb.UpdateJobRequest(
                job=job_pb2.Job(name=jobs.queued, completion_window=duration_pb2.Duration(seconds=9000)),
                update_mask=field_mask_pb2.FieldMask(paths=["completion_window", "service_class"]),
            )
        ],
        "EstimateJob": [pb.EstimateJobRequest(job=_new_job(jobs.model), row_count=100, prompt_tokens_per_row=9)],
    }


def _reading_examples(jobs: FreshJobs) -> Examples:
    mask = field_mask_pb2.FieldMask(paths=["text"])
    return {
        "GetJob": [pb.GetJobRequest(name=jobs.queued)],
        "ListJobs": [pb.ListJobsRequest(page_size=3, model=jobs.model, labels={"team": "a"})],
        "WatchJob": [pb.WatchJobRequest(name=jobs.ended, after_revision=1)],
        "ReadResults": [pb.ReadResultsRequest(name=jobs.ended, order=pb.RESULT_ORDER_COMPLETION, read_mask=mask)],
        "ListCompletions": [pb.ListCompletionsRequest(after_sequence=0, limit=5)],
        "ExplainJob": [pb.ExplainJobRequest(name=jobs.queued)],
        "GetRowProvenance": [provenance_pb2.GetRowProvenanceRequest(name=jobs.ended, row_index=1)],
        "ExportResults": [transfer_pb2.ExportResultsRequest(name=jobs.ended, uri="file:///tmp/fuzz/answers.jsonl")],
        "ListParts": [scheduler_pb.ListPartsRequest(job=jobs.queued, limit=9)],
        "ListSegments": [scheduler_pb.ListSegmentsRequest(job=jobs.queued, limit=9)],
    }


def _verb_examples(jobs: FreshJobs) -> Examples:
    return {
        "CancelJob": [pb.CancelJobRequest(name=jobs.filled)],
        "PauseJob": [pb.PauseJobRequest(name=jobs.queued)],
        "ResumeJob": [pb.ResumeJobRequest(name=jobs.queued)],
        "DeleteJob": [pb.DeleteJobRequest(name=jobs.ended)],
        "RetryFailedRows": [pb.RetryFailedRowsRequest(name=jobs.ended, request_id="again")],
        "ReplayRows": [provenance_pb2.ReplayRowsRequest(name=jobs.ended, row_indices=[1, 0], request_id="same")],
        "ImportRows": [transfer_pb2.ImportRowsRequest(name=jobs.receiving, uri="file:///tmp/fuzz/rows.jsonl")],
        "RequeueChunk": [admin_service_pb2.RequeueChunkRequest(name=jobs.queued, row_index=3)],
        "ForceFailJob": [admin_service_pb2.ForceFailJobRequest(name=jobs.receiving, message="enough")],
    }


def _model_examples(jobs: FreshJobs) -> Examples:
    name, report = f"models/{jobs.model}", records_pb2.ModelReport(model="fuzz-model", max_model_len=64)
    return {
        "ListModels": [model_service_pb2.ListModelsRequest(page_size=1)],
        "GetModel": [model_service_pb2.GetModelRequest(name=name)],
        "UndrainModel": [model_service_pb2.UndrainModelRequest(name=name)],
        "PinModel": [model_service_pb2.PinModelRequest(name=name)],
        "LeaseChunks": [scheduler_pb.LeaseChunksRequest(worker_id="fuzz-worker", models=[report], max_chunks=1)],
        "ExtendLeases": [scheduler_pb.ExtendLeasesRequest(worker_id="fuzz-worker", models=[report])],
    }
