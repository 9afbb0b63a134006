"""`tidemill metrics`: the figures of the processes that `tidemill up` runs, for those without Prometheus."""

import math
import urllib.request
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from tidemill.cli.console import emit, emit_json
from tidemill.cli.options import Json
from tidemill.errors import Reason, TidemillError

_SECONDS = 5.0
_UNREACHABLE = "unreachable"


def metrics(
    address: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Ask this process instead of those of `tidemill up`. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the metrics of the running processes: one JSON object, or one line a figure."""
    targets = {item: item for item in address} if address else _running()
    scraped = {name: _scrape(http_address) for name, http_address in targets.items()}
    if as_json:
        emit_json(scraped)
    else:
        for name, families in scraped.items():
            for line in _lines(name, families):
                emit(line)
    if all(families == {"error": _UNREACHABLE} for families in scraped.values()):
        raise TidemillError(Reason.UNAVAILABLE, "none of the processes answered; is `tidemill up` running?")


def _running() -> dict[str, str]:
    from tidemill.client.settings import home_folder, read_up_file

    processes: dict[str, Any] = read_up_file(home_folder()).get("processes", {})
    targets = {name: item["http_address"] for name, item in processes.items() if not name.startswith("dagster")}
    if not targets:
        raise TidemillError(
            Reason.UNAVAILABLE, "no `tidemill up` runs here; start it, or name a process with --address HOST:PORT"
        )
    return targets


def _scrape(http_address: str) -> dict[str, Any]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urllib.request.urlopen(f"http://{http_address}/metrics", timeout=_SECONDS) as answer:
            text = answer.read().decode()
    except OSError:
        return {"error": _UNREACHABLE}
    return {
        family.name: [
            {"name": sample.name, "labels": sample.labels, "value": _number(sample.value)} for sample in family.samples
        ]
        for family in text_string_to_metric_families(text)
    }


def _number(value: float) -> float | str:
    # JSON has no infinity, which histograms have as a bucket's bound and gauges may have as a value.
    return value if math.isfinite(value) else str(value)


def _lines(process: str, families: dict[str, Any]) -> Iterator[str]:
    if "error" in families:
        yield f"{process} {families['error']}"
        return
    for samples in families.values():
        for sample in samples:
            labels = ",".join(f"{key}={value}" for key, value in sample["labels"].items())
            yield f"{process} {sample['name']}{{{labels}}} {sample['value']:g}"
