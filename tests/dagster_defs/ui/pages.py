"""Pages of Dagster's UI that show our assets, at addresses that are stable."""

from urllib.parse import quote

from tests.dagster_defs.ui.browser import Page


def partition_page(url: str, partition: str, screenshot: str | None = None) -> Page:
    """A partition of `outputs`, with its metadata."""
    address = f"{url}/assets/outputs?view=partitions&partition={quote(partition, safe='')}"
    return Page(
        address, ["Materialized", "model_digest", "sample_results"], screenshot=screenshot, width=1640, height=1660
    )


def graph_page(url: str, screenshot: str | None = None) -> Page:
    """The asset graph."""
    return Page(f"{url}/asset-groups", ["prompts", "outputs"], ["Loading"], screenshot, 1500, 600)
