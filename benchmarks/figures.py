"""Figures of repeated runs, and how every benchmark prints them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """Repeated measurements of one side: median, spread and number of runs, in the unit that its name ends with."""

    median: float
    min: float
    max: float
    runs: int


def figure(values: Sequence[float]) -> Figure:
    """Summary of at least one measurement."""
    return Figure(round(median(values), 4), round(min(values), 4), round(max(values), 4), len(values))


def report(title: str, unit: str, sides: Mapping[str, Figure], ratio: float, *, as_json: bool) -> str:
    """The printed result: one JSON object, or a small table."""
    if as_json:
        figures = {name: asdict(side) for name, side in sides.items()}
        return json.dumps({"benchmark": title, "unit": unit, "sides": figures, "ratio": round(ratio, 4)})
    lines = [f"{title} ({unit})"]
    for name, side in sides.items():
        lines.append(f"  {name:<28} {side.median:>10.3f}  [{side.min:.3f} .. {side.max:.3f}]  n={side.runs}")
    return "\n".join([*lines, f"  ratio {ratio:.2f}"])
