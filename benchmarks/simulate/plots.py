"""Late jobs, swaps and the small tenants' slowdown over the load, one PNG each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.simulate.compare import Summary

PANELS = (
    ("late_ratio", "late jobs (share)"),
    ("swaps", "model swaps a run"),
    ("small_tenant_slowdown_p50", "small tenants' slowdown (median)"),
)


def draw(folder: Path, loads: Sequence[float], summaries: Sequence[Mapping[str, Summary]]) -> list[Path]:
    """Write the plots; `summaries` go with `loads`. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, title in PANELS:
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        for policy in summaries[0]:
            axes.plot(loads, [getattr(each[policy], name) for each in summaries], marker="o", label=policy)
        axes.set(xlabel="load (work over engine time, without loading)", ylabel=title)
        if name == "small_tenant_slowdown_p50":
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend()
        written.append(folder / f"{name}.png")
        figure.tight_layout()
        figure.savefig(written[-1], dpi=120)
        pyplot.close(figure)
    return written
