"""Say what this machine lacks before anything is downloaded; exit 1 when the demo cannot run.

python3 scripts/preflight.py [--engine gpu]
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this very check is for older interpreters, which cannot even parse the rest
    sys.exit(
        f"FAIL python: Python {sys.version_info[0]}.{sys.version_info[1]} at {sys.executable}\n"
        "     -> use Python 3.11, 3.12 or 3.13, for instance: make demo PYTHON=python3.11"
    )

import argparse
import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def load_checks() -> Any:
    """`tidemill/preflight.py` by its path: the package around it may need what is not installed yet."""
    spec = importlib.util.spec_from_file_location("preflight_checks", ROOT / "tidemill" / "preflight.py")
    if spec is None or spec.loader is None:
        raise SystemExit("tidemill/preflight.py is missing: clone the repository again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--installed", action="store_true", help="the environment exists: leave disk and index out")
    arguments = parser.parse_args()
    checks = load_checks()
    print(checks.needs(arguments.engine), flush=True)
    findings = checks.run(arguments.engine, ROOT, installing=not arguments.installed)
    return 0 if checks.report(findings) else 1


if __name__ == "__main__":
    raise SystemExit(main())
