"""`make cluster-demo`: the clustered set on loopback answers the example prompts while its leader is killed.

    python -m scripts.cluster_demo [--home FOLDER]

Two schedulers on a real Redis, two gateways, one inference process with the tiny model. The job goes in through one
gateway and comes out through the other; once its first rows are answered, the leading scheduler gets SIGKILL. The last
line is `cluster demo ok: ...`; anything else ends with a message and a non-zero status. No process is left.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tidemill.cli.source import open_source
from tidemill.client import Client, JobHandle, state_name
from tidemill.errors import TidemillError
from tidemill.up.cluster import GATEWAYS, ClusterSet, choose_cluster, cluster_specs
from tidemill.up.embedded import START_SECONDS, Interrupted, stopped_at_end, tiny_model
from tidemill.up.home import Home
from tidemill.up.spec import Event, EventKind
from tidemill.up.supervisor import Supervisor
from tidemill.v1 import row_pb2

PROMPTS = Path(__file__).resolve().parents[1] / "examples" / "prompts.jsonl"
# Behind these is a machine that does much else; a process that dies is noticed at once.
ANSWER_SECONDS = 600.0
TAKEOVER_SECONDS = 60.0

_T = TypeVar("_T")


class DemoFailed(Exception):  # noqa: N818 - what it says, not what it is
    """The cluster did something else than it should."""


def run(home: Home) -> str:
    """Do everything; returns the last line.

    Raises:
        DemoFailed, TidemillError: with what went wrong.
    """
    started = time.monotonic()
    home.prepare()
    with home.locked():
        home.rotate_logs()
        chosen = choose_cluster(home, tiny_model(home.tiny_model))
        api_key = home.development_key()
        supervisor = Supervisor(cluster_specs(chosen), _report)
        with stopped_at_end(supervisor, home):
            supervisor.start()
            supervisor.wait_ready(START_SECONDS)
            rows, takeover = _answer_while_the_leader_dies(chosen, supervisor, api_key)
    seconds = time.monotonic() - started
    return f"cluster demo ok: rows={rows} succeeded={rows} takeover_seconds={takeover:.1f} seconds={seconds:.1f}"


def _report(event: Event) -> None:
    if event.kind in (EventKind.READY, EventKind.EXITED):
        _say(f"{event.name}: {event.kind.value} {event.text}".rstrip())


def _say(text: str) -> None:
    print(text, flush=True)


def _answer_while_the_leader_dies(chosen: ClusterSet, supervisor: Supervisor, api_key: str) -> tuple[int, float]:
    first, second = (chosen.address(name) for name in GATEWAYS)
    with Client(first, api_key) as inward, Client(second, api_key) as outward:
        sent, count = _submit(inward, chosen.model.id)
        job = outward.job(sent.name)
        takeover = _kill_leader(chosen, supervisor, job, count)
        ended = job.wait(timeout=ANSWER_SECONDS)
        results = list(job.results())
    answered = {result.row_index for result in results if result.status == row_pb2.ROW_STATUS_SUCCEEDED}
    if state_name(ended) != "SUCCEEDED" or len(results) != count or answered != set(range(count)):
        raise DemoFailed(
            f"job {sent.name} ended {state_name(ended)} with {len(answered)} of {count} rows answered once"
        )
    return count, takeover


def _submit(client: Client, model: str) -> tuple[JobHandle, int]:
    source = open_source(str(PROMPTS), model)
    job = client.new_job(model=model, deadline="2h", sampling={"max_tokens": 48}, dataset="cluster-demo")
    handle, _ = client.create(job)
    count = client.append(handle, source.rows())
    client.seal(handle, count)
    _say(f"sealed {handle.name} with {count} rows at {GATEWAYS[0]}")
    return handle, count


def _kill_leader(chosen: ClusterSet, supervisor: Supervisor, job: JobHandle, count: int) -> float:
    """SIGKILL the leader once the first rows are answered; seconds until the standby leads."""
    counts = (snapshot.row_counts for snapshot in job.watch(timeout=ANSWER_SECONDS))
    answered = next((seen.succeeded for seen in counts if seen.succeeded), 0)
    leader = _wait(chosen.leader, TAKEOVER_SECONDS, "leading scheduler")
    pid = supervisor.children[leader].pid
    if not 0 < answered < count or pid is None:
        raise DemoFailed(f"{leader} could not be killed in the midst of the job: {answered} of {count} rows answered")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    _say(f"killed {leader}, which led, with {answered} of {count} rows answered")

    def successor() -> str | None:
        found = chosen.leader()
        return found if found != leader else None

    found = _wait(successor, TAKEOVER_SECONDS, "successor of the leader")
    takeover = time.monotonic() - killed
    _say(f"{found} leads after {takeover:.1f} s")
    return takeover


def _wait(condition: Callable[[], _T | None], seconds: float, what: str) -> _T:
    end = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        if time.monotonic() > end:
            raise DemoFailed(f"no {what} within {seconds:g} s")
        time.sleep(0.05)


def main() -> int:
    """Exit status: 0 when all was well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="keep the cluster's files here (default: a folder that is removed)")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="tidemill-cluster-") as folder:
            _say(run(Home((options.home or Path(folder)).absolute())))
    except (DemoFailed, TidemillError) as error:
        print(f"cluster demo failed: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupted:
        return 128 + interrupted.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
