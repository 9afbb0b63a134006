"""`tidemill doctor`: what works here, what does not, and what to do about it."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.console import emit, emit_json, note
from tidemill.cli.exit_codes import ExitCode
from tidemill.cli.options import Json


def doctor(
    engine: Annotated[str, typer.Option(envvar="ENGINE", help="What the models are to run on: cpu or gpu.")] = "cpu",
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write an archive (.tar.gz) for a bug report, without secrets or rows."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine, what it can run, what is installed, and the service; every fault comes with its remedy."""
    from tidemill import capacity, preflight
    from tidemill.cli.checks import installed, machine, service
    from tidemill.errors import Reason, TidemillError

    if engine not in ("cpu", "gpu"):
        raise TidemillError(Reason.INVALID_ARGUMENT, f"--engine is cpu or gpu, not {engine!r}")
    findings = [*machine(engine), *capacity.findings(engine, os.environ), *installed(), *service()]
    well = all(finding.level != "error" for finding in findings)
    if as_json:
        emit_json({"well": well, "findings": [asdict(finding) for finding in findings]})
    else:
        preflight.report(findings, emit)
    if bundle:
        from tidemill.cli.bundle import write_bundle

        names = write_bundle(bundle, findings)
        note(f"{bundle} has {len(names)} files and no secrets that are known here; look into it before you send it")
    raise typer.Exit(ExitCode.OK if well else ExitCode.NOT_ALL_WELL)
