"""Late jobs, swaps and the small tenants' slowdown over the load, one PNG each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.simulate.compare import Summary


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: the field of `Summary` that it shows, its title, and how its values are written on a `scale`."""

    name: str
    title: str
    label: Callable[[float], str]
    scale: str = "linear"


PANELS = (
    Panel("late_ratio", "late jobs", lambda value: f"{100 * value:g}%"),
    Panel("swaps", "model swaps a run", lambda value: f"{value:.0f}"),
    Panel("small_tenant_slowdown_p50", "small tenants' slowdown, median", lambda value: f"{value:g}", "log"),
)

NAMES = {
    "fifo": "FIFO",
    "edf": "EDF",
    "edf_affinity": "EDF, loaded model first",
    "fair": "weighted fair",
    "ours": "Tidemill",
}

MARKERS = "osDv^"
"""Lines often lie on each other, at no late jobs for one: size and shape tell them apart."""


def draw(folder: Path, loads: Sequence[float], summaries: Sequence[Mapping[str, Summary]]) -> list[Path]:
    """Write the plots; `summaries` go with `loads`. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for panel in PANELS:
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        _lines(axes, panel, loads, summaries)
        _axes(axes, panel, loads)
        written.append(folder / f"{panel.name}.png")
        figure.tight_layout()
        figure.savefig(written[-1], dpi=120)
        pyplot.close(figure)
    return written


def _lines(axes: Any, panel: Panel, loads: Sequence[float], summaries: Sequence[Mapping[str, Summary]]) -> None:
    for place, policy in enumerate(summaries[0]):
        values = [getattr(each[policy], panel.name) for each in summaries]
        ours = policy == "ours"
        axes.plot(
            loads,
            values,
            marker=MARKERS[place % len(MARKERS)],
            markersize=9 if ours else 5,
            linewidth=3 if ours else 1.5,
            color="black" if ours else f"C{place}",
            zorder=1 if ours else 2,
            label=NAMES.get(policy, policy),
        )


def _axes(axes: Any, panel: Panel, loads: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_title(panel.title, loc="left")
    axes.set_xlabel("load: work over engine time, without loading models")
    axes.set_xticks(loads)
    axes.set_yscale(panel.scale)
    if panel.scale == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        # A little below zero, where a line at zero would be cut in half.
        axes.set_ylim(-0.02 * axes.get_ylim()[1], None)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: panel.label(value)))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
