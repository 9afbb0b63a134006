"""Options that several commands share."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's name, tenants/TENANT/jobs/ULID, or the ULID alone.")
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the results there instead of to standard output."),
]
