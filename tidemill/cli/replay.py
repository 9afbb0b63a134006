"""`tidemill replay`: do rows of a finished job get the same answers again?"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.console import emit, emit_json, note
from tidemill.cli.exit_codes import ExitCode
from tidemill.cli.options import JobArgument, Json

if TYPE_CHECKING:
    from tidemill.client.replay import Replay


def replay(
    job: JobArgument,
    rows: Annotated[str, typer.Option(help="Rows to ask again, such as 0,7,100-120. Default: see --sample.")] = "",
    sample: Annotated[int, typer.Option(min=1, max=10_000, help="Without --rows: so many, evenly spread.")] = 10,
    deadline: Annotated[
        str | None, typer.Option("--deadline", "-d", help="When answers are needed: 90s, 30m, 2h, 1d. Default: 24h.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask rows of a finished job again and compare the answers bit for bit.

    SAME: the same answer. DIFFERENT: another one, although the engine promised the same (exit status 1).
    NOT_COMPARABLE: no answer to compare, or the reason why another one is no surprise, such as an answer drawn at
    random, other weights or another engine. The rows run as a job of their own, which is no version of the first
    one's dataset.
    """
    from tidemill.client import Client

    with Client() as client:
        handle = client.job(job)
        chosen = parse_rows(rows) if rows else spread(handle.get().row_counts.total, sample)
        if not as_json:
            note(f"asking {len(chosen)} rows of {handle.name} again")
        found = handle.replay(chosen, deadline=deadline)
    emit_json({"job": found.job, "counts": found.counts, "rows": [asdict(row) for row in found.rows]}) if as_json else (
        _print(found)
    )
    raise typer.Exit(ExitCode.OK if found.reproduced else ExitCode.NOT_ALL_WELL)


def parse_rows(text: str) -> list[int]:
    """Indices behind `0,7,100-120`, at most 10,000; INVALID_ARGUMENT for anything else."""
    from tidemill.errors import Reason, TidemillError

    rows: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        numbers = (first, last) if dash else (first, first)
        if not all(number.isascii() and number.isdigit() and len(number) <= 18 for number in numbers):
            raise TidemillError(Reason.INVALID_ARGUMENT, f"--rows: {piece[:40]!r} is not a row; write 0,7,100-120")
        start, end = int(numbers[0]), int(numbers[1])
        if end < start or end - start >= 10_000 or len(rows) > 10_000:
            raise TidemillError(Reason.INVALID_ARGUMENT, f"--rows: {piece[:40]!r} is no range of at most 10000 rows")
        rows.update(range(start, end + 1))
    return sorted(rows)


def spread(total: int, count: int) -> list[int]:
    """`count` rows of `total`, evenly spread, the first among them; all where there are fewer."""
    count = min(total, count)
    return [number * total // count for number in range(count)]


def _print(found: "Replay") -> None:
    for row in found.rows:
        emit(f"row {row.row_index:<10} {row.verdict.value:<15} {'; '.join(row.reasons)}".rstrip())
    emit(", ".join(f"{count} {verdict}" for verdict, count in found.counts.items()) + f"; replayed by {found.job}")
