"""`tidemill doctor`: what works here, what does not, and what to do about it."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from tidemill.cli.console import emit, emit_json
from tidemill.cli.exit_codes import ExitCode
from tidemill.cli.options import Json


def doctor(
    engine: Annotated[str, typer.Option(envvar="ENGINE", help="What the models are to run on: cpu or gpu.")] = "cpu",
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
    raise typer.Exit(ExitCode.OK if well else ExitCode.NOT_ALL_WELL)
