"""Rows encoded, hashed and written straight to Parquet files with fsync, in one process: no network and no ledger.

    python -m benchmarks.append_parquet FOLDER ROWS

The encoding, the digests, the Merkle frontier and the writer of segments are the gateway's own. Prints one JSON line.
"""

import itertools
import json
import sys
import time
from pathlib import Path

from benchmarks.append_rows import make_rows
from tidemill.digests import row_digests
from tidemill.merkle import Frontier
from tidemill.prompt_encoding import encode_prompts
from tidemill.segments import input_columns_table, write_segment
from tidemill.store import open_store

SEGMENT_ROWS = 4096


def write(folder: Path, rows: int) -> dict[str, float]:
    """Write `rows` rows; all of them are on the disk when this returns."""
    store, frontier = open_store(folder.as_uri()), Frontier()
    source, start = make_rows(rows), 0
    # The first table ever makes pyarrow import pandas.
    input_columns_table(0, [], [], [], [])
    started, busy = time.perf_counter(), time.process_time()
    while batch := list(itertools.islice(source, SEGMENT_ROWS)):
        ids = [row.custom_id for row in batch]
        requests = encode_prompts([row.prompt for row in batch])
        digests = row_digests([custom_id.encode() for custom_id in ids], requests)
        frontier = frontier.extend(digests)
        table = input_columns_table(start, ids, ["prompt"] * len(batch), requests, digests)
        write_segment(store, f"rows/{start:012d}.parquet", table)
        start += len(batch)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    return {"rows_per_s": rows / seconds, "cpu_seconds": busy}


def main() -> None:
    print(json.dumps(write(Path(sys.argv[1]), int(sys.argv[2]))), flush=True)


if __name__ == "__main__":
    main()
