"""Events about rows that kill engines: a chunk halved, a row condemned."""

from dataclasses import replace

from services.scheduler.core.records import Chunk
from services.scheduler.core.state import State
from tidemill import rowset
from tidemill.internal.v1 import ledger_pb2


def chunk_split(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """Two chunks wait in place of one."""
    split = event.chunk_split
    job = state.jobs[split.job]
    chunk = state.chunks[job.name][split.chunk_start]
    state.forget_waiting(job.name, chunk)
    for half in halves(chunk, split.first_rows):
        state.chunks[job.name][half.start] = half
        state.put_back(job.name, half)
    state.put(replace(job, revision=event.sequence))


def halves(chunk: Chunk, first_rows: int) -> tuple[Chunk, Chunk]:
    """The two parts of a chunk; deaths alone are counted anew for each."""
    first = replace(chunk, rows=first_rows, done=chunk.done & rowset.full(first_rows), deaths_alone=0)
    rest = chunk.rows - first_rows
    second = replace(chunk, start=chunk.start + first_rows, rows=rest, done=chunk.done >> first_rows, deaths_alone=0)
    return first, second


def row_condemned(state: State, event: ledger_pb2.LedgerEvent) -> None:
    """The row is not run again, so its chunk harms nobody."""
    condemned = event.row_condemned
    job = state.jobs[condemned.job]
    chunk = state.chunks[job.name][condemned.chunk_start]
    row = 1 << condemned.row_index - chunk.start
    state.chunks[job.name][chunk.start] = replace(chunk, condemned=chunk.condemned | row, suspect=False)
    state.put(replace(job, condemned_rows=job.condemned_rows + 1, revision=event.sequence))
