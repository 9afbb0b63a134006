"""What Dagster's sensor daemon does with a tick, and where it can crash."""

from dataclasses import dataclass

import dagster as dg

from dagster_defs.defs.sensors import completions
from dagster_defs.lib.gateway import TidemillGateway


class CrashError(Exception):
    """The daemon died at the chosen step."""


@dataclass
class Daemon:
    """Replays the daemon's order: events one by one, then partitions, then the cursor (dagster/_daemon/sensor.py)."""

    instance: dg.DagsterInstance
    gateway: TidemillGateway
    cursor: str | None = None

    def evaluate(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"gateway": self.gateway}
        )
        result = completions(context)
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    def tick(self, crash_after: int | None = None) -> int:
        """Run one tick and return how many steps it has; die once `crash_after` of them are stored."""
        result = self.evaluate()
        if isinstance(result, dg.SkipReason):
            return 0
        steps = [*result.asset_events, *(result.dynamic_partitions_requests or [])]
        for done, step in enumerate(steps):
            if done == crash_after:
                raise CrashError
            self._store(step)
        if len(steps) == crash_after:
            raise CrashError
        self.cursor = result.cursor
        return len(steps)

    def settle(self) -> None:
        """Tick until there is nothing left to report."""
        while self.tick():
            pass

    def _store(self, step: object) -> None:
        if isinstance(step, dg.AddDynamicPartitionsRequest):
            self.instance.add_dynamic_partitions(step.partitions_def_name, list(step.partition_keys))
        else:
            assert isinstance(step, dg.AssetMaterialization | dg.AssetObservation)
            self.instance.report_runless_asset_event(step)
