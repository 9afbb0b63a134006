"""`tidemill pause`, `resume`, `update`, `retry` and `delete`."""

from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import emit, emit_json
from tidemill.cli.jobs import job_fields
from tidemill.cli.options import AcceptAtRisk, Escalate, JobArgument, Json, OnDeadline, ServiceClass, terms_of
from tidemill.errors import Reason, TidemillError

if TYPE_CHECKING:
    from tidemill.v1 import job_pb2


def pause(job: JobArgument, as_json: Json = False) -> None:
    """Give a job's rows no more to workers; chunks at a worker are finished."""
    from tidemill.client import Client

    with Client() as client:
        print_job(client.job(job).pause(), as_json=as_json)


def resume(job: JobArgument, as_json: Json = False) -> None:
    """Let a paused job go on."""
    from tidemill.client import Client

    with Client() as client:
        print_job(client.job(job).resume(), as_json=as_json)


def update(
    job: JobArgument,
    *,
    deadline: Annotated[
        str | None, typer.Option("--deadline", "-d", help="New deadline, from now: 90s, 30m, 2h, 1d.")
    ] = None,
    service_class: ServiceClass = "",
    on_deadline: OnDeadline = "",
    escalate: Escalate = None,
    accept_at_risk: AcceptAtRisk = False,
    as_json: Json = False,
) -> None:
    """Change the deadline, class or policies of a job that has not ended; what is not given stays."""
    from tidemill.client import Client

    terms = terms_of(service_class, on_deadline, escalate, accept_at_risk)
    if deadline is None and not terms:
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            "nothing to change: give --deadline, --class, --on-deadline, --escalate or --accept-at-risk",
        )
    with Client() as client:
        print_job(client.job(job).update(deadline=deadline, **terms), as_json=as_json)


def retry(
    job: JobArgument,
    *,
    deadline: Annotated[
        str | None, typer.Option("--deadline", "-d", help="When answers are needed: 90s, 30m, 2h, 1d. Default: 24h.")
    ] = None,
    request_id: Annotated[str, typer.Option(help="Makes the command repeatable: same id, same new job.")] = "",
    as_json: Json = False,
) -> None:
    """Ask the failed rows of a finished job again, as a new job; prints its name."""
    from tidemill.client import Client

    with Client() as client:
        old = client.job(job)
        new = old.retry_failed_rows(deadline=deadline, request_id=request_id)
    emit_json({"name": new.name, "retry_of": old.name}) if as_json else emit(new.name)


def delete(job: JobArgument, as_json: Json = False) -> None:
    """Hide a finished job at once; its rows and answers are removed a day later."""
    from tidemill.client import Client

    with Client() as client:
        handle = client.job(job)
        when = handle.delete().isoformat(timespec="seconds")
    if as_json:
        emit_json({"name": handle.name, "purge_time": when})
    else:
        emit(f"{handle.name} deleted; its data is removed at {when}")


def print_job(job: "job_pb2.Job", *, as_json: bool) -> None:
    """The job after a verb: its name and state, or all of it."""
    from tidemill.client import state_name

    emit_json(job_fields(job)) if as_json else emit(f"{job.name} {state_name(job)}")
