"""Generate the gRPC code of `protos/` into `tidemill/`, or with `--check` say whether it drifted."""

import argparse
import filecmp
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
GOOGLE_PROTOS = (
    "google/api/field_behavior.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
)


def copy_google_protos(target: Path) -> None:
    """Copy Google's annotations out of the installed googleapis-common-protos; buf and protoc read them there."""
    spec = find_spec("google.rpc")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("googleapis-common-protos is not installed: run `make venv`")
    site = Path(next(iter(spec.submodule_search_locations))).parent.parent
    for name in GOOGLE_PROTOS:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(site / name, target / name)


def generate(out: Path) -> None:
    """Write modules and type stubs of every proto below `out`."""
    deps = ROOT / "build" / "protodeps"
    copy_google_protos(deps)
    bin_dir = Path(sys.executable).parent
    arguments = [
        "protoc",
        f"-I{ROOT / 'protos'}",
        f"-I{deps}",
        f"-I{Path(protoc.__file__).parent / '_proto'}",
        f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *sorted(str(path) for path in (ROOT / "protos").rglob("*.proto")),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")


def drifted(fresh: Path) -> list[str]:
    """Names of generated files that differ between `fresh` and the tree."""
    names = {str(path.relative_to(fresh)) for path in fresh.rglob("*_pb2*")}
    committed = (path.relative_to(ROOT) for path in (ROOT / "tidemill").rglob("*_pb2*.py*"))
    names |= {str(path) for path in committed if "__pycache__" not in path.parts}
    same, _, _ = filecmp.cmpfiles(fresh, ROOT, sorted(names), shallow=False)
    return sorted(names - set(same))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the committed code differs")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = drifted(Path(folder))
    for name in stale:
        print(f"{name}: differs from protos/; run `make proto` and commit the result", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
