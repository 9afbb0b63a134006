"""Options that several commands share."""

from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.completion import complete_job
from tidemill.cli.console import speak_json

if TYPE_CHECKING:
    from tidemill.client.terms import Terms

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of text for people.", callback=speak_json, is_eager=True)
]
JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="The job's name, tenants/TENANT/jobs/ULID, or the ULID alone.", autocompletion=complete_job
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the results there instead of to standard output."),
]
ServiceClass = Annotated[
    str, typer.Option("--class", metavar="CLASS", help="urgent, standard or flex: the share of a busy service.")
]
OnDeadline = Annotated[
    str, typer.Option(metavar="POLICY", help="run-late, or expire: end at the deadline and keep what is finished.")
]
Escalate = Annotated[
    list[str] | None,
    typer.Option(metavar="ACTION", help="When the job is at risk: raise-class, more-parallelism, or none. Repeatable."),
]
AcceptAtRisk = Annotated[
    bool, typer.Option("--accept-at-risk", help="Queue the job although its deadline may not hold.")
]


def terms_of(service_class: str, on_deadline: str, escalate: list[str] | None, accept_at_risk: bool) -> "Terms":
    """What was given of a job's terms; options left out are left out here too."""
    terms: Terms = {}
    if service_class:
        terms["service_class"] = service_class.lower()
    if on_deadline:
        terms["on_deadline"] = _snake(on_deadline)
    if escalate is not None:
        terms["escalate"] = [_snake(action) for action in escalate if action != "none"]
    if accept_at_risk:
        terms["accept_at_risk"] = True
    return terms


def _snake(text: str) -> str:
    return text.lower().replace("-", "_")
