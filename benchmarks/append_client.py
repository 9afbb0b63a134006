"""A client that appends rows to a gateway and tells how it went; `benchmarks.append` runs it on a core of its own.

    python -m benchmarks.append_client ADDRESS MODEL ROWS

The API key is in `TIDEMILL_API_KEY`. Prints one JSON line: seconds until all rows were acknowledged durable, processor
seconds, and by how many MiB the resident memory grew at its peak.
"""

import json
import os
import sys
import time

from benchmarks.append_memory import Memory
from benchmarks.append_rows import make_rows
from tidemill.client import Client

# The first rows pay for connections and thread pools; they go to a job of their own and their time is not counted.
WARM_ROWS = 4096


def main() -> None:
    address, model, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with Client(address) as client:
        jobs = [client.create(client.new_job(model=model))[0] for _ in range(2)]
        warm_rows, all_rows = make_rows(WARM_ROWS), make_rows(rows)
        memory = Memory(os.getpid())
        client.append(jobs[0], warm_rows)
        started, busy = time.perf_counter(), time.process_time()
        appended = client.append(jobs[1], all_rows)
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        growth = memory.growth_mb()
    if appended != rows:
        raise SystemExit(f"{appended} of {rows} rows were acknowledged")
    print(json.dumps({"seconds": seconds, "cpu_seconds": busy, "rss_growth_mb": growth}), flush=True)


if __name__ == "__main__":
    main()
