"""`tidemill verify`: proves from the object store that each row was answered once and nothing was changed."""

from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import emit, emit_json
from tidemill.cli.exit_codes import ExitCode
from tidemill.cli.options import Json

if TYPE_CHECKING:
    from tidemill.store import ObjectStore
    from tidemill.verify import Expected, Report

_MANIFEST = "output/manifest.json"


def verify(
    target: Annotated[
        str, typer.Argument(metavar="JOB|URI", help="A finished job, or the URI of its output manifest or folder.")
    ],
    as_json: Json = False,
) -> None:
    """Read every input row and result of a finished job and check them against their digests and each other.

    With a job's name the ledger's counts and versions are compared as well. With a URI, such as
    file:///srv/tidemill/store/jobs/acme/01J.../output/manifest.json, nothing but the object store is needed. Exit
    status 0 says that all is well, 1 that something is wrong. Empty, echoed and repeated answers are counted and
    not judged.
    """
    from tidemill.verify import verify as run

    store, key, expected = _from_uri(target) if "://" in target else _from_job(target)
    report = run(store, key, expected)
    emit_json(report.as_json()) if as_json else _print(report)
    raise typer.Exit(ExitCode.OK if report.verified else ExitCode.NOT_ALL_WELL)


def _from_job(name: str) -> "tuple[ObjectStore, str, Expected]":
    from tidemill.client import Client, state_name
    from tidemill.errors import Reason, TidemillError
    from tidemill.verify import Expected

    with Client() as client:
        job = client.job(name).get()
    if not job.output_manifest_uri:
        raise TidemillError(
            Reason.JOB_NOT_TERMINAL, f"{job.name} is {state_name(job)}; only a job that has ended can be verified"
        )
    store, key, _ = _from_uri(job.output_manifest_uri)
    counts = job.row_counts
    return (
        store,
        key,
        Expected(
            job.name,
            job.input_data_version,
            job.output_data_version,
            counts.total,
            counts.succeeded,
            counts.failed,
            counts.cancelled,
            counts.expired,
        ),
    )


def _from_uri(uri: str) -> "tuple[ObjectStore, str, None]":
    """The store and the manifest's key behind the URI of a manifest, or of the job's folder."""
    from tidemill.errors import Reason, TidemillError
    from tidemill.store import attach_store

    root, found, rest = uri.partition("/jobs/")
    parts = rest.rstrip("/").split("/")
    if not found or len(parts) < 2 or "/".join(parts[2:]) not in ("", "output", _MANIFEST):
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"{uri[:300]!r} is not the URI of a job's output: it looks like STORE/jobs/TENANT/JOB/{_MANIFEST}",
        )
    store = attach_store(root)
    store.check()
    return store, f"jobs/{parts[0]}/{parts[1]}/{_MANIFEST}", None


def _print(report: "Report") -> None:
    outcomes = ", ".join(f"{getattr(report, name)} {name}" for name in ("succeeded", "failed", "cancelled", "expired"))
    emit(f"{report.job or report.manifest}: {report.rows} rows, {outcomes}")
    about = "about " if report.sampled < 1 else ""
    emit(
        f"to look at: {report.empty_answers} empty answers, {report.echoes} echoes of the prompt, "
        f"{about}{report.duplicated_answers} answers that repeat another (largest group {report.largest_group})"
    )
    for finding in report.findings:
        emit(f"{finding.fault.value}: {finding.message}")
    if report.verified:
        emit(f"verified in {report.seconds:g} s: each row has one result, and version {report.data_version} is theirs")
        return
    total = report.faults.total()
    more = f"; the first {len(report.findings)} are shown" if total > len(report.findings) else ""
    emit(f"NOT verified: {total} faults{more}")
