"""What clients of the scheduler saw, and whether it can be true of one scheduler that loses nothing.

Times are of the monotonic clock of the recording process. A call whose fate is unknown may have been carried out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tidemill import rowset
from tidemill.internal.v1 import records_pb2


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease that a worker received."""

    worker: str
    fence: int
    chunk_start: int
    chunk_rows: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A part that a worker tried to commit; `outcome` is `ok`, `stale` or `unknown`."""

    time: float
    part: records_pb2.PartRef
    outcome: str


@dataclass(frozen=True, slots=True)
class Read:
    """Rows with a result, as a reader was told of them between two times."""

    began: float
    ended: float
    succeeded: int


@dataclass(slots=True)
class History:
    """Everything that the clients of one job recorded."""

    granted: list[Granted] = field(default_factory=list[Granted])
    committed: list[Committed] = field(default_factory=list[Committed])
    reads: list[Read] = field(default_factory=list[Read])


def faults(history: History, parts: Iterable[records_pb2.PartRef], row_count: int) -> list[str]:
    """What in the history contradicts the promises, given the job's parts at the end; empty when nothing does."""
    found = list(parts)
    return [
        *_rows(found, row_count),
        *_acknowledged(history, found),
        *_invented(history, found),
        *_fences(history),
        *_stale(history),
        *_reads(history),
    ]


def _rows(parts: list[records_pb2.PartRef], row_count: int) -> list[str]:
    """Each row has exactly one visible result (I3)."""
    results: Counter[int] = Counter()
    for part in parts:
        results.update(part.chunk_start + row for row in rowset.indices(rowset.from_bytes(part.row_bitmap)))
    wrong = [row for row in range(row_count) if results[row] != 1]
    outside = [row for row in results if not 0 <= row < row_count]
    return [f"row {row} has {results[row]} results" for row in (wrong + outside)[:10]]


def _key(part: records_pb2.PartRef) -> tuple[int, int, bytes]:
    return part.fence, part.part_number, part.sha256


def _acknowledged(history: History, parts: list[records_pb2.PartRef]) -> list[str]:
    """What was acknowledged is there (I1)."""
    stored = {_key(part) for part in parts}
    return [
        f"part {commit.part.part_number} of fence {commit.part.fence} was acknowledged and is lost"
        for commit in history.committed
        if commit.outcome == "ok" and _key(commit.part) not in stored
    ]


def _invented(history: History, parts: list[records_pb2.PartRef]) -> list[str]:
    """What is there was sent (I12)."""
    sent = {_key(commit.part) for commit in history.committed}
    return [f"nobody sent part {part.part_number} of fence {part.fence}" for part in parts if _key(part) not in sent]


def _fences(history: History) -> list[str]:
    """No fence is given out twice, and they rise for each worker, which asks one call at a time (I2)."""
    problems = [
        f"fence {fence} was given out {times} times"
        for fence, times in Counter(lease.fence for lease in history.granted).items()
        if times > 1
    ]
    last: defaultdict[str, int] = defaultdict(int)
    for lease in history.granted:
        if lease.fence < last[lease.worker]:
            problems.append(f"{lease.worker} got fence {lease.fence} after {last[lease.worker]}")
        last[lease.worker] = lease.fence
    return problems


def _stale(history: History) -> list[str]:
    """A fence that was refused as stale takes no new part afterwards (I3)."""
    problems: list[str] = []
    refused: set[int] = set()
    taken: set[tuple[int, int, bytes]] = set()
    for commit in sorted(history.committed, key=lambda commit: commit.time):
        if commit.outcome == "stale":
            refused.add(commit.part.fence)
        elif commit.outcome == "ok" and commit.part.fence in refused and _key(commit.part) not in taken:
            problems.append(f"fence {commit.part.fence} was stale and took part {commit.part.part_number}")
        taken.add(_key(commit.part))
    return problems


def _reads(history: History) -> list[str]:
    """A read shows all that was acknowledged, or shown to a read that ended, before it began."""
    shown = [(read.ended, read.succeeded, False) for read in history.reads]
    commits = sorted((commit for commit in history.committed if commit.outcome == "ok"), key=lambda commit: commit.time)
    acknowledged, seen = 0, set[tuple[int, int, bytes]]()
    for commit in commits:
        if _key(commit.part) not in seen:
            seen.add(_key(commit.part))
            acknowledged += commit.part.row_count
        shown.append((commit.time, acknowledged, False))
    due = sorted(shown + [(read.began, read.succeeded, True) for read in history.reads])
    problems: list[str] = []
    least = 0
    for when, succeeded, begins in due:
        if begins and succeeded < least:
            problems.append(f"a read at {when:.2f} showed {succeeded} rows, and {least} were known")
        elif not begins:
            least = max(least, succeeded)
    return problems
