"""`tidemill import` and `tidemill export`: files that the gateway itself reads or writes."""

import uuid
from typing import Annotated

import typer

from tidemill.cli.console import emit, emit_json, note
from tidemill.cli.options import JobArgument, Json


def import_file(
    uri: Annotated[
        str,
        typer.Argument(metavar="URI", help="file:///folder/rows.jsonl or s3://bucket/rows.parquet."),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="As `tidemill models list` names it.")],
    deadline: Annotated[
        str | None, typer.Option("--deadline", "-d", help="When answers are needed: 90s, 30m, 2h, 1d. Default: 24h.")
    ] = None,
    request_id: Annotated[
        str, typer.Option(help="Makes the command repeatable: the same id goes on with the job that it began.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Submit a file that lies where the gateway may read, and print the job's name.

    The operator allows folders and bucket prefixes in TIDEMILL_GATEWAY_IMPORT_ROOTS.
    """
    from tidemill.client import Client
    from tidemill.v1 import job_pb2

    chosen = request_id or uuid.uuid4().hex
    with Client() as client:
        handle, created = client.create(client.new_job(model=model, deadline=deadline), request_id=chosen)
        note(f"job {handle.name}")
        if created.state == job_pb2.JOB_STATE_RECEIVING:
            try:
                client.seal(handle, handle.import_rows(uri).next_offset)
            except Exception:
                note(f"{handle.name} is not sealed. Mend the file and repeat this with --request-id {chosen}")
                raise
    emit_json({"name": handle.name}) if as_json else emit(handle.name)


def export(
    job: JobArgument,
    uri: Annotated[
        str, typer.Argument(metavar="URI", help="file:///folder/answers.jsonl or s3://bucket/answers.parquet.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file with other content.")] = False,
    as_json: Json = False,
) -> None:
    """Have the gateway write all answers of a finished job to a file, whole or not at all.

    The operator allows folders and bucket prefixes in TIDEMILL_GATEWAY_EXPORT_ROOTS.
    """
    from tidemill.client import Client

    with Client() as client:
        done = client.job(job).export(uri, overwrite=overwrite)
    if as_json:
        emit_json({"uri": done.uri, "rows": done.row_count, "size_bytes": done.size_bytes, "sha256": done.sha256})
        return
    emit(f"{done.row_count} rows, {done.size_bytes} bytes, sha256 {done.sha256}: {done.uri}")
