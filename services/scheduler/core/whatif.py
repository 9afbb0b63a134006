"""`EstimateJob`: what a job would cost and when it would end."""

from services.scheduler.core.admission import Verdict, judge
from services.scheduler.core.checks import require, require_text
from services.scheduler.core.estimates import (
    DEFAULT_PROMPT_TOKENS,
    output_guess,
    row_tokens,
)
from services.scheduler.core.paces import ModelPace
from services.scheduler.core.prospects import Backlog, Work
from services.scheduler.core.times import from_timestamp, to_timestamp
from tidemill.internal.v1 import scheduler_service_pb2
from tidemill.v1 import job_service_pb2

MAX_ROWS = 10**10
MAX_TOKENS = 10**6


def imagined(backlog: Backlog, request: scheduler_service_pb2.EstimateJobRequest) -> Work:
    """The job that the request describes.

    Raises:
        TidemillError: INVALID_ARGUMENT.
    """
    spec = request.spec
    require_text(spec.model, "job.model")
    require(1 <= request.row_count <= MAX_ROWS, "row_count", f"must be 1 to {MAX_ROWS}")
    for field in ("prompt_tokens_per_row", "output_tokens_per_row"):
        require(0 <= getattr(request, field) <= MAX_TOKENS, field, f"must be 0 to {MAX_TOKENS}")
    pace = backlog.state.pace(spec.model)
    prompt = request.prompt_tokens_per_row or DEFAULT_PROMPT_TOKENS
    answers = spec.sampling.max_tokens * max(1, spec.sampling.n)
    output = request.output_tokens_per_row or output_guess(pace, min(answers, MAX_TOKENS))
    # A length that the caller gives is taken as known.
    p50, p90 = row_tokens(prompt, output, 10**6 if request.output_tokens_per_row else 0)
    weight = backlog.limits.weight(spec.service_class)
    deadline = from_timestamp(spec.complete_by_time)
    rows = request.row_count
    return Work(spec.tenant, spec.model, deadline, rows * p50, rows * p90, weight)


def estimate(backlog: Backlog, work: Work, rows: int) -> job_service_pb2.EstimateJobResponse:
    """The answer about `work` of `rows` rows."""
    verdict = judge(backlog, work)
    response = job_service_pb2.EstimateJobResponse(
        feasible=verdict.feasible, basis=_basis(backlog, work, verdict, rows)
    )
    if verdict.eta is not None:
        response.start_time.CopyFrom(to_timestamp(verdict.eta.start_ns))
        response.eta_p50_time.CopyFrom(to_timestamp(verdict.eta.p50_ns))
        response.eta_p90_time.CopyFrom(to_timestamp(verdict.eta.p90_ns))
        response.earliest_feasible_time.CopyFrom(to_timestamp(verdict.earliest_ns))
        response.engine_seconds = verdict.eta.engine_seconds
    return response


def _basis(backlog: Backlog, work: Work, verdict: Verdict, rows: int) -> str:
    pace = backlog.state.pace(work.model)
    engines = backlog.capacity.by_model.get(work.model, 0)
    tokens = f"{rows} rows of about {work.tokens_p50 // max(1, rows)} tokens"
    if not engines:
        return f"{tokens}; no live worker offers model {work.model}, so no end can be told"
    if verdict.eta is None:
        return f"{tokens}; model {work.model} has answered too little yet to tell an end"
    loaded = "loaded" if backlog.capacity.loaded.get(work.model) else "not loaded"
    return (
        f"{tokens}; {pace.tokens_per_second:.0f} tokens/s of busy engine over {pace.commits} commits; "
        f"{engines} engines, model {loaded}{_record(pace)}"
    )


def _record(pace: ModelPace) -> str:
    """How past ETAs of the model held; empty without any."""
    if not pace.etas:
        return ""
    return f"; {pace.etas_kept} of {pace.etas} jobs of the model ended by the 90th percentile they were told"
