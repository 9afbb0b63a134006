"""Slices: how rows travel through a Ray dataset. One dataset row is a whole Arrow table, as IPC bytes.

Ray Data shapes blocks by their size: it would hold single results back until a task ends, or cut them apart. With one
slice a row, and blocks of one row, what is yielded together leaves at once and stays together.
"""

from typing import Any

__all__ = ["COLUMN", "pack", "unpack"]

COLUMN = "slice"


def pack(table: Any) -> Any:
    """The Arrow table as a block of one row."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.table({COLUMN: pa.array([sink.getvalue().to_pybytes()], pa.large_binary())})


def unpack(block: Any) -> list[Any]:
    """The Arrow tables inside a block."""
    import pyarrow as pa

    return [pa.ipc.open_stream(data).read_all() for data in block.column(COLUMN).to_pylist()]
