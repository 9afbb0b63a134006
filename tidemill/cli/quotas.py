"""`tidemill quotas`: what a tenant may hold, and what it holds."""

from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import emit_json, emit_table
from tidemill.cli.options import Json

if TYPE_CHECKING:
    from tidemill.v1.quota_service_pb2 import QuotaUse


def quotas(
    tenant: Annotated[str, typer.Option(help="Another tenant; admin keys only. Default: the key's own.")] = "",
    as_json: Json = False,
) -> None:
    """Show the limits of your tenant and how much of each is used.

    Streams, calls and bytes a second are limits of each gateway; the rest is the scheduler's.
    """
    from tidemill.client import Client

    with Client() as client:
        quota = client.quota(tenant)
    if as_json:
        uses = {use.quota: {"limit": use.limit or None, "used": use.used} for use in quota.uses}
        emit_json({"name": quota.name, "uses": uses, "day_end_time": quota.day_end_time.ToJsonString()})
        return
    emit_table(("QUOTA", "USED", "LIMIT", "SHARE"), [_cells(use) for use in quota.uses])


def _cells(use: "QuotaUse") -> tuple[str, str, str, str]:
    used = "-" if use.quota.endswith("_per_second") else f"{use.used:,}"
    share = f"{use.used / use.limit:.0%}" if use.limit and used != "-" else "-"
    return (use.quota, used, f"{use.limit:,}" if use.limit else "none", share)
