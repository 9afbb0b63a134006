"""What importing the client costs, and what it says when a library is missing."""

import subprocess
import sys

import pytest

from tidemill.client import Client
from tidemill.client.arrow import result_reader, result_schema
from tidemill.client.optional import require
from tidemill.client.sources import open_rows
from tidemill.client.vectors import vector
from tidemill.v1 import row_pb2

HEAVY = ("numpy", "pandas", "pyarrow", "polars", "opentelemetry", "pydantic", "rich", "typer")


def loaded_by(code: str, *names: str) -> str:
    script = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing() -> None:
    assert loaded_by("import tidemill", *HEAVY, "grpc", "google.protobuf", "tidemill.client") == ""
    assert loaded_by("from tidemill import TidemillError", *HEAVY) == ""


def test_a_job_s_whole_way_needs_none_of_the_heavy_ones() -> None:
    code = """
from tidemill import AsyncClient, Client
from tidemill.client.sources import open_rows
assert AsyncClient.__name__ == "AsyncClient"
with Client("127.0.0.1:1", "key") as client:
    assert [row.prompt for row in open_rows(["a", {"prompt": "b"}])] == ["a", "b"]
"""
    assert loaded_by(code, *HEAVY) == ""


def test_the_package_has_nothing_else() -> None:
    import tidemill

    with pytest.raises(AttributeError, match="no attribute 'Clint'"):
        _ = tidemill.Clint
    assert tidemill.Client is Client


class Stream:
    """Something with columns that pyarrow could read."""

    columns = ("prompt",)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise AssertionError("it is not asked before pyarrow is there")


def test_a_missing_library_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    result_schema.cache_clear()
    for name in ("pyarrow", "numpy", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    for act, words in [
        (lambda: open_rows(Stream()), "rows from a table needs pyarrow: pip install pyarrow"),
        (lambda: result_reader([]), "results as Arrow needs pyarrow: pip install pyarrow"),
        (lambda: vector(row_pb2.RowResult()), "embeddings as arrays needs numpy: pip install numpy"),
        (
            lambda: require("pandas", "results as a DataFrame"),
            "results as a DataFrame needs pandas: pip install pandas",
        ),
    ]:
        with pytest.raises(ModuleNotFoundError, match=words):
            act()
