"""One heat map a shape: rows a second over batch size and concurrency, each cell with its figure and origin."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.matrix import Cell


def draw(folder: Path, cells: "Sequence[Cell]") -> list[Path]:
    """Write the plots. Needs matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _draw_shape(folder, shape, [cell for cell in cells if cell.shape == shape])
        for shape in dict.fromkeys(cell.shape for cell in cells)
    ]


def _draw_shape(folder: Path, shape: str, cells: "Sequence[Cell]") -> Path:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    batches = sorted({cell.batch for cell in cells})
    widths = sorted({cell.concurrency for cell in cells})
    grid = [[float("nan")] * len(batches) for _ in widths]
    for cell in cells:
        grid[widths.index(cell.concurrency)][batches.index(cell.batch)] = cell.rows_per_s
    figure, axes = pyplot.subplots(figsize=(6, 4))
    image = axes.imshow(grid, origin="lower", aspect="auto", cmap="YlGn", vmin=0)
    for cell in cells:
        place = batches.index(cell.batch), widths.index(cell.concurrency)
        axes.text(*place, f"{cell.rows_per_s:.4g}\n{cell.origin}", ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_yticks(range(len(widths)), [str(width) for width in widths])
    axes.set(xlabel="batch size (rows in the engine)", ylabel="concurrency (leases in flight)", title=shape)
    figure.colorbar(image, ax=axes, label="rows/s")
    figure.tight_layout()
    path = folder / f"matrix-{shape}.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
