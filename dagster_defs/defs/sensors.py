"""The sensor that reports the gateway's completion feed."""

from dataclasses import replace
from functools import partial

import dagster as dg

from dagster_defs.defs.partitions import datasets
from dagster_defs.lib import tracing
from dagster_defs.lib.cursor import FeedCursor
from dagster_defs.lib.gateway import AWAY, TidemillGateway
from dagster_defs.lib.reported import find_input, read_reported
from dagster_defs.lib.tick import Tick, run_tick
from dagster_defs.settings import DagsterSettings
from tidemill.errors import TidemillError


@dg.sensor(
    name="completions",
    description=(
        "Reports every job of the tenant: its rows as an observation of `prompts` once they are fixed, its answers as "
        "a materialization of `outputs` once they are complete. Each exactly once, whatever crashes."
    ),
    minimum_interval_seconds=DagsterSettings().interval_seconds,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def completions(context: dg.SensorEvaluationContext, gateway: TidemillGateway) -> dg.SensorResult | dg.SkipReason:
    """One look at the feed."""
    cursor = FeedCursor.from_json(context.cursor)
    try:
        feed = gateway.read_feed(cursor.sequence)
    except TidemillError as error:
        if error.reason in AWAY:
            return dg.SkipReason(f"{error}; the cursor stays at entry {cursor.sequence}")
        raise
    cursor.check_ledger(feed.ledger_uid)
    if not feed.completions:
        # The feed's end may move on without news of this tenant.
        after = replace(cursor, sequence=feed.next_sequence, ledger_uid=feed.ledger_uid)
        return dg.SensorResult(skip_reason=f"no news since entry {cursor.sequence}", cursor=after.to_json())
    reported = read_reported(context.instance, cursor.storage_id)
    find = partial(find_input, context.instance)
    tick, after = run_tick(cursor, feed, reported, find, gateway.trace_url_template)
    tracing.record_tick(tick.jobs, after.sequence)
    return _result(tick, after)


def _result(tick: Tick, after: FeedCursor) -> dg.SensorResult:
    return dg.SensorResult(
        asset_events=tick.events,
        dynamic_partitions_requests=[datasets.build_add_request(list(tick.partitions))] if tick.partitions else [],
        cursor=after.to_json(),
    )
