"""Run by the supervisor's tests: supervises the commands in a JSON file until a signal, as `tidemill up` does."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from tidemill.errors import TidemillError
from tidemill.up.spec import Event, ProcessSpec, Timing
from tidemill.up.supervisor import Supervisor

TIMING = Timing(tick=0.02, first_pause=0.05, longest_pause=0.1, start_attempts=3)


def main() -> int:
    folder = Path(sys.argv[1])
    specs = [spec(folder, number, item) for number, item in enumerate(json.loads((folder / "set.json").read_text()))]
    supervisor = Supervisor(specs, report, TIMING)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.kill() if ended.is_set() else ended.set())
    supervisor.start()
    try:
        supervisor.wait_ready(60)
        print("all ready", flush=True)
        while not ended.wait(0.05):
            pass
    except TidemillError as exc:
        print(f"failed {exc.message}", flush=True)
        return 3
    finally:
        supervisor.stop()
    print("all stopped", flush=True)
    return 0


def spec(folder: Path, number: int, item: dict[str, str]) -> ProcessSpec:
    name = item["name"]
    ready = folder / f"{name}.ready"
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-c", item["code"], str(folder), name),
        env=dict(os.environ),
        log=folder / f"{name}.log",
        check=lambda: None if ready.exists() else "its file",
        stop_group=int(item.get("stop_group", number)),
        grace=float(item.get("grace", 5)),
        ready_file=ready,
    )


def report(event: Event) -> None:
    print(f"{event.kind} {event.name} {event.text}".rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
