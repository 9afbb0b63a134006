"""The whole service in a process of its own, for benchmarks that start other processes too (`up` kills strangers).

    python -m benchmarks.service_child HOME MODEL_FOLDER

Prints one JSON line, `address` and `api_key`, once it is ready; ends when its standard input does.
"""

import json
import sys
from pathlib import Path

from tidemill.up.embedded import UpOptions, running


def main() -> None:
    home, model = sys.argv[1:3]
    options = UpOptions(Path(home), models=(model,), dagster=False, any_port=True)
    with running(options, lambda _event: None, lambda _line: None) as service:
        print(json.dumps({"address": service.address, "api_key": service.api_key}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
