"""The gateway as Dagster sees it, and what runs share."""

import dagster as dg

from dagster_defs.lib.gateway import TidemillGateway
from dagster_defs.settings import DagsterSettings


@dg.definitions
def resources() -> dg.Definitions:
    """The gateway of `TIDEMILL_DAGSTER_*`. Runs only call it, so they need no process per step."""
    settings = DagsterSettings()
    gateway = TidemillGateway(
        address=settings.gateway,
        ca=settings.ca,
        api_key=dg.EnvVar("TIDEMILL_DAGSTER_API_KEY"),
        trace_url_template=settings.trace_url_template,
    )
    return dg.Definitions(resources={"gateway": gateway}, executor=dg.in_process_executor)
